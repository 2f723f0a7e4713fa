// Package logqueue lets a program log to where nobody may be reading: a pipe that
// is full, a pipe whose reader is gone, a disk without room. The program goes on,
// lines that could not be written are counted, and one line says how many they
// were once writing works again.
package logqueue

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// DefaultBytes is how many bytes of lines wait by default.
const DefaultBytes = 1 << 20

// FlushTime is how long Sync waits for lines to be written.
const FlushTime = time.Second

// Writer passes lines on to another writer, from a goroutine of its own. It is a
// zapcore.WriteSyncer. Its methods may be called from any goroutine.
type Writer struct {
	w     io.Writer
	limit int
	tell  func(lost int) []byte

	mu      sync.Mutex
	pending []byte // lines that wait
	lost    int    // lines since the last one that said so
	writing bool   // the goroutine runs
	idle    chan struct{}
	spare   []byte // a buffer that was written, for the next lines
	cut     bool   // the last write ended in the middle of a line. The goroutine's.
}

// New makes a Writer for w, of which at most limit bytes wait, and as many are
// being written. tell makes the line, with its end, that says how many lines were
// lost.
func New(w io.Writer, limit int, tell func(lost int) []byte) *Writer {
	return &Writer{w: w, limit: limit, tell: tell}
}

// Write takes one line, with its end, or several. It copies p, never waits, and
// never fails: a line for which there is no room is lost.
func (q *Writer) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending)+len(p) > q.limit {
		q.lost += max(1, bytes.Count(p, newline))
		return len(p), nil
	}
	if q.pending == nil {
		q.pending, q.spare = q.spare[:0], nil
	}
	q.pending = append(q.pending, p...)
	if !q.writing {
		q.writing, q.idle = true, make(chan struct{})
		go q.run()
	}
	return len(p), nil
}

// Sync waits until all lines are written or lost, but no longer than FlushTime.
// It never fails.
func (q *Writer) Sync() error {
	q.mu.Lock()
	idle := q.idle
	writing := q.writing
	q.mu.Unlock()
	if !writing {
		return nil
	}
	late := time.NewTimer(FlushTime)
	defer late.Stop()
	select {
	case <-idle:
	case <-late.C:
	}
	return nil
}

var newline = []byte("\n")

// run writes what waits, and ends when nothing does.
func (q *Writer) run() {
	for {
		q.mu.Lock()
		batch := q.pending
		if len(batch) == 0 {
			q.writing = false
			close(q.idle)
			q.mu.Unlock()
			return
		}
		lost := q.lost // after the lines of batch, and before those that follow
		q.pending, q.lost = nil, 0
		q.mu.Unlock()

		if lost > 0 {
			batch = append(batch, q.tell(lost)...)
		}
		left := q.write(batch)
		q.mu.Lock()
		if left > 0 {
			if lost > 0 { // the line that says so is among them
				left += lost - 1
			}
			q.lost += left
		}
		if cap(batch) <= 2*q.limit {
			q.spare = batch
		}
		q.mu.Unlock()
	}
}

// write returns how many lines could not be written.
func (q *Writer) write(p []byte) (lost int) {
	if q.cut {
		if _, err := q.w.Write(newline); err != nil {
			return bytes.Count(p, newline)
		}
		q.cut = false
	}
	n, err := q.w.Write(p)
	if err == nil {
		return 0
	}
	n = min(max(n, 0), len(p))
	q.cut = n > 0 && p[n-1] != '\n'
	return bytes.Count(p[n:], newline)
}
