package eventloop

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"sealift/session"
)

// waitingFor are connections that wait for a handshake.
func waitingFor(srv *Server, addr string, n int) (all []*conn) {
	lp := newLoop(srv, &stage{})
	for range n {
		c := from(addr)
		c.lp, c.tls = lp, &protection{}
		all = append(all, c)
	}
	return all
}

// Places are shared between sources, each of which has a share at most, and turns. Of one
// source the last comes first.
func TestPlacesForHandshakes(t *testing.T) {
	srv, _ := bare(t, func(*Options) {})
	defer srv.Close()
	h := newHandshakes()
	served := func(all []*conn) (n int) {
		for _, c := range all {
			if c.tls.seat.place {
				n++
			}
		}
		return n
	}
	many := waitingFor(srv, "192.0.2.1", 3*maxOfSource)
	for _, c := range many {
		h.join(c)
	}
	if n := served(many); n != maxOfSource || !h.crowded(many[0].ip) {
		t.Errorf("one source has %d places, want %d", n, maxOfSource)
	}
	other := netip.MustParseAddr("192.0.2.2")
	if h.crowded(other) {
		t.Error("another source has to make room")
	}
	last := many[len(many)-1]
	h.leave(last) // from the line
	h.done(many[0])
	if next := many[len(many)-2]; !next.tls.seat.place || last.tls.seat.place {
		t.Error("the place does not go to the last that has come and not left")
	}
	rest := maxHandshakes - maxOfSource
	for i := range rest + 5 { // of as many sources
		c := waitingFor(srv, fmt.Sprintf("198.51.%d.%d", i/250, 1+i%250), 1)[0]
		h.join(c)
		if c.tls.seat.place != (i < rest) {
			t.Fatalf("source %d: a place: %v", i, c.tls.seat.place)
		}
		if i == rest {
			last = c
		}
		many = append(many, c)
	}
	if !h.crowded(many[0].ip) || h.free != 0 {
		t.Errorf("%d places are free", h.free)
	}
	h.done(many[1]) // its source has the next turn after those that wait
	if !last.tls.seat.place {
		t.Error("the source that waits longest has no turn")
	}
	for range len(many) { // all come to their end
		for _, c := range many {
			if c.tls.seat.place {
				h.done(c)
			}
		}
	}
	if h.free != maxHandshakes || len(h.from) != 0 || h.turns.Len() != 0 {
		t.Errorf("in the end %d places are free, %d sources there, %d in line", h.free, len(h.from), h.turns.Len())
	}
}

// begin opens so many connections that send p, and leaves them.
func (r *running) begin(p []byte, n int) (close func()) {
	r.t.Helper()
	var all []net.Conn
	for range n {
		c, err := net.Dial("tcp", r.Addr().String())
		if err == nil {
			_, err = c.Write(p)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, c)
	}
	return func() {
		for _, c := range all {
			_ = c.Close()
		}
	}
}

// Handshakes that were begun and left hold nobody up: neither plain clients, nor those
// over TLS of other addresses, nor even of the same. Those whose hello is not whole have
// no goroutine, and of the others not all.
func TestHandshakesThatWereLeft(t *testing.T) {
	hello := theHello(t, trusting())
	const n = 2000
	for _, tc := range []struct {
		name  string
		sends []byte
		most  int // goroutines
	}{
		{"in the middle of the hello", hello[:len(hello)-1], 0},
		{"behind the hello", hello, maxOfSource},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := startTLS(t, func(o *Options, _ *session.Config) { o.shakeTime, o.HandshakeTimeout = time.Hour, time.Hour })
			first := r.rawPeer(&plainly{r.tcp()}, "first")
			before := runtime.NumGoroutine()
			left := r.begin(tc.sends, n)
			defer left()
			for r.census.count() < n+1 {
				time.Sleep(time.Millisecond) // nothing else tells that all are there
			}
			if extra := runtime.NumGoroutine() - before; extra > tc.most+50 {
				t.Errorf("%d goroutines, want %d", extra, tc.most)
			}
			content := random(100_000)
			upload := func(b *rawPeer) {
				t.Helper()
				for _, p := range b.packets("f", content, 50_000) {
					b.write(p)
				}
				b.received("f", content)
			}
			upload(first)
			upload(r.rawPeer(&plainly{r.tcp()}, "plain"))
			other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
			if nc, err := other.Dial("tcp", r.Addr().String()); err != nil {
				t.Logf("no other address to connect from: %v", err)
			} else {
				upload(r.rawPeer(r.secure(nc), "of another address"))
			}
			upload(r.rawPeer(r.secure(r.tcp()), "of the same"))
			if n := r.logs.FilterMessage("connection closed").Len(); n > 4*maxOfSource {
				t.Errorf("%d were closed before: they have not been left", n)
			}
		})
	}
}

