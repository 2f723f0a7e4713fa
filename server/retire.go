package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"sealift/storage"
	"sealift/storage/audit"
)

// A quota, a time for which files are kept and an end are columns of a client's row. What
// follows from them while a server runs, it does itself.

// Quota is what a client may have stored; 0: what all may, Unlimited: any number.
type Quota = storage.Quota

// Unlimited is no bound, or for ever.
const Unlimited = storage.Unlimited

// Usage is what a client has stored.
type Usage = storage.Usage

// retire marks the files that were kept as long as they should be, and has them removed.
func (s *Server) retire(ctx context.Context, now time.Time) {
	n, err := audit.Retire(ctx, s.registry, audit.RetireOptions{
		Now: now, KeepFor: time.Duration(s.keepFor.Load()),
		Each: func(f *File) {
			s.o.Log.Info("file expired", zap.String("client", f.ID.String()), zap.String("path", f.Path),
				zap.Int64("bytes", f.Size), zap.Time("received", f.Received))
		},
	})
	if n > 0 {
		s.lookForLeaving()
	}
	if err != nil && ctx.Err() == nil {
		s.o.Log.Error("looking for files that are kept long enough failed", zap.Error(err))
	}
}

// endsEvery is how often clients are looked for whose time is over.
const endsEvery = 10 * time.Second

// disableExpired disables the clients whose time is over, and ends their connections.
func (s *Server) disableExpired(ctx context.Context, now time.Time) {
	err := func() error {
		find := &storage.FindExpired{Now: now}
		if err := applyOwn(ctx, s.registry, find); err != nil || len(find.IDs) == 0 {
			return err
		}
		for _, id := range find.IDs {
			err := applyOwn(ctx, s.registry, &storage.ExpireClient{ID: id, Now: now})
			if err != nil && !errors.Is(err, ErrNoClient) {
				return err
			}
			if err == nil {
				s.o.Log.Info("client expired", zap.String("client", id.String()))
			}
		}
		return s.service.Recheck(ctx)
	}()
	if err != nil && ctx.Err() == nil {
		s.o.Log.Error("disabling clients whose time is over failed", zap.Error(err))
	}
}

// ShowQuota returns the client with its own quota, and what it has stored, waiting files
// included. The server may run.
func ShowQuota(ctx context.Context, at Stores, who Who) (c Client, has Usage, err error) {
	reg, err := at.openReadOnly(ctx)
	if err != nil {
		return c, has, err
	}
	defer reg.Close()
	return showQuota(ctx, reg, who)
}

func showQuota(ctx context.Context, reg storage.Registry, who Who) (c Client, has Usage, err error) {
	if c, err = findClient(ctx, reg, who); err != nil {
		return c, has, err
	}
	get := &storage.GetUsage{ID: c.ID, Recount: true}
	err = applyOwn(ctx, reg, get)
	return c, get.Actual, err
}

// SetQuota sets one or both bounds of a client's own quota; nil leaves a bound as it is.
// What the client has is counted anew. The server may run: it goes by the quota from the
// next file on.
func SetQuota(ctx context.Context, at Stores, who Who, bytes, files *int64) (c Client, has Usage, err error) {
	for _, n := range []*int64{bytes, files} {
		if n != nil && *n < Unlimited {
			return c, has, fmt.Errorf("quota %d: want 0 or more", *n)
		}
	}
	err = steer(ctx, at, func(reg storage.Registry) error {
		if c, err = findClient(ctx, reg, who); err != nil {
			return err
		}
		if err := applyOwn(ctx, reg, &storage.SetQuota{ID: c.ID, Bytes: bytes, Files: files}); err != nil {
			return err
		}
		c, has, err = showQuota(ctx, reg, Who{ID: c.ID.String()})
		return err
	})
	return c, has, err
}

