package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"sealift/internal/stdio"
)

// spool copies standard input to a temporary file, because a transfer needs its
// size first and may read it several times. No path leads to the file: it is
// gone with the process, however that ends. The caller closes it.
func (a *app) spool(ctx context.Context) (_ *os.File, err error) {
	if stdio.WasClosed(os.Stdin) {
		return nil, errors.New("standard input is closed; to send an empty file, use </dev/null")
	}
	f, err := os.CreateTemp("", "sealift-*")
	if err != nil {
		return nil, fmt.Errorf("no room for standard input: %w; TMPDIR names another folder", err)
	}
	if runtime.GOOS != "windows" {
		if err := os.Remove(f.Name()); err != nil {
			f.Close()
			return nil, err
		}
	}
	bar := a.screen.Add("reading standard input", true)
	defer bar.Remove()
	done := make(chan error, 1)
	go func() { // a read of a pipe knows no context
		_, err := io.Copy(f, &metered{os.Stdin, 0, func(n int64) { bar.Set(n, 0) }})
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		return nil, ctx.Err() // the copy goes on until the end of the process
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil, fmt.Errorf("%s has no room for standard input: %w; TMPDIR names another folder", os.TempDir(), err)
	}
	return nil, fmt.Errorf("standard input: %w", err)
}

// metered is a reader that tells how many bytes were read.
type metered struct {
	r    io.Reader
	n    int64
	tell func(n int64)
}

func (m *metered) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.n += int64(n)
	m.tell(m.n)
	return n, err
}
