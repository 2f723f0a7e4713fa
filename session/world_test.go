package session_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/memory"
)

// lending is whether the worlds lend content, as the event loop does on Linux, or
// do not, as elsewhere.
var lending bool

// TestMain runs all tests both ways.
func TestMain(m *testing.M) {
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); code == 0 && f.Value.String() == "" {
		lending = true
		code = m.Run()
	}
	os.Exit(code)
}

// world is all that surrounds the sessions of a test: it is their hosts' event
// loop, workers and registry batches in one, with nothing running by itself. A
// test, or the schedule that it chose, decides what happens next.
type world struct {
	t     testing.TB
	svc   *session.Service
	reg   *registry
	files *contents
	now   time.Time
	conns []*conn

	// choose picks the next of n things that can happen, 0 to n-1.
	choose func(n int) int
	// portion is how many of the n bytes that the network has for a connection
	// arrive next, 1 to n.
	portion func(n int) int
	// direct says whether content is read to where the session wants it, before
	// the rest goes to Feed; nil: never.
	direct func() bool
	// lend says whether the host lends content from the next bytes on; nil: never.
	lend  func() bool
	plain bool // a loan goes on until the worker has taken all that has arrived
	// stingy says whether the host has no buffer this time; nil: never.
	stingy func() bool
	// hold says whether the host grants n bytes; nil: always.
	hold func(n int) bool
	// onSend is called with each reply, nil: nobody is.
	onSend func(c *conn, reply string)

	jobs    []*job // to be worked at
	applies []*job // to be given to the registry, in order
	dones   []*job // to be reported
	steps   int
	loans   int

	free map[int][][]byte // buffers, by size

	leaves bool // incoming files may be left behind

	cluster *cluster // nil: there is one server, svc
}

// services returns all servers, also those that were killed.
func (w *world) services() []*session.Service {
	if w.cluster == nil {
		return []*session.Service{w.svc}
	}
	return w.cluster.ever
}

var spoilt = bytes.Repeat([]byte{0xa5}, session.MaxBuffer)

type job struct {
	c    *conn
	work func(ctx context.Context)
	op   storage.Operation
	done func()
	err  error
}

// first is a schedule: everything in the order in which it came.
func first(int) int { return 0 }

func newWorld(t testing.TB, cfg session.Config) *world {
	f := new(faults)
	w := &world{
		t: t, now: time.Unix(1_700_000_000, 0),
		choose:  first,
		free:    make(map[int][][]byte),
		portion: func(n int) int { return n },
	}
	w.reg = &registry{Registry: memory.NewAt(func() time.Time { return w.now }), faults: f, partials: make(map[storage.Place]bool)}
	w.files = newContents(f)
	if cfg.Files == nil {
		cfg.Files = w.files
	}
	cfg.Log = zap.NewNop()
	w.svc = session.NewService(cfg)
	if lending {
		w.lend = func() bool { return true }
		w.svc.LendFrom(1)
	}
	return w
}

// conn is one connection and its session's host.
type conn struct {
	w   *world
	svc *session.Service
	s   *session.Session
	in  []byte // sent by the client, not taken by the session yet

	arrived int // bytes of in that the session has been offered
	blocked bool
	loan    *session.Loan // while a worker has the session
	spent   bool          // and it has no more use for it
	short   bool          // Buffer said no
	closed  bool
	sick    bool // its host panics
	failIn  int  // so many calls of Do and Apply later it panics, once; 0: never
	hangup  string

	replies []string // see describe
	errors  uint64   // 1607 among all replies
	raw     [][]byte
	lent    map[*byte]int
	lentNow int
	lentMax int
	held    int
}

func (w *world) dial() *conn { return w.dialFrom("test") }

// dialFrom is dial from that address.
func (w *world) dialFrom(remote string) *conn {
	c := &conn{w: w, svc: w.svc, lent: make(map[*byte]int)}
	if w.cluster != nil {
		c.svc = w.cluster.pick()
	}
	c.s = session.New(c.svc, c, remote)
	w.conns = append(w.conns, c)
	return c
}