// Handshakes whose clients send a byte now and then hold up nobody either.
func TestHandshakesThatTrickle(t *testing.T) {
	hello := theHello(t, trusting())
	r := startTLS(t, func(o *Options, _ *session.Config) { o.shakeTime, o.HandshakeTimeout = time.Hour, time.Hour })
	var slow []net.Conn
	for range maxOfSource {
		c := r.tcp()
		_, _ = c.Write(hello)
		if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil { // it has a place
			t.Fatal(err)
		}
		_, _ = c.Write([]byte{23, 3, 3, 0x40, 0}) // the header of a record
		slow = append(slow, c)
	}
	served := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			for _, c := range slow {
				_, _ = c.Write([]byte{1})
			}
			select {
			case <-served:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	defer sending.Wait()
	defer close(served)
	r.rawPeer(r.secure(r.tcp()), "another")
}

// A handshake that waits for its client keeps no other from computing.
func TestAHandshakeThatWaitsDoesNotCompute(t *testing.T) {
	r := startTLS(t, nil)
	size := cap(r.handshakes.computing)
	left := r.begin(theHello(t, trusting()), 3*size)
	defer left()
	r.rawPeer(r.secure(r.tcp()), "served")
	for len(r.handshakes.computing) > 0 {
		time.Sleep(time.Millisecond) // those that were left wait for their clients
	}
}

// What protected connections take is counted. While it is too much, those that are idle
// and have carried large records are closed, the longest idle first, and no handshake
// begins.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	r := startTLS(t, func(o *Options, _ *session.Config) { o.tick, o.Loops = 10*time.Millisecond, 1 })
	content := random(100_000)
	var all []*rawPeer
	for i := range 4 {
		b := r.rawPeer(r.secure(r.tcp()), fmt.Sprint("client ", i))
		if i < 3 {
			for _, p := range b.packets("f", content, 100_000) {
				b.write(p)
			}
			b.received("f", content)
		}
		all = append(all, b)
	}
	if n := r.sealed.Load(); n != 3*bulkSize+restingSize {
		t.Fatalf("%d bytes are counted", n)
	}
	r.conn().post(func() { r.maxSealed.Store(2*bulkSize + restingSize) }) // on the loop, which looks at it
	if got := readAll(t, all[0].Net); len(got) > 0 {
		t.Errorf("got % x", got)
	}
	_ = all[0].Close()
	for _, b := range all[1:] {
		if _, err := b.Ask(b.Verdict(1031, "no such file"), 1604); err != nil {
			t.Error(err)
		}
	}
	r.conn().post(func() { r.maxSealed.Store(0) })
	for _, b := range all[1:3] {
		readAll(t, b.Net)
		_ = b.Close()
	}
	waiting := tls.Client(r.tcp(), trusting())
	handshake := make(chan error, 1)
	go func() { handshake <- waiting.Handshake() }()
	for { // until the loop has its hello
		steps, on := make(chan []step), r.conn()
		on.post(func() {
			var all []step
			for c := range on.lp.conns {
				if c.phase == shaking {
					all = append(all, c.tls.step)
				}
			}
			steps <- all
		})
		if all := <-steps; len(all) > 0 {
			if all[0] != gathering {
				t.Error("a handshake begins though there is no memory")
			}
			break
		}
	}
	if _, err := all[3].Ask(all[3].Verdict(1031, "no such file"), 1604); err != nil {
		t.Errorf("a connection without large records: %v", err)
	}
	r.conn().post(func() { r.maxSealed.Store(2 * restingSize) })
	if err := <-handshake; err != nil {
		t.Error(err)
	}
	_ = waiting.Close()
	_ = all[3].Close()
	r.ended("made room: idle")
}

// Uploads that hardly go on do not keep the memory that handshakes need.
func TestSlowConnectionsMakeRoom(t *testing.T) {
	r := startTLS(t, func(o *Options, _ *session.Config) {
		o.tick, o.slowTime, o.Loops = 10*time.Millisecond, 50*time.Millisecond, 1
	})
	b := r.rawPeer(r.secure(r.tcp()), "slow")
	b.write(b.packets("f", random(100_000), 100_000)[0][:90_000])
	for r.sealed.Load() != bulkSize {
		time.Sleep(time.Millisecond) // nothing else tells
	}
	r.conn().post(func() { r.maxSealed.Store(restingSize) }) // on the loop, which looks at it
	r.rawPeer(r.secure(r.tcp()), "another")
	readAll(t, b.Net)
	_ = b.Close()
	r.ended("made room: too slow")
}

// A connection takes about as much memory as is counted for it.
func TestTheMemoryOfProtectedConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures memory, of which the race detector takes its own")
	}
	once(t)
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	const n = 100
	content := random(1 << 20)
	measure := func(bulk bool) int64 {
		r := startTLS(t, nil)
		before := heap()
		var sockets []net.Conn
		for i := range n {
			c := r.tcp()
			cfg := trusting()
			cfg.DynamicRecordSizingDisabled = true
			cfg.Certificates = []tls.Certificate{certificate(t, "client")}
			b := r.rawPeer(tls.Client(c, cfg), fmt.Sprint("client ", i))
			if bulk {
				for _, p := range b.packets("f", content, 1<<20) {
					b.write(p)
				}
				b.received("f", content)
			}
			sockets = append(sockets, c)
		}
		r.logs.TakeAll()
		r.budget.trim() // under the race detector buffers of content are of the heap
		r.budget.trim()
		each := (heap() - before) / n
		for _, c := range sockets {
			_ = c.Close()
		}
		r.stop()
		_ = r.wait()
		return each
	}
	measure(true) // what is made once
	resting, bulk := measure(false), measure(true)
	t.Logf("%d bytes before large records, and %d after", resting, bulk)
	if resting > restingSize || bulk > bulkSize {
		t.Errorf("a connection takes %d bytes, and %d after large records: more than is counted", resting, bulk)
	}
}
