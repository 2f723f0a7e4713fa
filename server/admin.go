package server

import (
	"context"
	"crypto/tls"
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sealift/admin"
	"sealift/eventloop"
	"sealift/events"
	"sealift/internal/version"
	"sealift/session"
)

// Admin is about the address at which the server is watched; see package admin.
type Admin struct {
	Listen    string   // host:port, where port 0 takes a free one. "": there is none
	TokenFile string   // holds the token that profiles need, and everything beyond the loopback
	Hosts     []string // names that the address is known by, besides those of the loopback and itself
}

// complete checks a.
func (a *Admin) complete(mode string) error {
	if a.Listen != "" {
		return admin.Check(a.Listen, a.Hosts, a.TokenFile != "", mode != tlsOff)
	}
	if a.TokenFile != "" || len(a.Hosts) > 0 {
		return errors.New("--admin-token-file or --admin-host without --admin: want the address, such as 127.0.0.1:9256")
	}
	return nil
}

// watched is what the address knows, and a server without one has not.
type watched struct {
	server   *admin.Server
	token    *admin.Token // nil: none
	metrics  *admin.Metrics
	registry *observedRegistry
	run      atomic.Pointer[context.Context] // of Run: ended, the server drains; nil: it has not begun
	started  time.Time
	tail     *admin.Tail
	recent   admin.Recent
	beat     atomic.Int64 // when all loops last answered, in Unix nanoseconds; 0: they do not run
}

// newWatched returns nil if o asks for no address.
func newWatched(o *Options) (*watched, error) {
	if o.Admin.Listen == "" {
		return nil, nil
	}
	w := &watched{metrics: admin.NewMetrics(admin.BuildInfo(version.Number())), started: time.Now(), tail: admin.NewTail()}
	if o.Admin.TokenFile != "" {
		var err error
		if w.token, err = admin.ReadToken(o.Admin.TokenFile); err != nil {
			return nil, err
		}
	}
	o.Log = w.tail.Wrap(o.Log)
	alive := o.Alive
	o.Alive = func() {
		w.beat.Store(time.Now().UnixNano())
		if alive != nil {
			alive()
		}
	}
	return w, nil
}

// openAdmin begins to answer at the address, if there is one. The parts of the server are
// open.
func (s *Server) openAdmin() error {
	w := s.watched
	if w == nil {
		return s.writeAddress()
	}
	stores, loops, service, teller := s.storesToCheck(), s.loops, s.service, s.events // Close clears some of s
	stats := func() admin.Stats {
		st := statsOf(loops.Stats(), service.Counts(), teller.Stats())
		st.Partials.Files, st.Partials.Bytes = s.partials.files.Load(), s.partials.bytes.Load()
		return st
	}
	o := admin.Options{
		Addr: s.o.Admin.Listen, Hosts: s.o.Admin.Hosts, Token: w.token, TLS: s.tls.adminConfig(),
		Metrics: w.metrics, Log: s.o.Log.Named("admin"),
		Source: admin.Source{
			Alive: w.alive,
			Stage: func() admin.Stage { return w.stage(loops.Ready()) },
			Check: func() admin.Condition { return stores.condition() },
			Stats: stats,
		},
		Live: s.newLive(),
	}
	var err error
	if w.server, err = admin.Open(o); err != nil {
		return err
	}
	if err = s.writeAddress(); err != nil {
		return err
	}
	s.o.Log.Info("the admin address answers", zap.Stringer("address", w.server.Addr()))
	return nil
}

func (w *watched) alive() time.Time {
	if at := w.beat.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// begin notes that Run begins, with a context that ends when the server drains.
func (w *watched) begin(run context.Context) {
	if w == nil {
		return
	}
	w.beat.CompareAndSwap(0, time.Now().UnixNano())
	w.run.Store(&run)
}

// stage is what the server does. ready is closed once it accepts connections.
func (w *watched) stage(ready <-chan struct{}) admin.Stage {
	if run := w.run.Load(); run != nil && (*run).Err() != nil {
		return admin.Draining
	}
	select {
	case <-ready:
		return admin.Serving
	default:
		return admin.Recovering
	}
}

func (w *watched) close() error {
	if w == nil || w.server == nil {
		return nil
	}
	return w.server.Close()
}

// rereadToken reads the file of the token again. After an error the one from before
// counts. It reports whether it has logged something.
func (w *watched) rereadToken(log *zap.Logger) (said bool) {
	if w == nil || w.token == nil {
		return false
	}
	changed, err := w.token.Reload()
	switch {
	case err != nil:
		log.Error("the admin token cannot be used; the one from before stays", zap.Error(err))
	case changed:
		log.Info("the admin token was reloaded")
	default:
		return false
	}
	return true
}

// adminConfig shows the server's certificate, as it is at that moment. It is nil without
// one.
func (p *protection) adminConfig() *tls.Config {
	if p == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &p.serve.Load().config.Certificates[0], nil
		},
	}
}

// statsOf puts numbers in the words of package admin.
func statsOf(l eventloop.Stats, n session.Counts, told []events.Stats) admin.Stats {
	lane := func(l eventloop.LaneStats) admin.Lane { return admin.Lane(l) }
	st := admin.Stats{
		Connections: map[string]int64{"introducing": l.Introducing, "sniffing": l.Sniffing, "handshake": l.Shaking, "open": l.Open, "ending": l.Ending, "lingering": l.Lingering},
		Lent:        l.Lent, Protected: l.Protected, Limit: l.Limit,
		Admitted: l.Admitted, Refused: l.Refused, Unprotected: l.Unprotected, Unintroduced: l.Unintroduced,
		Lanes: map[string]admin.Lane{"compute": lane(l.Compute), "storage": lane(l.Storage), "bulk": lane(l.Bulk)},
		Sessions: admin.Sessions{
			Registered: n.Registered, NotRegistered: n.NotRegistered, Rejoined: n.Rejoined, Rejected: n.Rejected, Resumed: n.Resumed,
			Begun: n.Begun, ContentBytes: n.ContentBytes, Received: n.Received, Verified: n.Verified, VerifiedBytes: n.VerifiedBytes,
			Again: n.Again, Mismatches: n.Mismatches, GivenUp: n.GivenUp, Kept: n.Kept, Continued: n.Continued,
			Refusals: make(map[string]uint64, len(n.Refused)), Failures: make(map[string]uint64, len(n.Failed)),
		},
	}
	for r, times := range n.Refused {
		st.Sessions.Refusals[session.Reason(r).String()] = times
	}
	for s, times := range n.Failed {
		st.Sessions.Failures[session.Step(s).String()] = times
	}
	st.Events = make(map[string]admin.Events, len(told))
	for _, e := range told {
		of := admin.Events{Waiting: e.Waiting, UnderWay: e.UnderWay, Told: e.Told, Failed: e.Failed, Dropped: e.Dropped.Old + e.Dropped.Many}
		if !e.Oldest.IsZero() {
			of.OldestSeconds = time.Since(e.Oldest).Seconds()
		}
		st.Events[e.Target] = of
	}
	h, m := &st.Handshakes, &st.Memory
	h.Waiting, h.UnderWay, h.Succeeded, h.Failed = l.Handshakes.Waiting, l.Handshakes.UnderWay, l.Handshakes.Succeeded, l.Handshakes.Failed
	m.Budget, m.Used, m.Waiting = l.Memory.Budget, l.Memory.Used, l.Memory.Waiting
	m.EarlyBudget, m.Early, m.Protected = l.Memory.EarlyBudget, l.Memory.Early, l.Memory.Sealed
	return st
}
