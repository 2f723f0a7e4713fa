// Package load is the load generator: many clients of the protocol in one
// process, on real connections, each upload checked.
//
// A run has three parts. Set-up makes keys, connections and registrations; then
// the generator says that it is ready and waits; then the clock runs. What the
// process costs meanwhile is part of the result, so that one sees when the
// generator, and not the server, is the limit.
//
// Each client is a goroutine: at 10,000 active clients these cost under a tenth
// of the generator's time, the rest being the kernel's.
package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sealift/crypto/aescbc"
	"sealift/internal/testpeer"
)

// Kind says what the clients do while the clock runs.
type Kind string

const (
	// Uploads: each client has a connection and a key from the set-up and sends
	// its file again and again.
	Uploads Kind = "uploads"
	// Sessions: each client connects, registers, sends its key and a file, has
	// it verified and hangs up, again and again under new names.
	Sessions Kind = "sessions"
	// Reconnects: the same for clients that the set-up has registered: 1027 in
	// the place of 1025 and 1026.
	Reconnects Kind = "reconnects"
	// Idle: the clients have connections and keys and are silent; when the clock
	// has stopped each of them sends its file once.
	Idle Kind = "idle"
	// Handshakes: each client connects, protects the connection and hangs up, again
	// and again.
	Handshakes Kind = "handshakes"
	// Raw: as Uploads, without the protocol, to the floor server.
	Raw Kind = "raw"
)

// Spec is what a generator is asked to do.
type Spec struct {
	Kind        Kind   `json:"kind"`
	Server      string `json:"server"` // host:port, or several with commas
	Run         string `json:"run"`    // makes names unique
	Connections int    `json:"connections"`
	FileSize    int64  `json:"file_size"`        // bytes
	Packet      int64  `json:"packet,omitempty"` // bytes of content in each; 0: 64 KiB
	// Before is how many bytes each client of Idle has sent, in a file, before it is
	// silent.
	Before int64 `json:"before,omitempty"`
	TLS    bool  `json:"tls,omitempty"` // the connections are protected

	// The clock stops after PerClient rounds of each client, or else after
	// Duration. Rounds by Duration begin a little before the clock starts, so that
	// it finds the server at work.
	PerClient int           `json:"per_client,omitempty"`
	Duration  time.Duration `json:"duration,omitempty"`

	// Rate paces the load: that many rounds a second over all clients, begun on
	// time whether or not the server keeps up, and timed from when they should
	// have begun. Zero lets each client begin as soon as it is done.
	Rate float64 `json:"rate,omitempty"`
}

// Events is what a generator tells while it runs.
type Events struct {
	Ready   func() error // everything is set up; the load begins when it returns
	Started func()       // the clock has started
	Stopped func()       // and stopped; what is under way goes on to its end
}

// Result is what a run came to.
type Result struct {
	Seconds float64 `json:"seconds"` // of the clock
	Rounds  int64   `json:"rounds"`  // uploads or sessions that ended within them
	Bytes   int64   `json:"bytes"`   // of files, decrypted, in those
	Missed  int64   `json:"missed"`  // paced rounds that were due and not begun
	Latency Latency `json:"latency"` // of each round
	Late    Latency `json:"late"`    // paced: how late the generator began rounds
	CPU     float64 `json:"cpu"`     // seconds of processor time of the generator
	Peak    int64   `json:"peak"`    // bytes of memory of the generator at most
}

// generator is a run.
type generator struct {
	spec    Spec
	events  Events
	keys    []*testpeer.Pair
	clients []*client
	files   []*file // of each client, by Uploads, Raw and Idle

	begin time.Time // of the load
	start time.Time // of the clock
	stop  time.Time // zero if PerClient counts
	next  atomic.Int64

	rounds  atomic.Int64
	missed  atomic.Int64
	latency *histogram
	late    *histogram
}

// setUpAtOnce is how many clients are set up at a time.
const setUpAtOnce = 64

// warmUp is how long the load runs before the clock.
const warmUp = 300 * time.Millisecond