// Send, Do … are session.Host.

func (c *conn) Send(reply []byte) {
	if c.closed {
		c.w.t.Error("a reply after the connection has closed")
	}
	c.raw = append(c.raw, slices.Clone(reply))
	text := describe(c.w.t, reply)
	c.replies = append(c.replies, text)
	if text == "1607" {
		c.errors++
	}
	if c.w.onSend != nil {
		c.w.onSend(c, text)
	}
}

// fail panics if it is the turn of that.
func (c *conn) fail() {
	if c.failIn--; c.failIn == 0 {
		panic(errInjected)
	}
	c.failIn = max(c.failIn, 0)
}

func (c *conn) Do(_ session.Lane, work func(ctx context.Context), done func()) {
	c.fail()
	j := &job{c: c, work: work, done: done}
	if work == nil {
		c.w.dones = append(c.w.dones, j)
		return
	}
	c.w.jobs = append(c.w.jobs, j)
}

func (c *conn) Apply(op storage.Operation, done func(err error)) {
	c.fail()
	j := &job{c: c, op: op}
	if done != nil {
		j.done = func() { done(j.err) }
	}
	c.w.applies = append(c.w.applies, j)
}

func (c *conn) Buffer(size int) []byte {
	if size < session.MinBuffer || size > session.MaxBuffer || size&(size-1) != 0 {
		c.w.t.Errorf("a buffer of %d bytes was asked for", size)
	}
	if c.w.stingy != nil && c.w.stingy() {
		c.short = true
		return nil
	}
	var b []byte
	if free := c.w.free[size]; len(free) > 0 {
		b, c.w.free[size] = free[len(free)-1], free[:len(free)-1]
	} else {
		b = make([]byte, size)
	}
	c.lent[&b[0]] = size
	c.lentNow += size
	c.lentMax = max(c.lentMax, c.lentNow)
	if c.lentNow > c.w.svc.Window {
		c.w.t.Errorf("%d bytes of buffers, and the window is %d", c.lentNow, c.w.svc.Window)
	}
	return b
}

func (c *conn) Release(b []byte) {
	size, ok := c.lent[&b[0]]
	if !ok || size != len(b) {
		c.w.t.Error("released what was not lent")
	}
	delete(c.lent, &b[0])
	c.lentNow -= size
	copy(b, spoilt) // who still reads it sees it
	c.w.free[size] = append(c.w.free[size], b)
}

func (c *conn) Hold(n int) bool {
	if c.w.hold != nil && !c.w.hold(n) {
		return false
	}
	c.held += n
	return true
}

func (c *conn) Unhold(n int) {
	if c.held -= n; c.held < 0 {
		c.w.t.Error("gave back more than was held")
	}
}

func (c *conn) Hangup(reason string) {
	if c.hangup != "" {
		c.w.t.Error("hung up twice")
	}
	c.hangup = reason
}

func (c *conn) Now() time.Time {
	if c.sick {
		panic(errInjected)
	}
	return c.w.now
}

// send has the client send messages; the schedule decides when they arrive.
func (c *conn) send(messages ...[]byte) {
	for _, m := range messages {
		c.in = append(c.in, m...)
	}
}

// ask sends messages, runs everything and returns the replies to them.
func (c *conn) ask(messages ...[]byte) string {
	c.replies = nil
	c.send(messages...)
	c.w.run()
	return strings.Join(c.replies, ", ")
}

// feed lets n more bytes arrive.
func (c *conn) feed(n int) {
	if c.closed || c.hangup != "" {
		c.in, c.arrived, c.blocked = nil, 0, false
		return
	}
	c.arrived += n
	c.s.Lends(c.w.lend != nil && c.w.lend())
	c.readDirectly()
	p := slices.Clone(c.in[:c.arrived])
	c.short = false
	took := c.s.Feed(p)
	for q := p; len(q) > 0; q = q[copy(q, spoilt):] { // it is the host's again
	}
	if took < 0 || took > len(p) {
		c.w.t.Fatalf("Feed took %d of %d bytes", took, len(p))
	}
	c.in = c.in[took:]
	c.arrived -= took
	c.blocked = c.arrived > 0
	if c.hangup != "" {
		c.in, c.arrived, c.blocked = nil, 0, false
	}
	if c.blocked && c.s.Flowing() {
		c.loan, c.spent = c.s.Lend(), false
		c.w.loans++
	}
}

