package files

import "sync"

// locks are mutexes that have names, here the paths of files and folders below
// files/. Whoever has the lock of a path takes only those of folders above it, so
// that nobody waits in a circle. The zero value is ready for use.
type locks struct {
	mu    sync.Mutex
	named map[string]*lock
}

type lock struct {
	sync.Mutex
	users int // who have it or wait for it; locks.mu guards it
}

// lock waits for the lock of a name. The caller gives it back with unlock.
func (l *locks) lock(name string) (unlock func()) {
	l.mu.Lock()
	if l.named == nil {
		l.named = make(map[string]*lock)
	}
	k := l.named[name]
	if k == nil {
		k = new(lock)
		l.named[name] = k
	}
	k.users++
	l.mu.Unlock()
	k.Lock()
	return func() {
		k.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.named, name)
		}
	}
}
