package storagetest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/session"
	"sealift/storage"
)

// Machine is a server's storage on a disk of its own.
type Machine interface {
	// Start opens the stores and puts them in order, as a server does. What they
	// do may be cut short at each step, by a panic of step.
	Start(t *testing.T, step func()) (storage.Registry, storage.Files)
	// Kill and Cut end the life that Start began: the process was killed, or the
	// power was cut. The next Start finds what that leaves.
	Kill(t *testing.T)
	Cut(t *testing.T, rnd *rand.Rand)
	// Expire drops the unverified files that were received before t.
	Expire(t *testing.T, svc *session.Service, before time.Time)
	// FailSyncs makes some of the syncs fail until it is called with false.
	FailSyncs(bool)
	// Remove takes the stored file of client id at path away, as a person might.
	Remove(t *testing.T, id codec.ClientID, path string)
}

// Promises holds a server's storage against the table of answers to a 1029: for
// random uploads, verdicts and connections, with a kill, a power cut, or syncs
// that fail at any step. rounds are independent of each other. Where mortal is
// false, the machine's lives do not end.
//
// The table, for a client and path with at most one verified version V, at most
// one waiting version W, and the mark L, "a version that had its 1603 went
// without being verified":
//
//	the connection's 1603 was about    and                          answer
//	W                                                               commit W: 1604
//	V                                  V is there                   1604
//	neither                                                         1607
//	it sent none                       L                            1607
//	it sent none                       W waits                      commit W: 1604
//	it sent none                       no W, V is there             1604
//	it sent none                       otherwise                    1607
func Promises(t *testing.T, rounds int, mortal bool, machine func(t *testing.T) Machine) {
	for round := range rounds {
		m := &promiseModel{
			t: t, machine: machine(t), mortal: mortal, rnd: rand.New(rand.NewPCG(7, uint64(round))), round: round,
			places: make(map[string]*placeModel), sent: make(map[uint32]*version), now: at(0),
		}
		m.run()
		if t.Failed() {
			return
		}
	}
}

// version is one content that a client sent.
type version struct {
	content []byte
	sum     uint32
}

// placeModel is what there is under a path, as the table has it.
type placeModel struct {
	verified *version
	there    bool // verified's content can be relied on
	waiting  *version
	lapsed   bool
}

type promiseModel struct {
	t       *testing.T
	machine Machine
	mortal  bool
	rnd     *rand.Rand
	round   int
	now     time.Time

	reg    storage.Registry
	files  storage.Files
	svc    *session.Service
	places map[string]*placeModel
	sent   map[uint32]*version // by checksum
	conns  []*promiseConn
	log    []string
	logged *observer.ObservedLogs // of the life

	fuse int // steps until the life ends; negative: it does not
}

// ended is the panic with which a life ends.
type ended struct{}

var promisePaths = []string{"a", "b", "d/c"}

var promiseKey = [aescbc.KeySize]byte{1, 2, 3}

func (m *promiseModel) fatalf(format string, args ...any) {
	m.t.Helper()
	for _, line := range m.log {
		m.t.Log(line)
	}
	for _, e := range m.logged.All() {
		m.t.Log("the server said:", e.Message, e.ContextMap())
	}
	m.t.Fatalf("round %d: %s", m.round, fmt.Sprintf(format, args...))
}

func (m *promiseModel) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

// step is called before each thing that a store does.
func (m *promiseModel) step() {
	if m.fuse == 0 {
		panic(ended{})
	}
	m.fuse--
}