// take gives the worker that has the session n bytes that have arrived.
func (c *conn) take(n int) {
	if sure, likely := c.loan.Expects(); sure < 0 || likely < sure {
		c.w.t.Errorf("Expects %d, %d", sure, likely)
	}
	buf := append(slices.Clone(spoilt[:session.Headroom]), c.in[:n]...)
	took, more := c.loan.Take(context.Background(), buf, n)
	copy(buf, spoilt) // it is the worker's again
	if took < 0 || took > n || more && took < n {
		c.w.t.Fatalf("Take took %d of %d bytes; more: %v", took, n, more)
	}
	c.in, c.arrived, c.spent = c.in[took:], c.arrived-took, !more
}

// giveBack ends a loan.
func (c *conn) giveBack() {
	loan := c.loan
	c.loan = nil
	loan.Return()
	c.feed(0)
}

// readDirectly gives the session content by way of Target.
func (c *conn) readDirectly() {
	for c.w.direct != nil && c.w.direct() {
		target := c.s.Target()
		if target == nil {
			return
		}
		n := copy(target, c.in[:c.arrived])
		c.s.Filled(n)
		if c.in, c.arrived = c.in[n:], c.arrived-n; n == 0 {
			return
		}
	}
}

func (c *conn) close() {
	if c.closed {
		return
	}
	if loan := c.loan; loan != nil {
		c.loan = nil
		loan.Return()
	}
	c.closed = true
	c.in, c.arrived, c.blocked = nil, 0, false
	c.s.Closed()
}

// step does one thing that can happen, and reports whether there was one.
func (w *world) step() bool {
	type event func()
	var can []event
	for i, j := range w.dones {
		if j.c.loan != nil {
			continue
		}
		can = append(can, func() {
			w.dones = slices.Delete(w.dones, i, i+1)
			j.done()
			j.c.feed(0)
		})
	}
	for i, j := range w.jobs {
		can = append(can, func() {
			w.jobs = slices.Delete(w.jobs, i, i+1)
			w.work(j)
			if j.done != nil {
				w.dones = append(w.dones, j)
			}
		})
	}
	for _, svc := range w.services() { // each has a queue of its own
		if n := w.waiting(svc); n > 0 {
			can = append(can, func() { w.apply(svc, 1) })
			if n > 1 {
				can = append(can, func() { w.apply(svc, n) })
			}
		}
	}
	for _, c := range w.conns {
		switch {
		case c.closed || c.hangup != "":
		case c.loan != nil:
			more := c.arrived > 0 && !c.spent
			if more {
				can = append(can, func() { c.take(w.portion(c.arrived)) })
			}
			if !w.plain && len(c.in) > c.arrived && !c.spent {
				can = append(can, func() { c.arrived += w.portion(len(c.in) - c.arrived) })
			}
			if !w.plain || !more {
				can = append(can, c.giveBack)
			}
		case c.blocked && c.short:
			can = append(can, func() { c.feed(0) })
		case !c.blocked && len(c.in) > 0:
			can = append(can, func() { c.feed(w.portion(len(c.in))) })
		}
	}
	if len(can) == 0 {
		return false
	}
	w.steps++
	can[w.choose(len(can))]()
	return true
}

// work runs a job as an event loop does: a panic ends the job only, as it does
// in apply.
func (w *world) work(j *job) {
	defer func() {
		if p := recover(); p != nil && p != errInjected {
			panic(p)
		}
	}()
	j.work(context.Background())
}

// waiting tells how many operations of a server wait for the registry.
func (w *world) waiting(svc *session.Service) (n int) {
	for _, j := range w.applies {
		if j.c.svc == svc {
			n++
		}
	}
	return n
}

