package server

import (
	"cmp"
	"context"
	"time"
)

// sweepContentEvery is how often content is looked for in a bucket that no record names: what a
// server has left that was killed. Each look lists the whole bucket.
const sweepContentEvery = time.Hour

// sweep removes such content until ctx ends.
func (s *Server) sweep(ctx context.Context) {
	if !s.store.Keeping().Leases {
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
	}
}
