package session

import (
	"context"
	"errors"
	"sync"
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
	file *File
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
// unrecorded, and then runs then. The caller has the path's lock.
func (s *Session) catchUp(k pathKey, then func(err error)) {
	c, ok := s.svc.unrecorded.get(k)
	switch {
	case !ok:
		then(nil)
	case c.outcome == nil || errors.Is(c.outcome, ErrPlaceNotDurable):
		s.record(k, c, then)
	default:
		s.findOut(k, c, then)
	}
}

// findOut is catchUp where it is not known whether the content was moved to its
// place.
func (s *Session) findOut(k pathKey, c commitment, then func(err error)) {
	err := errUnfinished
	s.host.Do(Storage, func(ctx context.Context) {
		if _, err = s.svc.Files.Size(ctx, c.file.Incoming, k.id, k.path); errors.Is(err, ErrNotStored) {
			err = s.svc.Files.Commit(ctx, c.file)
		} else if err == nil {
			err = errNotMoved
		}
	}, func() {
		switch {
		case err == nil || errors.Is(err, ErrPlaceNotDurable):
			s.record(k, commitment{c.file, err}, then)
		case errors.Is(err, errNotMoved) || errors.Is(err, ErrNotStored):
			s.svc.unrecorded.clear(k)
			then(nil)
		default:
			then(err)
		}
	})
}

// errNotMoved says that a file is still among the incoming ones.
var errNotMoved = errors.New("the incoming file was not moved")

// record writes down what a commit did. Until that has succeeded, the
// commitment stays in unrecorded.
func (s *Session) record(k pathKey, c commitment, then func(err error)) {
	s.svc.unrecorded.set(k, c)
	op := &VerifyFile{Outcome: s.outcome(), ID: k.id, Path: k.path, Incoming: c.file.Incoming, Missing: c.outcome != nil}
	s.host.Apply(op, func(err error) {
		if errors.Is(err, ErrNoFile) { // an earlier try, whose result was lost, did it
			err = nil
		}
		if err == nil {
			s.svc.unrecorded.clear(k)
			s.svc.settled(c.file)
		}
		then(err)
	})
}