// apply gives the registry a batch of n operations of a server.
func (w *world) apply(svc *session.Service, n int) {
	var batch []*job
	w.applies = slices.DeleteFunc(w.applies, func(j *job) bool {
		takes := j.c.svc == svc && len(batch) < n
		if takes {
			batch = append(batch, j)
		}
		return takes
	})
	ops := make([]storage.Operation, n)
	for i, j := range batch {
		ops[i] = j.op
	}
	err := errInjected
	func() {
		defer func() {
			if p := recover(); p != nil && p != errInjected {
				panic(p)
			}
		}()
		if w.cluster != nil && w.cluster.dead[svc] {
			return
		}
		err = w.reg.Apply(context.Background(), ops)
	}()
	for _, j := range batch {
		if j.err = err; err == nil {
			j.err = j.op.Result().Err
		}
		if j.done != nil {
			w.dones = append(w.dones, j)
		}
	}
}

// run does all that can happen. A connection that is still blocked after that
// hangs.
func (w *world) run() {
	w.t.Helper()
	w.rush()
	for _, c := range w.conns { // time goes by
		if !c.closed && c.hangup == "" {
			c.s.Tick()
		}
	}
	w.settled()
}

// rush does all that can happen before the hosts' clocks tick.
func (w *world) rush() {
	w.t.Helper()
	for n := 0; w.step(); n++ {
		if n > 10_000_000 {
			w.t.Fatal("no end")
		}
	}
}

// settled checks what must be true when nothing is under way.
func (w *world) settled() {
	w.t.Helper()
	for i, c := range w.conns {
		if c.blocked || c.loan != nil {
			w.t.Fatalf("connection %d hangs with %d bytes unread; replies %q", i, len(c.in), c.replies)
		}
		if c.s.Busy() || c.s.Working() {
			w.t.Errorf("connection %d: Busy %v, Working %v, and nothing is under way", i, c.s.Busy(), c.s.Working())
		}
		if c.lentNow != 0 || c.s.Held() != 0 {
			w.t.Errorf("connection %d: %d bytes of buffers not released, the session counts %d", i, c.lentNow, c.s.Held())
		}
	}
	for _, svc := range w.services() {
		if n := svc.Locked(); n != 0 {
			w.t.Errorf("%d paths stay locked", n)
		}
		if n := svc.BusyClaims(); n != 0 {
			w.t.Errorf("%d partial files are believed to be written", n)
		}
		w.reasoned(svc)
		if n := svc.EmptyPlaces(); n != 0 {
			w.t.Errorf("%d places are kept for nothing", n)
		}
	}
}

// reasoned checks that each 1607 was counted, by a reason or a step.
func (w *world) reasoned(svc *session.Service) {
	w.t.Helper()
	sent, counted, n := uint64(0), uint64(0), svc.Counts()
	for _, c := range w.conns {
		if c.svc == svc {
			sent += c.errors
		}
	}
	for _, of := range n.Refused {
		counted += of
	}
	for _, of := range n.Failed {
		counted += of
	}
	if counted < sent || n.Refused[session.ReasonOther] > 0 || n.Failed[session.StepOther] > 0 {
		w.t.Errorf("%d 1607, and %d are counted; refused %v, failed %v", sent, counted, n.Refused, n.Failed)
	}
}

// hangUp closes all connections, and checks that nothing is left but what the
// registry knows of.
func (w *world) hangUp() {
	w.t.Helper()
	for _, c := range w.conns {
		c.close()
	}
	w.run()
	w.clean()
	for _, svc := range w.services() {
		if n := svc.Claims(); n != 0 {
			w.t.Errorf("%d partial files are believed to be somebody's", n)
		}
		if n := svc.Bound(); n != 0 {
			w.t.Errorf("%d clients are believed to have connections", n)
		}
	}
}

