package eventloop

import (
	"math"
	"net"
	"testing"
	"time"

	"sealift/session"
)

func from(addr string) *conn {
	return newConn(&net.TCPAddr{IP: net.ParseIP(addr), Port: 1})
}

func censusOf(most, perIP int) *census {
	n := newCensus()
	n.limit(most, perIP)
	return n
}

// crowd admits n connections of one address, which must all be let in.
func (n *census) crowd(t *testing.T, addr string, count int, now time.Time) (all []*conn) {
	t.Helper()
	for i := range count {
		c := from(addr)
		if ok, _ := n.enter(c, now); !ok {
			t.Fatalf("connection %d of %s is refused", i+1, addr)
		}
		all = append(all, c)
	}
	return all
}

// An address may have any number of connections while a quarter is free, and
// then a quarter. What is one address is what one customer gets.
func TestShareOfAnAddress(t *testing.T) {
	now := time.Now()
	n := censusOf(100, 0)
	greedy := n.crowd(t, "2001:db8::1", 76, now)
	for _, same := range []string{"2001:db8::1", "2001:db8::ffff:1"} {
		if ok, _ := n.enter(from(same), now); ok {
			t.Errorf("%s has more than its share", same)
		}
	}
	n.crowd(t, "2001:db8:0:1::1", 12, now)
	n.crowd(t, "192.0.2.1", 12, now)
	if ok, _ := n.enter(from("192.0.2.2"), now); ok {
		t.Error("more than the limit")
	}
	n.leave(greedy[0])
	if ok, _ := n.enter(from("2001:db8::2"), now); ok {
		t.Error("who holds most gets more")
	}
	n.crowd(t, "::ffff:192.0.2.1", 1, now)
}

func TestNumberOfAnAddress(t *testing.T) {
	now := time.Now()
	n := censusOf(100, 5)
	n.crowd(t, "192.0.2.1", 5, now)
	if ok, _ := n.enter(from("192.0.2.1"), now); ok {
		t.Error("a sixth connection of the address")
	}
	n.crowd(t, "192.0.2.2", 5, now)
	n = censusOf(100, 100)
	n.crowd(t, "192.0.2.1", 100, now)
}

// When there is no room, the slowest connection makes some, of the address that
// holds most; nobody who is fast enough, or whose speed is not known.
func TestTheSlowestMakesRoom(t *testing.T) {
	now := time.Now()
	n := censusOf(10, 0)
	big := n.crowd(t, "192.0.2.1", 5, now)
	small := n.crowd(t, "192.0.2.2", 3, now)
	n.crowd(t, "192.0.2.3", 2, now)
	for _, c := range small {
		c.rate.Store(0)
	}
	newcomer := func(addr string) (bool, *conn) {
		now = now.Add(time.Second)
		return n.enter(from(addr), now)
	}
	big[0].rate.Store(slowRate)
	if ok, victim := newcomer("192.0.2.9"); ok || victim != nil {
		t.Fatalf("room is made by %v", victim)
	}
	big[1].rate.Store(10)
	big[2].rate.Store(5)
	if ok, victim := newcomer("192.0.2.9"); !ok || victim != big[2] {
		t.Fatal("the slowest has not made room")
	}
	if n.served != 10 {
		t.Fatalf("%d are served", n.served)
	}
	if ok, victim := newcomer("192.0.2.1"); !ok || victim != big[1] { // at its own cost
		t.Fatal("the slowest of the same address has not made room")
	}
	n.leave(big[2])
	n.leave(big[1])
	if n.served != 10 || n.evicting != 0 {
		t.Fatalf("%d are served, %d on their way out", n.served, n.evicting)
	}
	n.leave(big[0])
	if n.served != 9 {
		t.Fatalf("%d are served", n.served)
	}
}

// No more than a few are on their way out at a time, so that descriptors last.
func TestFewMakeRoomAtATime(t *testing.T) {
	now := time.Now()
	n := censusOf(100, 100)
	var out []*conn
	for _, c := range n.crowd(t, "192.0.2.1", 100, now) {
		c.rate.Store(0)
	}
	for range 50 {
		now = now.Add(time.Second)
		if ok, victim := n.enter(from("192.0.2.2"), now); ok {
			out = append(out, victim)
		}
	}
	if len(out) != maxEvicting {
		t.Fatalf("%d make room", len(out))
	}
	n.leave(out[0])
	now = now.Add(time.Second)
	if ok, _ := n.enter(from("192.0.2.2"), now); !ok {
		t.Error("nobody makes room any more")
	}
}

// Who holds connections with a byte now and then loses one to a client that
// comes, and the log says why.
func TestTricklersMakeRoom(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) {
		o.MaxConnections, o.tick, o.slowTime = 1, 100*time.Millisecond, 100*time.Millisecond
	})
	trickler := r.raw()
	_, _ = trickler.Write([]byte{1})
	for {
		c, err := r.dial("newcomer")
		if err == nil {
			_ = c.Close()
			break
		}
		if !refused(err) {
			t.Fatal(err)
		}
	}
	for _, l := range r.logs.FilterMessage("connection closed").All() {
		if l.ContextMap()["reason"] == "made room: too slow" && l.ContextMap()["remote"] == trickler.LocalAddr().String() {
			return
		}
	}
	t.Error("the log does not say that the trickler made room")
}

// What counts is what the client brought in the time that it had: not while the
// server could take nothing.
func TestTheSpeedOfAClient(t *testing.T) {
	srv, _ := bare(t, func(*Options) {})
	defer srv.Close()
	c := from("192.0.2.1")
	c.lp = newLoop(srv, nil)
	c.sess = session.New(srv.opts.Service, c, c.remote)
	now := time.Now()
	c.weighed = now
	after := func(d time.Duration, got int64, blocked bool) int64 {
		now = now.Add(d)
		c.got, c.blocked = c.got+got, blocked
		c.weigh(now)
		return c.rate.Load()
	}
	for _, step := range []struct {
		after   time.Duration
		got     int64
		blocked bool
		want    int64
	}{
		{slowTime - time.Second, 1e6, false, math.MaxInt64}, // nobody knows yet
		{time.Hour, 0, true, math.MaxInt64},
		{time.Second, 2e5, false, 10_000},
		{slowTime / 2, 60, false, 10_000},
		{slowTime / 2, 60, false, 1},
	} {
		if got := after(step.after, step.got, step.blocked); got != step.want {
			t.Fatalf("%+v: %d bytes a second", step, got)
		}
	}
}
