package client

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"sealift/crypto/tlskey"
)

// form is how a server wants its files.
type form struct {
	dialect    Dialect // never Auto
	packetSize int     // 0: what the dialect usually has
	pause      time.Duration

	// atLeast: a file that needs larger packets gets them. It is so where the
	// size was found out, and not where it was asked for.
	atLeast bool
}

func (f form) plan(size int64) (layout, error) {
	l, err := plan(f.dialect, f.packetSize, size)
	if err != nil && f.atLeast && f.packetSize > 0 {
		return plan(f.dialect, 0, size)
	}
	return l, err
}

// trust says how well a form has shown that a server takes it.
type trust uint8

const (
	guessed    trust = iota // nothing was stored in it yet, or only files of one packet
	remembered              // a file of several was stored in it in an earlier run
	found                   // a probe was taken in it in this run
	proven                  // one was in this run, or it was asked for
)

// peer is what is known of a server. The Clients of a Run share it; its methods
// may be called from any goroutine.
type peer struct {
	address string
	guard   *guard // nil: connections are plain
	store   KnownServers
	log     *slog.Logger
	budget  budget
	warned  sync.Once

	// surveying is held while one Client finds out something; the others wait
	// and use what it has found.
	surveying chan struct{} // of one element

	mu        sync.Mutex
	known     Facts // what the store has
	autoCodes bool  // Options.Codes is AutoCodes
	autoForm  bool  // Options.Dialect is Auto
	probes    bool  // not Options.NoProbes
	codes     Codes // in use
	codesSure bool  // a reply has shown them, in this run or an earlier one, or they were asked for
	codesDone bool  // a reply has shown them in this run, or nothing more can be found out
	form      form
	trust     trust
	worked    bool // a file of several packets was stored, in this run or an earlier one, in whatever form
	small     bool // one of one packet was, in this form
	turn      int  // counts the changes of form, but for its pause
	surveyed  bool // the dialects were tried in this run

	cont     Continuing // whether the server continues files, as it is believed
	contSure bool       // a 1608 or TLS has shown it in this run
	contALPN bool       // TLS has
	contSet  bool       // Options.Continue says it
	contKept Continuing // what the store is to have
}

func newPeer(ctx context.Context, o *Options, address string) *peer {
	p := &peer{
		address: address, store: o.Known, log: o.Logger, surveying: make(chan struct{}, 1), known: noFacts,
		autoCodes: o.Codes == AutoCodes, autoForm: o.Dialect == Auto, probes: !o.NoProbes,
	}
	facts, err := within(ctx, func() (*Facts, error) { return p.store.Load(address) }, nil)
	if err != nil && ctx.Err() == nil {
		p.log.Warn("what is known about servers cannot be read", "because", err)
	} else if err == nil && facts != nil {
		p.known = *facts
	}
	p.codes, p.codesSure, p.codesDone = o.Codes, true, true
	if p.autoCodes {
		p.codes, p.codesSure, p.codesDone = Codes1025, false, false
		if p.known.Codes != AutoCodes {
			p.codes, p.codesSure = p.known.Codes, true
		}
	}
	p.form, p.trust = form{dialect: o.Dialect, packetSize: o.PacketSize}, proven
	if p.autoForm {
		p.form.dialect, p.trust = Spec, guessed
		if p.known.Dialect != Auto {
			p.form.dialect, p.trust = p.known.Dialect, remembered
			if o.PacketSize == 0 || o.PacketSize > 0 && p.form.dialect == Single {
				p.form.packetSize, p.form.atLeast = p.known.PacketSize, true
			}
		}
	}
	p.cont, p.contKept = p.known.Continue, p.known.Continue
	if o.Continue != ContinueUnknown {
		p.cont, p.contSet = o.Continue, true
	}
	p.form.pause = p.known.Pause
	p.worked = p.known.Dialect != Auto || p.known.Pause > 0
	p.small = p.known.OnePacket
	return p
}

// warnPlain tells, once, that a connection to another machine is not protected.
func (p *peer) warnPlain(nc net.Conn) {
	if p.guard == nil && leavesMachine(nc) {
		p.warned.Do(func() { p.log.Warn("the connection is not protected by TLS", "server", p.address) })
	}
}

// leavesMachine reports whether a connection is to another machine than this one.
func leavesMachine(nc net.Conn) bool {
	remote, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok || remote.IP.IsLoopback() {
		return false
	}
	local, ok := nc.LocalAddr().(*net.TCPAddr)
	return !ok || !local.IP.Equal(remote.IP)
}

// number is how the requests are numbered now.
func (p *peer) number() Codes {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.codes
}

// mayFindCodes reports whether it is worth while to find out how the server
// numbers requests, after a first message has failed. Where its numbers are
// believed to be known that is so only if it has failed persistently.
func (p *peer) mayFindCodes(persistently bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.codesDone && (!p.codesSure || persistently)
}

// foundCodes notes what was found out, and that there is nothing more to find.
func (p *peer) foundCodes(c Codes) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.codes, p.codesDone = c, true
}

// answered notes that the server has given a first message its reply: so it
// knows its number.
func (p *peer) answered(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.codesSure, p.codesDone = true, true
	if p.known.Codes != AutoCodes || p.codes != Codes1025 {
		p.remember(ctx) // else it can wait for the first file
	}
}

