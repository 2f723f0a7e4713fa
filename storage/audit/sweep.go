package audit

import (
	"context"
	"time"

	"sealift/storage"
)

// Contents is a storage.Files into which content comes under a lease, and that can tell what
// it holds.
type Contents interface {
	storage.Files

	// EachContent calls yield with all content of which something is there, complete or not, in
	// its place or not, and when that came, and stops with the first error of yield. Content of
	// which something comes meanwhile may be missed. yield may discard content.
	EachContent(ctx context.Context, yield func(up storage.Uploaded, modified time.Time) error) error
}

// DefaultReapAfter is how long after its end a lease is taken away.
const DefaultReapAfter = time.Hour

// SweepOptions of Sweep.
type SweepOptions struct {
	// ReapAfter is how long after its end a lease is taken away; 0: DefaultReapAfter. A server
	// that slept for less can still record what it has.
	ReapAfter time.Duration
	Log       func(Finding) // as in Options
}

// Swept is what a Sweep has done.
type Swept struct {
	Looked  int // at so much content
	Leases  int // taken away
	Removed int // so much content
	Failed  int // could not be removed, and stays for the next Sweep
}

// Sweep removes content that nothing on record names. First it takes away the leases that ran
// out long ago: from then on their content can't be recorded any more. It runs beside servers
// that share the store. One at a time is enough, and two do no harm.
//
// Nothing is removed that is recorded later. Content has a lease before its first byte is in
// the store, and from then on a lease or a row, until it is not wanted any more. So what
// EachContent has seen, and of which then neither is on record, has lost them for ever: without
// either there is no lease again, and no row.
//
// The error is one of the registry, or of listing the content.
func Sweep(ctx context.Context, reg storage.Registry, files Contents, o SweepOptions) (Swept, error) {
	s := &contentSweep{reg: reg, files: files, o: o}
	if err := s.reap(ctx); err != nil {
		return s.swept, err
	}
	err := files.EachContent(ctx, func(up storage.Uploaded, _ time.Time) error {
		s.swept.Looked++
		s.batch = append(s.batch, &storage.FindUpload{Outcome: own, Upload: up})
		if len(s.batch) < batchSize {
			return nil
		}
		return s.flush(ctx)
	})
	if err == nil {
		err = s.flush(ctx)
	}
	return s.swept, err
}

// contentSweep is one Sweep.
type contentSweep struct {
	reg   storage.Registry
	files Contents
	o     SweepOptions
	swept Swept
	batch []storage.Operation // FindUpload
}

// reap takes away the leases that ran out long ago.
func (s *contentSweep) reap(ctx context.Context) error {
	ago := s.o.ReapAfter
	if ago <= 0 {
		ago = DefaultReapAfter
	}
	for {
		op := &storage.ReapLeases{Outcome: own, Ago: ago, Limit: batchSize}
		if err := s.reg.Apply(ctx, []storage.Operation{op}); err != nil {
			return err
		}
		if op.Err != nil {
			return op.Err
		}
		s.swept.Leases += len(op.Reaped)
		if len(op.Reaped) < batchSize {
			return nil
		}
	}
}

// flush removes what nothing on record names of the content in batch. What cannot be removed
// stays for the next Sweep.
func (s *contentSweep) flush(ctx context.Context) error {
	if len(s.batch) == 0 {
		return nil
	}
	if err := s.reg.Apply(ctx, s.batch); err != nil {
		return err
	}
	for _, op := range s.batch {
		find := op.(*storage.FindUpload)
		if find.Err != nil || find.Found {
			continue
		}
		about := Finding{Event: Orphan, File: storage.File{ID: find.Upload.ID, Path: find.Upload.Path, Incoming: find.Upload.Key}}
		if err := s.files.Discard(ctx, find.Upload); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.swept.Failed++
			about.Event, about.Err = Failed, err
		} else {
			s.swept.Removed++
		}
		if s.o.Log != nil {
			s.o.Log(about)
		}
	}
	s.batch = s.batch[:0]
	return nil
}

// leased returns the keys whose leases have not run out, or have done so for less than DefaultReapAfter: transfers of any
// server may have them. now is by this server's clock, and the leases are by the registry's, which may be another.
func leased(ctx context.Context, reg storage.Registry, now time.Time) (map[string]struct{}, error) {
	keys := make(map[string]struct{})
	err := reg.EachLease(ctx, func(l storage.Lease) error {
		if l.Ends.After(now.Add(-DefaultReapAfter)) {
			keys[l.Upload.Key] = struct{}{}
		}
		return nil
	})
	return keys, notBadRows(err)
}
