package session

import (
	"sync"

	"sealift/codec"
)

// pathLocks keeps apart what several connections of a client want of the same
// stored file: the row in the registry and the file on disk change in two
// steps, and nobody may come between. Nobody blocks: who has to wait is called
// when it is his turn.
type pathLocks struct {
	mu      sync.Mutex
	waiting map[pathKey][]func() // an entry exists while the path is locked
}

type pathKey struct {
	id   codec.ClientID
	path string
}

// lock returns true if the caller has the path now. Otherwise it will have it
// when turn runs: from another session's unlock, on that session's goroutine.
func (l *pathLocks) lock(k pathKey, turn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if queue, locked := l.waiting[k]; locked {
		l.waiting[k] = append(queue, turn)
		return false
	}
	if l.waiting == nil {
		l.waiting = make(map[pathKey][]func())
	}
	l.waiting[k] = nil
	return true
}

// unlock passes the path on to the next in line.
func (l *pathLocks) unlock(k pathKey) {
	l.mu.Lock()
	queue := l.waiting[k]
	if len(queue) == 0 {
		delete(l.waiting, k)
		l.mu.Unlock()
		return
	}
	l.waiting[k] = queue[1:]
	l.mu.Unlock()
	queue[0]()
}

// lock runs then on the session's goroutine when the session has the path. The
// session is not busy meanwhile; the caller unlocks.
func (s *Session) lock(k pathKey, then func()) {
	if s.svc.locks.lock(k, func() { s.host.Do(Compute, nil, then) }) {
		then()
	}
}