// current returns the form in use, how far it is to be trusted, and which turn
// it is.
func (p *peer) current() (f form, t trust, turn int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.form, p.trust, p.turn
}

// served reports whether the server has stored a file of several packets before,
// in whatever form, and whether it has stored one of one packet in this form.
func (p *peer) served() (several, one bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.worked, p.small
}

// mayAdapt reports whether another form may be found that suits the server. One that
// continues files takes all of them.
func (p *peer) mayAdapt() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.autoForm && p.trust <= remembered && !(p.cont == ContinueYes && p.contSure) && (p.probes && !p.surveyed || !p.probes && p.form.dialect != Spec)
}

// change begins with another form.
func (p *peer) change(f form, t trust) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.form, p.trust, p.worked, p.small = f, t, false, false
	p.turn++
}

// endSurvey notes that all dialects were tried.
func (p *peer) endSurvey() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.surveyed = true
}

// stored notes that the server has a file that was sent in form f, in so many
// packets.
func (p *peer) stored(ctx context.Context, f form, packets int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.form.dialect != f.dialect || p.form.packetSize != f.packetSize {
		return // another Client has found out otherwise
	}
	if p.small = true; packets > 1 {
		p.form.pause = max(p.form.pause, f.pause)
		p.worked = true
	}
	if packets > 1 || p.trust == found {
		p.trust = proven
	}
	p.remember(ctx)
}

// remember saves what is new. Only what was found out is kept, and not what was
// asked for: who asks for a dialect does so again.
func (p *peer) remember(ctx context.Context) {
	facts := p.known
	facts.Continue = p.contKept
	if p.autoCodes && p.codesSure {
		facts.Codes = p.codes
	}
	if p.autoForm && p.trust == guessed {
		facts.Dialect, facts.PacketSize, facts.OnePacket = Auto, 0, p.small
	}
	if p.trust == proven {
		facts.OnePacket = false
		facts.Pause = p.form.pause
		if p.autoForm {
			facts.Dialect, facts.PacketSize = p.form.dialect, 0
			if p.form.atLeast {
				facts.PacketSize = p.form.packetSize
			}
		}
	}
	if facts == p.known {
		return
	}
	p.known = facts
	_, err := within(ctx, func() (struct{}, error) { return struct{}{}, p.store.Save(p.address, facts) }, nil)
	if err != nil && ctx.Err() == nil {
		p.log.Warn("what was found out about the server cannot be kept", "server", p.address, "because", err)
	}
}

// continues returns whether the server continues files, as far as it is known, and
// whether that has shown in this run. There is no later number for a 1032, so a server
// that wants the later numbers does not, unless it says so otherwise.
func (p *peer) continues() (has Continuing, sure bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.codes == Codes825 && !p.contSure && !p.contSet {
		return ContinueNo, false
	}
	return p.cont, p.contSure
}

// negotiated takes the protocol into account that TLS has chosen.
func (p *peer) negotiated(protocol string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.contSet && p.cont == ContinueNo {
		return
	}
	switch protocol {
	case tlskey.ALPNContinue:
		p.cont, p.contSure, p.contALPN = ContinueYes, true, true
	case tlskey.ALPN:
		p.cont, p.contSure, p.contALPN = ContinueNo, true, true
	}
}

// doesContinue notes a 1608.
func (p *peer) doesContinue(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cont, p.contSure = ContinueYes, true; !p.contALPN && p.contKept != ContinueYes {
		p.contKept = ContinueYes
		p.remember(ctx)
	}
}

// doesNotContinue notes that a 1032 got no 1608. What an earlier run has seen is
// forgotten, and not contradicted: it may have been a failure of the server.
func (p *peer) doesNotContinue(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.contSure {
		return // another Client knows better
	}
	p.contKept = ContinueNo
	if p.cont == ContinueYes {
		p.contKept = ContinueUnknown
	}
	p.cont = ContinueNo
	p.remember(ctx)
}

// alone waits until no other Client finds out something, and keeps others from
// it until the returned function is called.
func (p *peer) alone(ctx context.Context) (done func(), err error) {
	select {
	case p.surveying <- struct{}{}:
		return func() { <-p.surveying }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// budget bounds what is tried on a server to find out something.
type budget struct {
	mu     sync.Mutex
	probes int
	spent  time.Duration
}

// The most probes of a Run, and the longest that they may take together.
const (
	maxProbes    = 20
	maxProbeTime = 2 * time.Minute
)

// take begins a probe. It returns false if there are none left. Otherwise the
// probe's context ends with the budget, and end must be called.
func (b *budget) take(ctx context.Context) (probe context.Context, end func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.probes >= maxProbes || b.spent >= maxProbeTime {
		return nil, nil, false
	}
	b.probes++
	began := time.Now()
	probe, cancel := context.WithTimeout(ctx, maxProbeTime-b.spent)
	return probe, func() {
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.spent += time.Since(began)
	}, true
}

// giveBack makes up for a probe that did not reach the server.
func (b *budget) giveBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probes--
}

func (b *budget) used() (probes int, spent time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.probes, b.spent
}
