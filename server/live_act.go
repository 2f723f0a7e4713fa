package server

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"sealift/admin"
	"sealift/codec"
)

// apiError is an error in its own words, which the API tells apart by what it is.
type apiError struct{ is, err error }

func (e *apiError) Error() string   { return e.err.Error() }
func (e *apiError) Unwrap() []error { return []error{e.is, e.err} }

// known is err as the API tells errors apart.
func known(err error) error {
	if errors.Is(err, ErrNoClient) {
		return &apiError{admin.ErrNotFound, err}
	}
	return err
}

// whoOf checks who is meant.
func whoOf(who admin.Who) (Who, error) {
	if (who.Client == "") == (who.Name == "") {
		return Who{}, fmt.Errorf("%w: want the id of a client, or its name", admin.ErrInput)
	}
	if who.Client != "" {
		if _, err := idOf(who.Client); err != nil {
			return Who{}, err
		}
	}
	return Who{ID: who.Client, Name: who.Name}, nil
}

// disable is admin.Live.Disable: what `sealiftd client disable` does, on the registry that
// the server has open.
func (l *liveSource) disable(ctx context.Context, client admin.Who, disabled bool) (admin.Who, error) {
	who, err := whoOf(client)
	if err != nil {
		return client, err
	}
	c, err := setDisabledIn(ctx, l.registry, who, disabled)
	if err != nil {
		return client, known(err)
	}
	l.s.o.Log.Info("client steered over the admin address", zap.Stringer("client", c.ID), zap.String("name", c.Name), zap.Bool("disabled", disabled))
	return admin.Who{Client: c.ID.String(), Name: c.Name}, l.service.Recheck(ctx)
}

// delete is admin.Live.Delete: it marks the file as `sealiftd file delete` does, and has
// the server remove it.
func (l *liveSource) delete(ctx context.Context, ref admin.FileRef) error {
	id, err := idOf(ref.Client)
	if err != nil {
		return err
	}
	n := 0
	if ref.Partial {
		marked, e := markPartials(ctx, l.registry, []Partial{{ID: id, Path: ref.Path, Incoming: ref.Version}})
		n, err = len(marked), e
	} else {
		marked, e := markDeleted(ctx, l.registry, []File{{ID: id, Path: ref.Path, Incoming: ref.Version, Verified: ref.Verified}})
		n, err = len(marked), e
	}
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("%w: that version of the file is not there any more", admin.ErrNotFound)
	}
	l.deleted(id, ref.Path)
	l.lookForDeleted()
	return nil
}

func (l *liveSource) deleted(id codec.ClientID, path string) {
	l.s.o.Log.Info("file deleted over the admin address", zap.Stringer("client", id), zap.String("file", path))
}

// lookForDeleted has the server remove what is marked.
func (l *liveSource) lookForDeleted() {
	l.s.lookForLeaving()
	l.s.partials.look()
}

// deleteMatching is admin.Live.DeleteMatching: what `sealiftd file delete` does.
func (l *liveSource) deleteMatching(ctx context.Context, d admin.Deletion, each func(admin.Deleted)) error {
	o := DeleteOptions{
		Pattern: d.Pattern, Unverified: d.Unverified,
		Each: func(f File, err error) {
			out := admin.Deleted{Client: f.ID.String(), Path: f.Path, Size: f.Size}
			if err != nil {
				out.Error = err.Error()
			}
			each(out)
		},
		marked:  func(f *File) { l.deleted(f.ID, f.Path) },
		Removed: func(done, total int64) { each(admin.Deleted{Done: done, Total: total}) },
	}
	for _, name := range d.Names {
		o.Clients = append(o.Clients, Who{Name: name})
	}
	for _, id := range d.IDs {
		if _, err := idOf(id); err != nil {
			return err
		}
		o.Clients = append(o.Clients, Who{ID: id})
	}
	if d.DryRun {
		return known(o.rehearse(ctx, l.registry))
	}
	return known(o.delete(ctx, l.registry, func(look func() (int, error)) error {
		l.lookForDeleted()
		return waitToDepart(ctx, look, func() error { return nil })
	}))
}

// retryEvents is admin.Live.RetryEvents.
func (l *liveSource) retryEvents(ctx context.Context, which admin.EventChoice) (int, error) {
	n, err := retryEvents(ctx, l.registry, which.Target, which.ID)
	if n > 0 {
		l.s.o.Log.Info("events made due over the admin address", zap.Int("count", n))
		l.teller.Wake()
	}
	return n, err
}

// dropEvents is admin.Live.DropEvents.
func (l *liveSource) dropEvents(ctx context.Context, which admin.EventChoice) (int, error) {
	n, err := dropEvents(ctx, l.registry, which.Target, which.ID)
	if n > 0 {
		l.s.o.Log.Info("events dropped over the admin address", zap.Int("count", n))
		l.teller.Wake()
	}
	return n, err
}

// partials is admin.Live.Partials.
func (l *liveSource) partials(ctx context.Context, q admin.FileQuery) (page []admin.PartialFile, more bool, err error) {
	var only codec.ClientID
	if q.Client != "" {
		if only, err = idOf(q.Client); err != nil {
			return nil, false, err
		}
	}
	err = l.registry.Partials(ctx, func(p Partial) error {
		if !only.IsZero() && p.ID != only || p.ID.String()+"/"+p.Path <= q.After {
			return nil
		}
		if len(page) == q.Most {
			more = true
			return errFound
		}
		page = append(page, admin.PartialFile{
			Client: p.ID.String(), Path: p.Path, Version: p.Incoming, Size: p.Length, Total: p.Total, Changed: p.Changed, Deleted: p.Deleted,
		})
		return nil
	})
	return page, more, passedOver(err)
}

// rows is admin.Live.Rows.
func (l *liveSource) rows(ctx context.Context, list string, yield func(any) error) error {
	switch list {
	case admin.ClientRows:
		return clientRows(ctx, l.registry, func(r ClientRow) error { return yield(r) })
	case admin.FileRows:
		return fileRows(ctx, l.registry, func(r FileRow) error { return yield(r) })
	}
	return eventRows(ctx, l.registry, func(r EventRow) error { return yield(r) })
}
