package audit

import (
	"context"
	"errors"
	"slices"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// RetireOptions say what is old.
type RetireOptions struct {
	Now time.Time
	// KeepFor is how long verified files are kept, from when they were received, of clients
	// that have no time of their own; 0: for ever.
	KeepFor time.Duration
	Only    *codec.ClientID     // of this client alone, whatever time of its own it has; nil: of all
	DryRun  bool                // change nothing, and call Each as otherwise
	Each    func(*storage.File) // each file that is to go; it may be nil
}

// Retire marks verified files as Deleted that were kept as long as they should be. [Clear]
// does the rest. Files that are missing stay on record: their disk may not be mounted. So do
// those whose age is not on record.
//
// Where nothing is to go at any time, it does not look at the files. The error is one of the
// registry. It may run beside a server.
func Retire(ctx context.Context, reg storage.Registry, o RetireOptions) (n int, err error) {
	times := make(map[codec.ClientID]time.Duration) // of clients that have one of their own
	some := o.KeepFor > 0
	of := func(id codec.ClientID) bool { return o.Only == nil || *o.Only == id }
	err = reg.Clients(ctx, func(c storage.Client) error {
		if c.KeepFor != 0 && o.Only == nil {
			times[c.ID] = c.KeepsFor(o.KeepFor)
			some = some || c.KeepFor > 0
		}
		return nil
	})
	if notBadRows(err) != nil || !some {
		return 0, notBadRows(err)
	}
	var old []storage.File
	err = reg.Files(ctx, func(f storage.File) error {
		keep, has := times[f.ID]
		if !has {
			keep = o.KeepFor
		}
		if keep > 0 && of(f.ID) && f.Verified && !f.Missing && f.Stays() && !f.Received.IsZero() && o.Now.Sub(f.Received) > keep {
			old = append(old, f)
		}
		return nil
	})
	if notBadRows(err) != nil {
		return 0, err
	}
	for part := range slices.Chunk(old, batchSize) {
		gone, err := markRetired(ctx, reg, part, o.DryRun)
		if err != nil {
			return n, err
		}
		for _, f := range gone {
			n++
			if o.Each != nil {
				o.Each(f)
			}
		}
	}
	return n, nil
}

// markRetired marks files as Deleted, and returns those that were there to be marked.
func markRetired(ctx context.Context, reg storage.Registry, old []storage.File, dryRun bool) (gone []*storage.File, err error) {
	ops := make([]storage.Operation, len(old))
	for i := range old {
		f := &old[i]
		ops[i] = &storage.DeleteFile{
			Outcome: own, ID: f.ID, Path: f.Path, Incoming: f.Incoming, Verified: true, Why: storage.WhyKept,
		}
	}
	if !dryRun {
		if err := reg.Apply(ctx, ops); err != nil {
			return nil, err
		}
	}
	for i, op := range ops {
		switch err := op.Result().Err; {
		case err == nil:
			gone = append(gone, &old[i])
		case !errors.Is(err, storage.ErrNoFile): // else a newer version took its place
			return gone, err
		}
	}
	return gone, nil
}

// CompareUsage compares the count that is kept of what clients have, see [storage.Usage],
// with what their files add up to, and calls each with every client that is counted. The
// error is one of the registry. It may run beside a server.
func CompareUsage(ctx context.Context, reg storage.Registry, each func(c *storage.Client, kept, actual storage.Usage)) error {
	var batch []storage.Client
	flush := func() error {
		for i := range batch {
			get := &storage.GetUsage{Outcome: own, ID: batch[i].ID, Recount: true}
			if err := reg.Apply(ctx, []storage.Operation{get}); err != nil {
				return err
			}
			if get.Err == nil && get.Counted {
				each(&batch[i], get.Used, get.Actual)
			}
		}
		batch = batch[:0]
		return nil
	}
	err := reg.Clients(ctx, func(c storage.Client) error {
		batch = append(batch, c)
		if len(batch) < batchSize {
			return nil
		}
		return flush()
	})
	if err = notBadRows(err); err != nil {
		return err
	}
	return flush()
}