// clean checks that the store holds what the registry says and nothing else.
func (w *world) clean() {
	w.t.Helper()
	for i, c := range w.conns {
		if c.closed && c.held != 0 {
			w.t.Errorf("connection %d has closed and holds %d bytes", i, c.held)
		}
	}
	if w.cluster != nil {
		w.cluster.clean()
		return
	}
	known := make(map[string]bool)
	for _, f := range w.rows() {
		if f.Verified {
			got, ok := w.files.stored[place(f.ID, f.Path)]
			if half := w.svc.Unrecorded() > 0; !half && (!ok || int64(len(got)) != f.Size) {
				w.t.Errorf("%s: verified, stored %v, %d bytes, recorded %d", f.Path, ok, len(got), f.Size)
			}
			continue
		}
		known[f.Incoming] = true
		in, ok := w.files.incoming[f.Incoming]
		content := w.files.stored[place(f.ID, f.Path)] // where it is if the registry failed after the commit
		if ok {
			content = in.b.Bytes()
		}
		if received("", content) != fmt.Sprintf("1603  %d %08x", f.Size, f.Cksum) && !w.reg.faults.leftRow() {
			w.t.Errorf("%s: the registry has it, and its content is not there", f.Path)
		}
	}
	for at := range w.reg.partials {
		p := w.reg.partial(at)
		if p == nil {
			continue
		}
		known[p.Incoming] = true
		in, ok := w.files.incoming[p.Incoming]
		if !ok || int64(in.b.Len()) < p.Length {
			t := "there is none"
			if ok {
				t = fmt.Sprint(in.b.Len(), " bytes")
			}
			w.t.Errorf("%s: a partial file of %d bytes is on record, and of its content %s", p.Path, p.Length, t)
		} else if h := cksum.Resume(p.State, uint64(p.Length)); h.Sum32() != cksum.Checksum(in.b.Bytes()[:p.Length]) {
			w.t.Errorf("%s: the partial file is not what is on record", p.Path)
		}
	}
	for key := range w.files.incoming {
		if !known[key] && !w.leaves {
			w.t.Errorf("incoming file %s left behind", key)
		}
	}
	if w.files.open != 0 || w.files.scratches != 0 {
		w.t.Errorf("%d files and %d scratch rooms left open", w.files.open, w.files.scratches)
	}
}

// stored returns the content of the verified file at a client's path, nil if there is none.
func (w *world) stored(id codec.ClientID, path string) []byte {
	if w.cluster == nil {
		return w.files.stored[place(id, path)]
	}
	f := w.row(id, path, true)
	if f == nil {
		return nil
	}
	b, _ := w.cluster.bucket.Content(f.Uploaded())
	return b
}

// hasVerified reports whether that content is verified at a client's path; where there are several servers,
// also whether it was, since a newer version may be verified at another one before a 1604 is out.
func (w *world) hasVerified(id codec.ClientID, path string, content []byte) bool {
	if w.cluster == nil {
		return bytes.Equal(w.stored(id, path), content)
	}
	return slices.ContainsFunc(w.cluster.verified[place(id, path)], func(b []byte) bool { return bytes.Equal(b, content) })
}

// rows returns the files that the registry knows.
func (w *world) rows() (all []storage.File) {
	err := w.reg.Files(context.Background(), func(f storage.File) error {
		all = append(all, f)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// row returns the file at a client's path, verified or not.
func (w *world) row(id codec.ClientID, path string, verified bool) *storage.File {
	for _, f := range w.rows() {
		if f.ID == id && f.Path == path && f.Verified == verified {
			return &f
		}
	}
	return nil
}

// describe puts a reply in words: its code and what tells it from others.
func describe(t testing.TB, reply []byte) string {
	var d codec.ResponseDecoder
	r, n, ok, err := d.Next(reply)
	if err != nil || !ok || n != len(reply) {
		t.Fatalf("not one whole reply: %x (%v)", reply, err)
	}
	switch r.Header.Code {
	case codec.CodeFileReceived:
		m, err := codec.ParseFileReceived(r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("1603 %s %d %08x", m.FileName, m.ContentSize, m.Cksum)
	case codec.CodeContinued:
		m, err := codec.ParseContinued(r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("1608 %s %d %08x", m.FileName, m.Offset, m.Cksum)
	default:
		return fmt.Sprint(uint16(r.Header.Code))
	}
}
