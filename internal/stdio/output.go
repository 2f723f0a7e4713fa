package stdio

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// ErrClosed says that standard output was closed when the process began.
var ErrClosed = errors.New("standard output is closed; to discard it, use >/dev/null")

// Output is standard output. It remembers the first write that failed: a command
// whose output is lost has failed, also where nobody looked at the error of each
// line. What is written after that is thrown away, so that work that has begun
// comes to its end. Any goroutine may use it.
type Output struct {
	mu  sync.Mutex
	w   io.WriteCloser
	err error
}

// NewOutput returns an Output to f. If f was closed when the process began, writes
// give ErrClosed; a server prints nothing, and may be started so.
func NewOutput(f *os.File) *Output {
	if WasClosed(f) {
		return &Output{w: closed{}}
	}
	return &Output{w: f}
}

type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, ErrClosed }
func (closed) Close() error              { return nil }

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	o.note(err)
	return n, o.err
}

func (o *Output) note(err error) {
	if err == nil || o.err != nil {
		return
	}
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err
	}
	if o.err = err; err != ErrClosed {
		o.err = fmt.Errorf("standard output cannot be written: %w", err)
	}
}

// Err returns what became of the writes so far.
func (o *Output) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// Close ends the output, and returns what became of all of it: some file systems
// tell only then that they had no room.
func (o *Output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note(o.w.Close())
	return o.err
}
