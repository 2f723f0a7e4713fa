package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sealift/internal/bootid"
	"sealift/storage/audit"
)

// maxPartials is how many partial files one client may have.
const maxPartials = 16

// How often partial files are looked for that are too old, and for how many times as long as
// a look takes the next one waits, and how long at least: thousands of transfers may be cut
// at once.
const (
	sweepEvery = time.Minute
	sweepRest  = 5
	sweepPause = 200 * time.Millisecond
)

// partials is what a server knows of the partial files.
type partials struct {
	boot   string
	ttl    atomic.Int64  // Storage.PartialTTL
	budget atomic.Int64  // Storage.PartialBudget
	due    chan struct{} // see look
	files  atomic.Int64
	bytes  atomic.Int64
}

func newPartials(o *Storage) *partials {
	// Where the system does not say which boot this is, none is the same as before: then a
	// start reads what the last process has left.
	p := &partials{boot: cmp.Or(bootid.ID(), "process "+rand.Text()), due: make(chan struct{}, 1)}
	p.limit(o)
	return p
}

// limit has p go by the settings of o.
func (p *partials) limit(o *Storage) {
	p.ttl.Store(int64(o.PartialTTL))
	p.budget.Store(o.PartialBudget)
	p.look()
}

// look has sweepPartials look. It does not wait for it, and may be called from any goroutine.
func (p *partials) look() {
	select {
	case p.due <- struct{}{}:
	default: // it will look anyway
	}
}

// sweepPartials removes partial files that are too old or too many, or that somebody deleted,
// beside the loops, until ctx ends.
func (s *Server) sweepPartials(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.partials.due:
		}
		began := time.Now()
		left, err := audit.SweepPartials(ctx, s.registry, s.store, s.partialOptions(began))
		switch {
		case err == nil:
			s.partials.files.Store(int64(left.Files))
			s.partials.bytes.Store(left.Bytes)
		case ctx.Err() == nil:
			s.o.Log.Error("removing partial files failed", zap.Error(err))
		}
		if pause(ctx, max(sweepPause, sweepRest*time.Since(began))) != nil {
			return
		}
	}
}

// checkPartials reads what another boot of the machine has left of partial files. Until it is
// through with one, a client that asks for it begins anew.
func (s *Server) checkPartials(ctx context.Context) {
	if s.store.Keeping().Sealed {
		return // what is there was flushed, whatever boot it is of
	}
	err := audit.CheckPartials(ctx, s.registry, s.store, s.partialOptions(time.Now()))
	if err != nil && ctx.Err() == nil {
		s.o.Log.Error("reading partial files of another boot failed", zap.Error(err))
	}
}

func (s *Server) partialOptions(now time.Time) audit.PartialOptions {
	o := audit.PartialOptions{
		Boot: s.partials.boot, TTL: time.Duration(s.partials.ttl.Load()), Budget: s.partials.budget.Load(), PerClient: maxPartials,
		Now: now, Alive: s.service.Alive, Log: s.logFinding, Exclusive: s.service.Exclusive,
	}
	if o.Budget == 0 && s.folder != nil {
		if c, err := s.folder.Condition(); err == nil && c.Known {
			o.Budget = max(1, c.Total/10)
		}
	}
	return o
}