func (m *promiseModel) run() {
	m.fuse = -1
	m.start()
	id := clientID(1)
	m.apply(addClient(1, "anna"), &storage.SetKeys{ID: id, Name: "anna", PublicKey: key(1, 160), AESKey: promiseKey[:]})
	for _, path := range promisePaths {
		m.places[path] = &placeModel{}
	}
	for range 60 {
		m.now = m.now.Add(time.Second)
		path := promisePaths[m.rnd.IntN(len(promisePaths))]
		c := m.someConn()
		// A life ends within an operation, or syncs fail during one.
		m.fuse = -1
		failing := false
		if m.mortal && m.rnd.IntN(6) == 0 {
			m.fuse = m.rnd.IntN(12)
		} else if m.rnd.IntN(4) == 0 {
			failing = true
			m.machine.FailSyncs(true)
		}
		act := m.rnd.IntN(10)
		survived := m.survives(func() { m.do(act, c, path, failing) })
		m.machine.FailSyncs(false)
		m.fuse = -1
		if !survived || m.mortal && m.rnd.IntN(8) == 0 {
			m.die(path, act)
		} else if failing {
			if act >= actConfirm && act <= actConfirm3 && !c.gone {
				// A commit that the registry did not record is settled by whatever
				// comes next for the path.
				got := c.ask(c.verdict(codec.CodeCRCOK, path))
				m.note("connection %d asks again: %s", c.n, got)
			}
			m.resync(path, act, false)
		}
		m.check()
		m.note("  now %s is %s, failing %v", path, m.places[path], failing)
	}
}

func (p *placeModel) String() string {
	sum := func(v *version) string {
		if v == nil {
			return "none"
		}
		return fmt.Sprintf("%08x", v.sum)
	}
	return fmt.Sprintf("verified %s (there: %v), waiting %s, lapsed: %v", sum(p.verified), p.there, sum(p.waiting), p.lapsed)
}

// survives runs f, and reports whether the life lasted.
func (m *promiseModel) survives(f func()) (lasted bool) {
	defer func() {
		if p := recover(); p != nil && p != (ended{}) {
			panic(p)
		}
	}()
	f()
	return true
}

const (
	actUpload = iota
	actUpload2
	actConfirm
	actConfirm2
	actConfirm3
	actAgain
	actAbort
	actClose
	actExpire
	actRemove
)

func (m *promiseModel) do(act int, c *promiseConn, path string, failing bool) {
	p := m.places[path]
	switch act {
	case actUpload, actUpload2:
		v := m.newVersion()
		m.note("connection %d uploads %s, version %08x", c.n, path, v.sum)
		reply := c.ask(c.upload(path, v))
		if want := fmt.Sprintf("1603 %08x", v.sum); reply != want && !failing {
			m.fatalf("upload: got %q, want %q", reply, want)
		} else if reply != want {
			c.receipts[path] = new(version) // of a file that never was
			return
		}
		if p.waiting != nil {
			p.lapsed = true
		}
		p.waiting = v
		c.receipts[path] = v
	case actConfirm, actConfirm2, actConfirm3:
		want := m.answer(p, c.receipts[path])
		m.note("connection %d confirms %s: %s", c.n, path, want)
		got := c.ask(c.verdict(codec.CodeCRCOK, path))
		if got != want {
			m.note("got %s", got)
		}
		if got != want && !(failing && got == "1607") {
			m.fatalf("1029: got %q, want %q", got, want)
		}
		commits := p.waiting != nil && (c.receipts[path] == p.waiting || c.receipts[path] == nil)
		if got == "1604" && commits {
			p.verified, p.there, p.waiting, p.lapsed = p.waiting, true, nil, false
		}
	case actAgain, actAbort:
		code, want := codec.CodeCRCBad, ""
		if act == actAbort {
			code, want = codec.CodeAbort, "1604"
		}
		m.note("connection %d sends %d for %s", c.n, code, path)
		if got := c.ask(c.verdict(code, path)); got != want && !failing {
			m.fatalf("%d: got %q, want %q", code, got, want)
		} else if got == "1607" {
			return
		}
		if p.waiting != nil && (c.receipts[path] == p.waiting || c.receipts[path] == nil) {
			p.waiting, p.lapsed = nil, true
		}
	case actClose:
		m.note("connection %d closes", c.n)
		c.close()
	case actExpire:
		if failing {
			return
		}
		m.note("all that waits expires")
		m.machine.Expire(m.t, m.svc, m.now.Add(time.Hour))
		for _, p := range m.places {
			if p.waiting != nil {
				p.waiting, p.lapsed = nil, true
			}
		}
	case actRemove:
		if p.verified != nil && p.there && m.rnd.IntN(3) == 0 {
			m.note("%s is removed by hand", path)
			m.machine.Remove(m.t, clientID(1), path)
			p.there = false
		}
	}
}

