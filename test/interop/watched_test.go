package interop

import (
	"strings"
	"sync"
	"time"
)

// watched is what a program has written so far.
type watched struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // takes one without a reader
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
	return w.text.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// await waits until that has been written. It returns false if it takes too long.
func (w *watched) await(what string) bool {
	late := time.After(sendTimeout)
	for !strings.Contains(w.String(), what) {
		select {
		case <-w.changed:
		case <-late:
			return false
		}
	}
	return true
}