// KeepFor sets for how long the verified files of a client are kept: 0 for as long as those
// of all, Unlimited for ever. With dryRun it changes nothing, and calls each with the files
// that a server would remove. The server may run: it removes what is older within ten
// minutes.
func KeepFor(ctx context.Context, at Stores, who Who, d time.Duration, dryRun bool, each func(File)) (c Client, err error) {
	if d < 0 {
		d = Unlimited
	} else if d != d.Truncate(time.Second) {
		return c, fmt.Errorf("keep for %v: want whole seconds", d)
	}
	if dryRun {
		reg, err := at.openReadOnly(ctx)
		if err != nil {
			return c, err
		}
		defer reg.Close()
		if c, err = findClient(ctx, reg, who); err != nil || d <= 0 {
			return c, err
		}
		_, err = audit.Retire(ctx, reg, audit.RetireOptions{Now: time.Now(), KeepFor: d, DryRun: true, Only: &c.ID, Each: func(f *File) { each(*f) }})
		return c, err
	}
	err = steer(ctx, at, func(reg storage.Registry) error {
		if c, err = findClient(ctx, reg, who); err != nil {
			return err
		}
		return applyOwn(ctx, reg, &storage.SetKeepFor{ID: c.ID, KeepFor: d})
	})
	return c, err
}

// Expire sets when a client is disabled; zero: never. With dryRun it changes nothing. The
// server may run: it disables the client within ten seconds of that time, and a server that
// is started later does it then.
func Expire(ctx context.Context, at Stores, who Who, when time.Time, dryRun bool) (c Client, err error) {
	if dryRun {
		reg, err := at.openReadOnly(ctx)
		if err != nil {
			return c, err
		}
		defer reg.Close()
		return findClient(ctx, reg, who)
	}
	err = steer(ctx, at, func(reg storage.Registry) error {
		if c, err = findClient(ctx, reg, who); err != nil {
			return err
		}
		return applyOwn(ctx, reg, &storage.SetExpires{ID: c.ID, Expires: when})
	})
	return c, err
}

// ExpireOptions say which files ExpireFiles removes.
type ExpireOptions struct {
	KeepFor time.Duration // of clients that have no time of their own; 0: for ever
	DryRun  bool          // change nothing, and call Each as otherwise
	Each    func(File)
}

// ExpireFiles removes the verified files that were kept as long as they should be, as a
// server does by itself. The server may run: then it does the work, and ExpireFiles waits
// for it.
func ExpireFiles(ctx context.Context, at Stores, o ExpireOptions) error {
	ro := audit.RetireOptions{Now: time.Now(), KeepFor: o.KeepFor, DryRun: o.DryRun, Each: func(f *File) { o.Each(*f) }}
	if o.DryRun {
		reg, err := at.openReadOnly(ctx)
		if err != nil {
			return err
		}
		defer reg.Close()
		_, err = audit.Retire(ctx, reg, ro)
		return err
	}
	return steer(ctx, at, func(reg storage.Registry) error {
		if err := at.checkTogether(ctx, reg); err != nil { // before anything is marked
			return err
		}
		marked := make(map[uploadVersion]bool)
		ro.Each = func(f *File) {
			marked[versionOf(f)] = true
			o.Each(*f)
		}
		if _, err := audit.Retire(ctx, reg, ro); err != nil {
			return err
		}
		return depart(ctx, at, reg, func() (n int, err error) {
			err = reg.Leaving(ctx, func(f File) error {
				if f.Deleted && marked[versionOf(&f)] {
					n++
				}
				return nil
			})
			if errors.Is(err, storage.ErrBadRows) {
				err = nil
			}
			return n, err
		})
	})
}

// CompareUsage compares what is counted of clients for whom a quota stands with their files,
// and calls differs with those of whom it is not the same. It returns how many it compared.
func (r *ReadOnly) CompareUsage(ctx context.Context, differs func(c Client, kept, actual Usage)) (n int, err error) {
	err = audit.CompareUsage(ctx, r.reg, func(c *Client, kept, actual Usage) {
		n++
		if kept != actual {
			differs(*c, kept, actual)
		}
	})
	return n, err
}