// Run does spec. The first reply that is wrong or missing fails the run.
func Run(ctx context.Context, spec Spec, events Events) (Result, error) {
	if spec.Connections < 1 || spec.PerClient < 1 && spec.Duration <= 0 {
		return Result{}, errors.New("a load needs connections, and either rounds or a duration")
	}
	g := &generator{spec: spec, events: events, latency: newHistogram(), late: newHistogram()}
	defer g.hangUp()
	if err := g.setUp(ctx); err != nil {
		return Result{}, fmt.Errorf("setting up: %w", err)
	}
	if err := events.Ready(); err != nil {
		return Result{}, err
	}
	return g.run(ctx)
}

func (g *generator) hangUp() {
	for _, c := range g.clients {
		if c != nil {
			c.close()
		}
	}
}

func (g *generator) setUp(ctx context.Context) error {
	if g.spec.Kind != Raw && g.spec.Kind != Handshakes {
		var err error
		// More keys would change nothing: the server does not know its keys apart.
		if g.keys, err = newPairs(min(g.spec.Connections, 16)); err != nil {
			return err
		}
	}
	g.clients = make([]*client, g.spec.Connections)
	g.files = make([]*file, g.spec.Connections)
	return each(ctx, g.spec.Connections, setUpAtOnce, func(i int) error { return g.setUpClient(i) })
}

func (g *generator) setUpClient(i int) error {
	c := new(client)
	c.Name = fmt.Sprintf("%s %d", g.spec.Run, i)
	g.clients[i] = c
	if g.keys != nil {
		c.Pair = g.keys[i%len(g.keys)]
	}
	if g.spec.TLS || g.spec.Kind == Handshakes {
		c.tls = testpeer.SharedTLS()
	}
	if g.spec.Kind == Sessions || g.spec.Kind == Handshakes {
		return nil
	}
	if err := c.connect(g.spec.Server, i); err != nil {
		return err
	}
	if g.spec.Kind != Raw {
		if err := c.Enter(); err != nil {
			return err
		}
	}
	if g.spec.Kind == Reconnects {
		c.close()
		return nil
	}
	g.files[i] = newFile(fileName, g.spec.FileSize, g.spec.Packet, &c.Key, g.scratch())
	if g.spec.Before > 0 {
		return g.upload(c, newFile("before.dat", g.spec.Before, 0, &c.Key, g.scratch()))
	}
	if g.spec.PerClient > 0 {
		warm := min(g.spec.FileSize, warmBytes/int64(g.spec.Connections))
		return g.upload(c, newFile("warm.dat", warm, 0, &c.Key, g.scratch()))
	}
	return nil
}

// warmBytes is about how much a server receives before a run that is not by
// Duration.
const warmBytes = 128 << 20

// scratch is room for newFile.
func (g *generator) scratch() []byte {
	return make([]byte, min(64<<10, max(aescbc.BlockSize, g.spec.FileSize)))
}

// fileName is what every client calls its file.
const fileName = "bench.dat"

// newNames is the size in bytes up to which a file that is sent again has a new
// name. A larger one takes the place of the one before, lest the disk fill up.
const newNames = 32 << 20

// each runs f for 0 … n-1, so many at a time, and returns the first error.
func each(ctx context.Context, n, atOnce int, f func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, atOnce) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					cancel(fmt.Errorf("client %d: %w", i, err))
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// clock is what the generator has used when its clock starts or stops.
type clock struct {
	at time.Time
	usage
	err error
}

func (g *generator) started() clock {
	u, err := processorTime()
	g.events.Started()
	return clock{time.Now(), u, err}
}

func (g *generator) stopped() clock {
	now := time.Now()
	u, err := processorTime()
	g.events.Stopped()
	return clock{now, u, err}
}

func (g *generator) run(ctx context.Context) (Result, error) {
	var from, to clock
	var err error
	g.begin = time.Now()
	if g.spec.PerClient > 0 {
		from = g.started()
		g.start = from.at
		err = g.load(ctx)
		to = g.stopped()
	} else {
		g.start = g.begin.Add(warmUp)
		g.stop = g.start.Add(g.spec.Duration)
		ticked := make(chan struct{})
		go func() {
			defer close(ticked)
			time.Sleep(time.Until(g.start))
			from = g.started()
			time.Sleep(time.Until(g.stop))
			to = g.stopped()
		}()
		err = g.load(ctx)
		<-ticked
		if err == nil && g.spec.Kind == Idle { // nothing must have been lost
			err = each(ctx, g.spec.Connections, setUpAtOnce, func(i int) error { return g.upload(g.clients[i], g.files[i]) })
		}
	}
	r := Result{
		Seconds: to.at.Sub(from.at).Seconds(), CPU: to.cpu - from.cpu, Peak: to.peak,
		Rounds: g.rounds.Load(), Missed: g.missed.Load(),
		Latency: g.latency.summary(), Late: g.late.summary(),
	}
	r.Bytes = r.Rounds * g.spec.FileSize
	return r, errors.Join(err, from.err, to.err)
}

