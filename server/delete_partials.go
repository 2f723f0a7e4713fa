package server

import (
	"context"
	"errors"

	"sealift/codec"
	"sealift/storage"
)

// findPartials returns the partial files that o is about.
func (o *DeleteOptions) findPartials(ctx context.Context, reg storage.Registry) (found []Partial, err error) {
	if !o.Unverified {
		return nil, nil
	}
	match, err := matching(ctx, reg, o.Pattern, o.Clients)
	if err != nil {
		return nil, err
	}
	err = reg.Partials(ctx, func(p Partial) error {
		if match(p.Place()) {
			found = append(found, p)
		}
		return nil
	})
	return found, err
}

// asFiles tells of partial files as of files, whose size is what is there.
func asFiles(partial []Partial) []File {
	all := make([]File, len(partial))
	for i, p := range partial {
		all[i] = File{ID: p.ID, FileName: p.FileName, Path: p.Path, Incoming: p.Incoming, Size: p.Length, Received: p.Changed}
	}
	return all
}

// markPartials has the registry mark partial files as Deleted, and returns those that were
// there to be marked.
func markPartials(ctx context.Context, reg storage.Registry, found []Partial) (marked []Partial, err error) {
	return mark(ctx, reg, found, func(p *Partial) storage.Operation {
		return &storage.DeletePartial{
			Outcome: storage.Outcome{By: storage.Server}, ID: p.ID, Path: p.Path, Incoming: p.Incoming,
		}
	})
}

// lookAtPartials adds the partial files to leaving that are still to be removed.
func (d *deletion) lookAtPartials(ctx context.Context, leaving map[uploadVersion]bool) error {
	if !d.Unverified {
		return nil
	}
	err := d.reg.Partials(ctx, func(p Partial) error {
		if p.Deleted {
			leaving[uploadVersion{p.Place(), p.Incoming}] = true
		}
		return nil
	})
	if errors.Is(err, storage.ErrBadRows) {
		return nil
	}
	return err
}

// partialsOf returns the partial files of a client. bad is as of filesOf.
func partialsOf(ctx context.Context, reg storage.Registry, id codec.ClientID) (of []Partial, bad, err error) {
	err = reg.Partials(ctx, func(p Partial) error {
		if p.ID == id {
			of = append(of, p)
		}
		return nil
	})
	if errors.Is(err, storage.ErrBadRows) {
		bad, err = err, nil
	}
	return of, bad, err
}
