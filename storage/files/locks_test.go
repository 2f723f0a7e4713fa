package files

import (
	"sync"
	"testing"
)

// One at a time has the lock of a name, whoever waits for it, and nothing is kept
// of a name that nobody uses.
func TestLocks(t *testing.T) {
	var l locks
	var wg sync.WaitGroup
	has := make(map[string]*int)
	names := []string{"a", "a/b"}
	for _, name := range names {
		has[name] = new(int)
	}
	for i := range 8 {
		wg.Go(func() {
			name := names[i%2]
			for range 1000 {
				unlock := l.lock(name)
				if *has[name]++; *has[name] != 1 {
					t.Errorf("%d have the lock of %q", *has[name], name)
				}
				*has[name]--
				unlock()
			}
		})
	}
	wg.Wait()
	if len(l.named) != 0 {
		t.Errorf("%d locks are kept", len(l.named))
	}
}
