package eventloop

import (
	"testing"
	"time"

	"sealift/codec"
	"sealift/session"
)

// Limits that are lowered below what is served cut nobody, and nobody is admitted, nor
// makes room, until there are fewer. Raised ones count for the next connection.
func TestLimitsThatAreLowered(t *testing.T) {
	for name, lower := range map[string]func(n *census, to int){
		"of all":        func(n *census, to int) { n.limit(to, 100) },
		"of an address": func(n *census, to int) { n.limit(100, to) },
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			n := censusOf(100, 100)
			served := n.crowd(t, "192.0.2.1", 10, now)
			for _, c := range served {
				c.rate.Store(0) // any of them would make room
			}
			enter := func() (bool, *conn) {
				now = now.Add(time.Second)
				return n.enter(from("192.0.2.1"), now)
			}
			lower(n, 8)
			for range 2 {
				if ok, victim := enter(); ok || victim != nil {
					t.Fatalf("with %d served: admitted %v, and %v makes room", n.served, ok, victim)
				}
				n.leave(served[0])
				served = served[1:]
			}
			if ok, victim := enter(); !ok || victim == nil { // as ever
				t.Fatalf("with as many as the limit: admitted %v, and %v makes room", ok, victim)
			}
			if n.served != 8 {
				t.Errorf("%d are served", n.served)
			}
			lower(n, 9)
			if ok, victim := enter(); !ok || victim != nil {
				t.Errorf("with room: admitted %v, and %v makes room", ok, victim)
			}
		})
	}
}

// Other timeouts count for the connections that are there, from when they began.
func TestTimeoutsThatAreChanged(t *testing.T) {
	srv, _ := bare(t, func(*Options) {})
	defer srv.Close()
	c := from("192.0.2.1")
	c.lp = newLoop(srv, nil)
	c.sess = session.New(srv.opts.Service, c, c.remote)
	c.since = time.Now()
	c.read = c.since.Add(time.Second)
	for _, limits := range []Limits{
		{HandshakeTimeout: time.Hour, IdleTimeout: time.Second},
		{HandshakeTimeout: time.Second, IdleTimeout: time.Hour},
		{},
	} {
		srv.Limit(limits)
		limits.complete()
		c.phase, c.unread, c.begun = open, 0, time.Time{}
		if at, why := c.deadline(); at != c.since.Add(limits.HandshakeTimeout) {
			t.Errorf("%+v: %s at %v", limits, why, at.Sub(c.since))
		}
		c.begun = c.read
		if at, why := c.deadline(); at != c.begun.Add(limits.HandshakeTimeout) {
			t.Errorf("%+v: %s at %v", limits, why, at.Sub(c.since))
		}
		c.unread, c.wrote = 1, c.read
		if at, why := c.deadline(); at != c.wrote.Add(limits.IdleTimeout) {
			t.Errorf("%+v: %s at %v", limits, why, at.Sub(c.since))
		}
		c.phase, c.unread = sniffing, 0
		if at, why := c.deadline(); at != c.since.Add(limits.HandshakeTimeout) {
			t.Errorf("%+v: %s at %v", limits, why, at.Sub(c.since))
		}
	}
}

// A shorter timeout ends the connection that is silent for that long already; so does a
// drain whose timeout was shortened before it began.
func TestLimitsOfAServerThatRuns(t *testing.T) {
	long := func(o *Options, _ *session.Config) {
		o.HandshakeTimeout, o.IdleTimeout, o.DrainTimeout = time.Hour, time.Hour, time.Hour
	}
	header := codec.Register{Name: []byte("x")}.Append(nil)
	for name, tc := range map[string]struct {
		send   []byte
		limits Limits
	}{
		"says nothing":        {nil, Limits{HandshakeTimeout: time.Millisecond, IdleTimeout: time.Hour}},
		"stops in a header":   {header[:5], Limits{HandshakeTimeout: time.Millisecond, IdleTimeout: time.Hour}},
		"registers and stops": {header, Limits{HandshakeTimeout: time.Hour, IdleTimeout: time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, long)
			c := r.raw()
			defer c.Close()
			_, _ = c.Write(tc.send)
			r.Limit(tc.limits)
			readAll(t, c)
			r.stop()
			if err := r.wait(); err != nil {
				t.Fatal(err)
			}
			if n := len(r.logs.FilterMessage("connection closed").All()); n != 1 {
				t.Errorf("%d connections were closed", n)
			}
		})
	}
	t.Run("drain", func(t *testing.T) {
		t.Parallel()
		r := start(t, long)
		r.beginUpload()
		r.Limit(Limits{DrainTimeout: time.Millisecond})
		r.stop()
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
	})
}
