package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"sealift/internal/stdio"
)

// output is standard output. It remembers the first write that failed: a command
// whose output is lost has failed, also where nobody looked at the error of each
// line. What is written after that is thrown away, so that work that has begun
// comes to its end. Any goroutine may use it.
type output struct {
	mu  sync.Mutex
	w   io.WriteCloser
	err error
}

// stdout is where all commands print.
var stdout = &output{w: standardOutput()}

// standardOutput is os.Stdout, or what takes nothing where that was closed when
// the process began: a server prints nothing, and may be started so.
func standardOutput() io.WriteCloser {
	if stdio.WasClosed(os.Stdout) {
		return closedOutput{}
	}
	return os.Stdout
}

type closedOutput struct{}

func (closedOutput) Write([]byte) (int, error) {
	return 0, errors.New("standard output is closed; to discard it, use >/dev/null")
}

func (closedOutput) Close() error { return nil }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	if err != nil {
		o.err = fmt.Errorf("the output could not be written: %w", err)
	}
	return n, o.err
}

// failed returns what became of the writes so far.
func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// close ends the output, and returns what became of all of it: some file systems
// tell only then that they had no room.
func (o *output) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.w.Close(); err != nil && o.err == nil {
		o.err = fmt.Errorf("the output could not be written: %w", err)
	}
	return o.err
}
