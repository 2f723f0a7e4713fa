package session

import (
	"sync"

	"sealift/codec"
)

// pathLocks keeps apart what several connections of a client want of the same
// stored file. A change takes two steps, the row in the registry and the file on
// disk, and no other connection may act between them. lock never blocks; a waiter
// is called back when its turn comes.
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
