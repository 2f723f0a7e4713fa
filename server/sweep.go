package server

import (
	"cmp"
	"context"
	"time"

	"go.uber.org/zap"

	"sealift/storage/audit"
)

// sweepContentEvery is how often content is looked for in a bucket that no record names: what a
// server has left that was killed. Each look lists the whole bucket.
const sweepContentEvery = time.Hour

// sweep removes such content until ctx ends.
func (s *Server) sweep(ctx context.Context) {
	store, ok := s.store.(audit.Contents)
	if !ok {
		return
	}
	ticker := time.NewTicker(cmp.Or(s.o.Testing.SweepEvery, sweepContentEvery))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		found, err := s.sweepOnce(ctx, store)
		if err != nil && ctx.Err() == nil {
			s.o.Log.Error("looking for content without a record failed", zap.Error(err))
		}
		s.o.Log.Debug("content without a record was looked for", zap.Any("findings", found))
	}
}

// sweepOnce is one look, unless the bucket has become another registry's.
func (s *Server) sweepOnce(ctx context.Context, store audit.Contents) (found audit.Swept, err error) {
	if bucket, ok := store.(claimable); ok {
		if err := claim(ctx, s.registry, bucket, s.o.Dir, s.o.Storage.Files); err != nil {
			return found, err
		}
	}
	return audit.Sweep(ctx, s.registry, store, audit.SweepOptions{ReapAfter: s.o.Testing.ReapAfter, Log: s.logFinding})
}
