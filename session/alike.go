package session

import (
	"errors"
	"fmt"
	"sync"

	"sealift/storage"
)

// alikeError is ErrAlike about the file at that path.
func alikeError(other string) error { return fmt.Errorf("%w: %q", storage.ErrAlike, other) }

// alike keeps apart transfers under way whose names the server's disk takes for one
// (see storage.ErrAlike). Files that are stored or wait for their verdict are in the
// registry (see storage.FindAlike). A transfer is entered here before the registry is
// asked, and leaves when it is recorded there or gone, so no pair is missed.
type alike struct {
	mu    sync.Mutex
	under map[pathKey]*underWay // by client, and by what Files.Folds makes of the path
}

type underWay struct {
	path      string
	transfers int
}

// enter notes a transfer to a path. It returns the path of another file that is
// under way to the same place on the disk, and notes nothing then. The caller calls
// leave once.
func (a *alike) enter(key pathKey, path string) (other string, leave func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.under[key]
	switch {
	case u == nil:
		if a.under == nil {
			a.under = make(map[pathKey]*underWay)
		}
		u = &underWay{path: path}
		a.under[key] = u
	case u.path != path:
		return u.path, nil
	}
	u.transfers++
	return "", func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if u.transfers--; u.transfers == 0 {
			delete(a.under, key)
		}
	}
}

// found is what was found out about the name of a file before its transfer begins.
type found struct {
	name  string
	leave func()            // nil if the transfer is not entered
	err   error             // why it cannot begin
	usage *storage.GetUsage // nil: no quota stands
}

// apart finds out whether a transfer under a name would take the place of another
// file on the disk, and where a quota stands, what its client has. If it returns nil, the registry is being asked: the request is
// to be done again when the session is no longer busy.
func (us *uploads) apart(name string) *found {
	s := us.s
	folds, asks := s.svc.Files.Folds(), s.asksUsage()
	if folds == nil && !asks {
		return &found{}
	}
	if f := us.found; f != nil && f.name == name {
		us.found = nil
		return f
	}
	path, err := storage.CleanPath(name)
	if err != nil {
		return &found{err: err}
	}
	f := &found{name: name}
	if f.leave, err = us.enterAlike(path); err != nil {
		return &found{err: err}
	}
	s.serve(func(co *coroutine) {
		if folds != nil {
			f.findAlike(co, path, folds)
		}
		if asks && f.err == nil {
			f.learnUsage(co, path)
		}
		if s.closed {
			f.forget()
			return
		}
		us.found = f
	})
	return nil
}

// findAlike finds out whether the registry has a file that f would take the place of.
func (f *found) findAlike(co *coroutine, path string, folds func(string) string) {
	op := &storage.FindAlike{Outcome: storage.Outcome{By: co.s.by()}, ID: co.s.id, Path: path, Folds: folds}
	switch err := co.apply(op); {
	case err == nil:
		f.err = alikeError(op.Found)
	case !errors.Is(err, storage.ErrNoFile):
		f.err = &stepError{StepRegistry, fmt.Errorf("registry: %w", err)}
	}
}

// enterAlike enters a transfer of the session's client in Service.alike. leave is
// nil where the disk tells all names apart.
func (us *uploads) enterAlike(path string) (leave func(), err error) {
	s := us.s
	folds := s.svc.Files.Folds()
	if folds == nil {
		return nil, nil
	}
	other, leave := s.svc.alike.enter(pathKey{s.id, folds(path)}, path)
	if leave == nil {
		return nil, alikeError(other)
	}
	return leave, nil
}

// forget ends what no transfer took over.
func (f *found) forget() {
	if f != nil && f.leave != nil {
		f.leave()
		f.leave = nil
	}
}

// forgetFound drops what was found out for a transfer that did not begin.
func (us *uploads) forgetFound() {
	us.found.forget()
	us.found = nil
}

// leaveAlike ends the part of u in Service.alike: it is recorded, or gone.
func (u *upload) leaveAlike() {
	if u.leave != nil {
		u.leave()
		u.leave = nil
	}
}