func (g *generator) load(ctx context.Context) error {
	if g.spec.Kind == Idle {
		return nil
	}
	return each(ctx, g.spec.Connections, g.spec.Connections, func(i int) error { return g.client(ctx, i) })
}

// client is the life of client i under load.
func (g *generator) client(ctx context.Context, i int) error {
	scratch := g.scratch()
	for n := 0; ctx.Err() == nil; n++ {
		due, ok := g.turn(ctx, i, n)
		if !ok {
			return nil
		}
		if err := g.round(i, n, scratch); err != nil {
			return err
		}
		g.done(due, time.Now())
	}
	return nil
}

// done records a round that was due then and ended now.
func (g *generator) done(due, now time.Time) {
	if !due.Before(g.start) {
		g.latency.add(now.Sub(due))
	}
	if !now.Before(g.start) && (g.stop.IsZero() || now.Before(g.stop)) {
		g.rounds.Add(1)
	}
}

// turn waits until round n of client i is due and says when that was. ok is
// false if there is none.
func (g *generator) turn(ctx context.Context, i, n int) (due time.Time, ok bool) {
	now := time.Now()
	switch {
	case g.spec.PerClient > 0:
		return now, n < g.spec.PerClient
	case g.spec.Rate == 0:
		return now, now.Before(g.stop)
	}
	for {
		// Clients with a connection of their own take turns; a session is begun
		// by whoever is free.
		k := int64(i) + int64(n)*int64(g.spec.Connections)
		if g.spec.Kind == Sessions || g.spec.Kind == Reconnects || g.spec.Kind == Handshakes {
			k = g.next.Add(1) - 1
		}
		due = g.begin.Add(time.Duration(float64(k) / g.spec.Rate * float64(time.Second)))
		if !due.Before(g.stop) {
			return due, false
		}
		if now.Before(g.stop) {
			break
		}
		g.missed.Add(1) // it never came to this one
		g.done(due, now)
		n++
	}
	if wait := due.Sub(now); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return due, false
		}
		if !due.Before(g.start) { // where the client was busy, that is the server's doing
			g.late.add(time.Since(due))
		}
	}
	return due, true
}

// round is one upload or one session.
func (g *generator) round(i, n int, scratch []byte) error {
	c := g.clients[i]
	switch g.spec.Kind {
	case Uploads, Raw:
		f := g.files[i]
		if f.size < newNames {
			f.name = fmt.Sprintf("bench-%d.dat", n)
		}
		return g.upload(c, f)
	case Sessions:
		c.Name = fmt.Sprintf("%s %d %d", g.spec.Run, i, n)
		return g.session(c, i, n, c.Enter, scratch)
	case Reconnects:
		return g.session(c, i, n, c.Rejoin, scratch)
	case Handshakes:
		if err := c.connect(g.spec.Server, i); err != nil {
			return err
		}
		c.close()
		return nil
	}
	return fmt.Errorf("no such kind of load: %q", g.spec.Kind)
}

func (g *generator) upload(c *client, f *file) error {
	if g.spec.Kind == Raw {
		return c.uploadRaw(f)
	}
	return c.upload(f)
}

// session is one connection: log in, upload, hang up.
func (g *generator) session(c *client, i, n int, logIn func() error, scratch []byte) error {
	if err := c.connect(g.spec.Server, i); err != nil {
		return err
	}
	defer c.close()
	if err := logIn(); err != nil {
		return err
	}
	return c.upload(newFile(fmt.Sprintf("bench-%d.dat", n), g.spec.FileSize, g.spec.Packet, &c.Key, scratch))
}