// answer is the table.
func (m *promiseModel) answer(p *placeModel, receipt *version) string {
	yes := false
	switch {
	case receipt != nil && receipt == p.waiting:
		yes = true
	case receipt != nil && receipt == p.verified:
		yes = p.there
	case receipt != nil, p.lapsed:
	case p.waiting != nil:
		yes = true
	case p.verified != nil:
		yes = p.there
	}
	if yes {
		return "1604"
	}
	return "1607"
}

// die ends the life, by a kill or a power cut, in the operation act on path, and
// begins the next.
func (m *promiseModel) die(path string, act int) {
	cut := m.rnd.IntN(2) == 0
	for _, c := range m.conns {
		c.gone = true
	}
	m.conns = nil
	if cut {
		m.note("the power is cut")
		m.machine.Cut(m.t, m.rnd)
	} else {
		m.note("the process is killed")
		m.machine.Kill(m.t)
	}
	for _, p := range m.places { // without a row, a mark lives as long as the process
		if p.lapsed && p.verified == nil && p.waiting == nil {
			p.lapsed = false
		}
	}
	m.start()
	m.resync(path, act, cut)
}

// resync takes what the registry has for what there is, after an operation act on
// path that may have come to any point. It checks that this can be.
func (m *promiseModel) resync(path string, act int, cut bool) {
	for at, p := range m.places {
		get := &storage.GetFile{ID: clientID(1), Path: at}
		if err := m.reg.Apply(context.Background(), []storage.Operation{get}); err != nil {
			m.fatalf("registry: %v", err)
		}
		was := *p
		touched := at == path
		p.verified, p.there = m.match(get.Verified, was.verified, was.waiting), get.Verified != nil && !get.Verified.Missing
		switch {
		case p.verified == nil && was.verified != nil:
			m.fatalf("%s: the verified version %08x is forgotten", at, was.verified.sum)
		case p.verified == was.verified:
			p.there = p.there && p.verified != nil && m.intact(at, p.verified)
			if was.there && !p.there {
				m.fatalf("%s: the verified version %08x is missing", at, was.verified.sum)
			}
		case !touched || act < actConfirm || act > actConfirm3:
			m.fatalf("%s: version %08x is verified, and no 1029 was sent", at, p.verified.sum)
		}
		p.waiting = nil
		if u := get.Unverified; u != nil {
			if p.waiting = m.match(u, was.waiting, m.sent[u.Cksum]); p.waiting == nil {
				m.fatalf("%s: an unknown version waits", at)
			}
			if p.waiting != was.waiting && (!touched || act > actUpload2) {
				m.fatalf("%s: version %08x waits, and was not sent", at, p.waiting.sum)
			}
		}
		went := was.waiting != nil && p.waiting != was.waiting && p.verified != was.waiting
		if went && !touched && !cut && act != actExpire {
			m.fatalf("%s: the waiting version %08x is gone", at, was.waiting.sum)
		}
		p.lapsed = get.Lapsed()
		if must := went || was.lapsed && p.verified == was.verified; must && !p.lapsed {
			if p.verified != nil || p.waiting != nil {
				m.fatalf("%s: nothing tells that a version has lapsed: %s became %s", at, &was, p)
			}
			p.lapsed = len(m.conns) > 0 // within a life
		}
	}
}

// match returns which of some versions a row is about, nil if none.
func (m *promiseModel) match(f *storage.File, of ...*version) *version {
	for _, v := range of {
		if f != nil && v != nil && f.Cksum == v.sum {
			return v
		}
	}
	return nil
}

// check compares the stored files with what clients were told.
func (m *promiseModel) check() {
	for path, p := range m.places {
		if p.there && !m.intact(path, p.verified) {
			m.fatalf("%s: the verified content is not there", path)
		}
	}
}

