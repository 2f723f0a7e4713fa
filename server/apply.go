package server

import (
	"cmp"

	"go.uber.org/zap"

	"sealift/eventloop"
	"sealift/session"
	"sealift/storage"
)

// Change is a setting that has another value.
type Change struct {
	Setting  string // its flag, without the dashes
	From, To string // as the flag takes them
}

// Apply has the server go by next as far as it may while it runs, and returns what
// changed, and what next has otherwise and needs a restart: that keeps its value. Log and
// other options that no flag sets are not looked at. After an error nothing has changed.
//
// It may be called from any goroutine, from Open to Close.
func (s *Server) Apply(next Options) (changed, restart []Change, err error) {
	if err := next.Check(); err != nil {
		return nil, nil, err
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	now := s.asked
	for _, a := range settings {
		c := Change{a.flag, a.text(&s.asked), a.text(&next)}
		switch {
		case c.From == c.To:
		case a.live:
			a.take(&now, &next)
			changed = append(changed, c)
		default:
			if a.shown != nil {
				c.From, c.To = a.shown(c.From), a.shown(c.To)
			}
			restart = append(restart, c)
		}
	}
	if len(changed) == 0 {
		return nil, restart, nil
	}
	done := now
	if err := done.complete(); err != nil { // what is new and what stays do not go together
		return nil, nil, err
	}
	s.asked = now
	s.take(&done)
	return changed, restart, nil
}

// take has the parts go by the settings of o that are live.
func (s *Server) take(o *Options) {
	s.loops.Limit(loopLimits(&o.Network, s.connections(&o.Network)))
	s.service.Limit(sessionLimits(&o.Sessions))
	if s.folder != nil {
		s.folder.Keep(o.Storage.MinFree)
	}
	s.ttl.Store(int64(o.Storage.UnverifiedTTL))
	s.keepFor.Store(int64(o.Storage.KeepFor))
	s.events.Limit(o.Events.limits())
	s.partials.limit(&o.Storage)
}

// connections is how many connections n asks for, as far as there are descriptors.
func (s *Server) connections(n *Network) int {
	wanted := cmp.Or(n.MaxConnections, eventloop.DefaultMaxConnections)
	allowed := min(wanted, s.share.Most)
	if allowed < n.MaxConnections {
		s.o.Log.Warn("the limit of open files allows fewer connections than asked for",
			zap.Int("asked", n.MaxConnections), zap.Int("allowed", allowed))
	}
	return allowed
}

// loopLimits are the limits that the event loops go by.
func loopLimits(n *Network, connections int) eventloop.Limits {
	return eventloop.Limits{
		MaxConnections: connections, MaxPerIP: n.MaxPerIP, Proxies: n.proxies(), Rate: n.LimitRate,
		HandshakeTimeout: n.HandshakeTimeout, IdleTimeout: n.IdleTimeout, DrainTimeout: n.DrainTimeout,
	}
}

// sessionLimits are the limits that sessions go by.
func sessionLimits(o *Sessions) session.Limits {
	l := session.Limits{
		MaxFileSize: o.MaxFileSize, MaxUnverified: o.MaxUnverified, MaxUploads: o.MaxUploads,
		RegisterRate: o.RegisterRate, Closed: o.Closed,
		Quota: storage.Quota{Bytes: o.QuotaBytes, Files: o.QuotaFiles},
	}
	if o.ReplaceKeys {
		l.KeyPolicy = session.ReplaceKey
	}
	return l
}

// Reread reads the files again that settings name, and takes up what has changed in
// them. It reports whether it has logged something.
//
// It may be called from any goroutine, from Open to Close.
func (s *Server) Reread() (said bool) {
	said = s.watched.rereadToken(s.o.Log)
	if s.rereadSecrets() {
		said = true
	}
	if s.tls != nil && s.tls.look(true) {
		said = true
	}
	return said
}
