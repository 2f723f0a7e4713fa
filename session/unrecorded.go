package session

import (
	"context"
	"errors"
	"sync"

	"sealift/storage"
)

// unrecorded holds the files whose commit went so far that the registry's rows
// may not be true any more: the content may be in its place, and the row of the
// place, if there is one, is about the file that was there before. That has to
// be settled before anything else happens to the place. After a restart,
// recovery sees to it.
//
// The map has its own lock; an entry belongs to who has the path's.
type unrecorded struct {
	mu    sync.Mutex
	files map[pathKey]commitment
}

// commitment is a commit that the registry does not know about.
type commitment struct {
	file *storage.File
	// outcome is what Files.Commit returned: nil, ErrPlaceNotDurable, or
	// errUnfinished if nobody knows how far it came.
	outcome error
}

func (r *unrecorded) get(k pathKey) (commitment, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.files[k]
	return c, ok
}

func (r *unrecorded) set(k pathKey, c commitment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files == nil {
		r.files = make(map[pathKey]commitment)
	}
	r.files[k] = c
}

func (r *unrecorded) clear(k pathKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.files, k)
}

// catchUp has the registry record what is in the place, if a commit went
// unrecorded.
func (p *place) catchUp() error {
	c, ok := p.co.s.svc.unrecorded.get(p.key)
	switch {
	case !ok:
		return nil
	case c.outcome == nil || errors.Is(c.outcome, storage.ErrPlaceNotDurable):
		return p.record(c)
	default:
		return p.findOut(c)
	}
}

// findOut is catchUp where it is not known whether the content was moved to its
// place.
func (p *place) findOut(c commitment) error {
	svc := p.co.s.svc
	err := p.co.do(Storage, func(ctx context.Context) error {
		_, err := svc.Files.Size(ctx, c.file.Uploaded())
		if err == nil {
			return errNotMoved
		}
		if errors.Is(err, storage.ErrNotStored) {
			return svc.Files.Commit(ctx, c.file)
		}
		return err
	})
	switch {
	case err == nil || errors.Is(err, storage.ErrPlaceNotDurable):
		return p.record(commitment{c.file, err})
	case errors.Is(err, errNotMoved) || errors.Is(err, storage.ErrNotStored):
		svc.unrecorded.clear(p.key)
		return nil
	default:
		return err
	}
}

// errNotMoved says that a file is still among the incoming ones.
var errNotMoved = errors.New("the incoming file was not moved")

// record writes down what a commit did. Until that has succeeded, the
// commitment stays in unrecorded.
func (p *place) record(c commitment) error {
	s := p.co.s
	s.svc.unrecorded.set(p.key, c)
	op := &storage.VerifyFile{
		Outcome: s.outcome(), ID: p.key.id, Path: p.key.path,
		Incoming: c.file.Incoming, Missing: c.outcome != nil,
	}
	err := p.co.apply(op)
	if err != nil && !errors.Is(err, storage.ErrNoFile) { // no file: an earlier try, whose result was lost, did it
		return err
	}
	s.svc.unrecorded.clear(p.key)
	s.svc.settled(c.file)
	return nil
}
