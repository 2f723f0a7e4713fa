package session

import (
	"sync"
	"time"

	"sealift/storage"
)

// awaiting remembers the files that have been recorded a moment ago and await
// their verdict, which mostly follows at once: it spares the registry the
// question what there is to be judged. What is not here may still be in the
// registry.
//
// The map has its own lock; an entry belongs to who has the path's.
type awaiting struct {
	mu    sync.Mutex
	files map[pathKey]*storage.File
}

const (
	// maxAwaiting bounds the entries. Forgetting one costs a question.
	maxAwaiting = 16 << 10
	// freshFor is how long an entry is trusted.
	freshFor = MinUnverifiedTTL / 2
)

// MinUnverifiedTTL is the least age at which maintenance may remove a file that
// awaits its verdict while sessions are being served.
const MinUnverifiedTTL = time.Minute

// put notes that f has been recorded.
func (a *awaiting) put(k pathKey, f *storage.File) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.files == nil || len(a.files) >= maxAwaiting {
		a.files = make(map[pathKey]*storage.File)
	}
	a.files[k] = f
}

// take returns what is known of the path's file, nil if nothing is, and forgets
// it.
func (a *awaiting) take(k pathKey, now time.Time) *storage.File {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.files[k]
	delete(a.files, k)
	if f == nil || now.Sub(f.Received) > freshFor {
		return nil
	}
	return f
}

// lapsed remembers paths of which a version that had its 1603 went without being
// verified, where the registry has no row left to mark. The next version under
// the path takes the mark with it into its own row.
//
// The map has its own lock; an entry belongs to who has the path's.
type lapsed struct {
	mu    sync.Mutex
	paths map[pathKey]struct{}
}

// maxLapsed bounds the entries of lapsed: some 3 MB. Beyond it any one is
// forgotten; a mark that must not be lost is in the registry.
const maxLapsed = 16 << 10

func (l *lapsed) put(k pathKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.paths == nil {
		l.paths = make(map[pathKey]struct{})
	}
	if len(l.paths) >= maxLapsed {
		for any := range l.paths {
			delete(l.paths, any)
			break
		}
	}
	l.paths[k] = struct{}{}
}

// take reports whether the path is marked, and forgets the mark.
func (l *lapsed) take(k pathKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.paths[k]
	delete(l.paths, k)
	return ok
}
