package admin

import "sync"

const keptFiles = 100

// Recent keeps the files that came into their places last. Its methods may be called from
// any goroutine.
type Recent struct {
	mu   sync.Mutex
	all  []StoredFile // file n is at n%keptFiles
	next uint64
}

// Add adds f as the latest.
func (r *Recent) Add(f StoredFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := int(r.next % keptFiles); i < len(r.all) {
		r.all[i] = f
	} else {
		r.all = append(r.all, f)
	}
	r.next++
}

// since returns the files from the one numbered from on, at most the last so many, and
// the number of the next.
func (r *Recent) since(from uint64, most int) (files []StoredFile, next uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.next - min(r.next, uint64(len(r.all)), uint64(most))
	for n := max(from, first); n < r.next; n++ {
		files = append(files, r.all[n%keptFiles])
	}
	return files, r.next
}
