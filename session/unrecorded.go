package session

import (
	"context"
	"errors"
	"sync"
)

// unrecorded holds the files whose commit failed half-way. They may be in their
// places already, as their clients asked for, and then the registry's row for
// the place, if there is one, is about the file that was there before. That has
// to be settled before anything else happens to the place. After a restart,
// recovery sees to it.
//
// The map has its own lock; an entry belongs to who has the path's.
type unrecorded struct {
	mu   sync.Mutex
	keys map[pathKey]string // by place, the Incoming of the unverified row
}

func (r *unrecorded) get(k pathKey) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys[k]
}

// set notes the file, or that there is none any more if incoming is empty.
func (r *unrecorded) set(k pathKey, incoming string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if incoming == "" {
		delete(r.keys, k)
		return
	}
	if r.keys == nil {
		r.keys = make(map[pathKey]string)
	}
	r.keys[k] = incoming
}

// catchUp has the registry record what is in the place, if a commit failed
// half-way and came that far, and then runs then. The caller has the path's
// lock.
func (s *Session) catchUp(k pathKey, then func(err error)) {
	incoming := s.svc.unrecorded.get(k)
	if incoming == "" {
		then(nil)
		return
	}
	var moved bool
	err := errUnfinished
	s.host.Do(Storage, func(ctx context.Context) {
		moved, err = inPlace(ctx, s.svc.Files, incoming, k)
	}, func() {
		switch {
		case err != nil:
			then(err)
		case !moved:
			s.svc.unrecorded.set(k, "")
			then(nil)
		default:
			s.record(k, incoming, then)
		}
	})
}

// inPlace reports whether an incoming file was moved to its place, and makes
// sure that it stays there.
func inPlace(ctx context.Context, files Files, incoming string, k pathKey) (bool, error) {
	r, err := files.Open(ctx, incoming, k.id, k.path)
	if err == nil {
		return false, r.Close()
	}
	if errors.Is(err, ErrNotStored) {
		err = files.Commit(ctx, incoming, k.id, k.path)
	}
	if errors.Is(err, ErrNotStored) {
		return false, nil
	}
	return err == nil, err
}

func (s *Session) record(k pathKey, incoming string, then func(err error)) {
	op := &VerifyFile{Outcome: s.outcome(), ID: k.id, Path: k.path, Incoming: incoming}
	s.host.Apply(op, func(err error) {
		if errors.Is(err, ErrNoFile) { // maintenance was faster
			err = nil
		}
		if err == nil {
			s.svc.unrecorded.set(k, "")
		}
		then(err)
	})
}