func (m *promiseModel) intact(path string, v *version) bool {
	r, err := m.files.Open(context.Background(), stored(1, path))
	if err != nil {
		return false
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return err == nil && string(b) == string(v.content)
}

func (m *promiseModel) start() {
	m.reg, m.files = m.machine.Start(m.t, m.step)
	core, logged := observer.New(zap.WarnLevel)
	m.logged = logged
	m.svc = session.NewService(session.Config{Files: m.files, Log: zap.New(core)})
}

func (m *promiseModel) apply(ops ...storage.Operation) {
	if err := m.reg.Apply(context.Background(), ops); err != nil {
		m.fatalf("registry: %v", err)
	}
	for _, op := range ops {
		if err := op.Result().Err; err != nil {
			m.fatalf("%T: %v", op, err)
		}
	}
}

func (m *promiseModel) newVersion() *version {
	v := &version{content: make([]byte, 8+m.rnd.IntN(9000))}
	for i := range v.content {
		v.content[i] = byte(m.rnd.Uint32())
	}
	v.sum = cksum.Checksum(v.content)
	m.sent[v.sum] = v
	return v
}

// someConn returns an open connection, or opens one.
func (m *promiseModel) someConn() *promiseConn {
	open := m.conns[:0]
	for _, c := range m.conns {
		if !c.gone {
			open = append(open, c)
		}
	}
	m.conns = open
	if n := len(m.conns); n == 0 || n < 4 && m.rnd.IntN(4) == 0 {
		c := &promiseConn{m: m, n: m.rnd.IntN(1000), receipts: make(map[string]*version)}
		c.s = session.New(m.svc, c, "")
		m.conns = append(m.conns, c)
		return c
	}
	return m.conns[m.rnd.IntN(len(m.conns))]
}

// promiseConn is a connection, and the host of its session: what the session asks
// for is done one thing after the other.
type promiseConn struct {
	m        *promiseModel
	n        int
	s        *session.Session
	todo     []func()
	replies  string
	receipts map[string]*version
	gone     bool
}

func (c *promiseConn) upload(path string, v *version) []byte {
	body := make([]byte, aescbc.CiphertextSize(int64(len(v.content))))
	aescbc.NewEncrypter(&promiseKey).Final(body, v.content)
	m := codec.SendFile{
		ContentSize: uint32(len(body)), OrigSize: uint32(len(v.content)), Packet: 1, Total: 1, FileName: []byte(path),
	}
	return append(m.Append(nil, clientID(1), uint32(len(body))), body...)
}

func (c *promiseConn) verdict(code codec.Code, path string) []byte {
	return codec.Verdict{Code: code, FileName: []byte(path)}.Append(nil, clientID(1))
}

// ask sends a message and returns the reply.
func (c *promiseConn) ask(p []byte) string {
	c.replies = ""
	for {
		p = p[c.s.Feed(p):]
		if len(c.todo) == 0 {
			break
		}
		next := c.todo[0]
		c.todo = c.todo[1:]
		next()
	}
	if len(p) > 0 {
		c.m.fatalf("%d bytes are not taken", len(p))
	}
	return c.replies
}

func (c *promiseConn) close() {
	c.gone = true
	c.s.Closed()
	for len(c.todo) > 0 {
		next := c.todo[0]
		c.todo = c.todo[1:]
		next()
	}
}

func (c *promiseConn) Send(reply []byte) {
	var d codec.ResponseDecoder
	r, _, ok, err := d.Next(reply)
	if err != nil || !ok {
		c.m.fatalf("reply %x: %v", reply, err)
	}
	c.replies += fmt.Sprint(uint16(r.Header.Code))
	if f, err := codec.ParseFileReceived(r.Payload); r.Header.Code == codec.CodeFileReceived && err == nil {
		c.replies += fmt.Sprintf(" %08x", f.Cksum)
	}
}

func (c *promiseConn) Do(_ session.Lane, work func(ctx context.Context), done func()) {
	c.todo = append(c.todo, func() {
		if work != nil {
			c.m.step()
			work(context.Background())
		}
		if done != nil {
			done()
		}
	})
}

func (c *promiseConn) Apply(op storage.Operation, done func(err error)) {
	c.todo = append(c.todo, func() {
		c.m.step()
		err := c.m.reg.Apply(context.Background(), []storage.Operation{op})
		c.m.step()
		if err == nil {
			err = op.Result().Err
		}
		if done != nil {
			done(err)
		}
	})
}

func (c *promiseConn) Buffer(size int) []byte { return make([]byte, size) }
func (c *promiseConn) Release([]byte)         {}
func (c *promiseConn) Hold(int) bool          { return true }
func (c *promiseConn) Unhold(int)             {}
func (c *promiseConn) Hangup(string)          { c.gone = true }
func (c *promiseConn) Now() time.Time         { return c.m.now }
