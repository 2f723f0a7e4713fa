package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"sealift/storage"
)

// Content on its way into a bucket has a lease on record, see [storage.Leases]. It is recorded
// before the first byte of the content goes there, and renewed while more comes. A lease that
// nobody renews runs out, and is reaped long after that: the server may have been stopped for
// a while only.
const (
	leaseFor = 5 * time.Minute
	// renewParts is how many times a lease is renewed before it would run out.
	renewParts = 5
	// renewBatch is how many leases are renewed by one operation.
	renewBatch = 1000
)

// leased is a store that takes content under leases.
type leased interface {
	// Leased returns the keys of the content that is on its way.
	Leased() []string
	// Lost says that there is no lease for these keys any more: nothing of them is taken.
	Lost(keys []string)
}

// serverName returns a name for this process among the servers of a store.
func serverName() string {
	host, _ := os.Hostname()
	return cmp.Or(host, "unnamed") + " " + rand.Text()[:8]
}

// leaseUpload records that content is on its way, before anything of it goes to the bucket.
func (s *Server) leaseUpload(ctx context.Context, up storage.Uploaded) error {
	return s.submit(ctx, &storage.LeaseUpload{Upload: up, Server: s.name, For: s.leaseFor()})
}

// endLease forgets a lease: nothing of the content is in the bucket.
func (s *Server) endLease(ctx context.Context, key string) error {
	return s.submit(ctx, &storage.EndLease{Key: key})
}

// submit has op done on the server's behalf, in a batch with what the sessions want. If ctx
// ends before, op may be done all the same, and belongs to the registry.
func (s *Server) submit(ctx context.Context, op storage.Operation) error {
	op.Result().By = storage.Server
	done := make(chan error, 1)
	s.loops.Submit(op, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) leaseFor() time.Duration { return cmp.Or(s.o.Testing.Lease, leaseFor) }

// renewLeases renews the leases of what is on its way until ctx ends, which is when nothing
// is any more.
func (s *Server) renewLeases(ctx context.Context) {
	store, ok := s.store.(leased)
	if !ok {
		return
	}
	ticker := time.NewTicker(s.leaseFor() / renewParts)
	defer ticker.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := s.renew(ctx, store)
		if err != nil && !failed && ctx.Err() == nil { // once, until it goes well again
			s.o.Log.Error("renewing the leases of uploads failed", zap.Error(err))
		}
		failed = err != nil
	}
}

func (s *Server) renew(ctx context.Context, store leased) error {
	for keys := range slices.Chunk(store.Leased(), renewBatch) {
		op := &storage.RenewLeases{Server: s.name, Keys: keys, For: s.leaseFor()}
		if err := s.submit(ctx, op); err != nil {
			return err
		}
		if len(op.Lost) > 0 {
			s.o.Log.Warn("leases of uploads were lost; these uploads get 1607", zap.Int("count", len(op.Lost)))
			store.Lost(op.Lost)
		}
	}
	return nil
}
