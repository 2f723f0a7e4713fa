//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// goProgram is a peer's program that the Go tool can fetch and build.
type goProgram struct {
	name, path, version string // its name, its package's import path, its module's version
}

// fetchTime is how long fetching and building a program may take.
const fetchTime = 20 * time.Minute

// kept is where the program is once it was fetched: among the user's cached
// files, so that later runs find it.
func (g goProgram) kept() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "sealift-bench", g.name+"-"+g.version), nil
}

// fetch has the Go tool fetch and build the program, and keeps it.
func (g goProgram) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTime, fmt.Errorf("it takes more than %v", fetchTime))
	defer cancel()
	path, err := g.kept()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	cmd := exec.CommandContext(ctx, "go", "install", g.path+"@"+g.version)
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "GOBIN="+tmp)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // the Go tool stops its compilers
	cmd.WaitDelay = stopTime
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil && len(out) > 0:
		err = errors.New(lastLine(string(out)))
	}
	if err != nil {
		return fmt.Errorf("go install %s@%s: %w", g.path, g.version, err)
	}
	return os.Rename(filepath.Join(tmp, g.name), path)
}

// lastLine is the line of a program's output that says what went wrong.
func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// fetchable is the error of a peer whose program is not there, where fetching it
// may help.
type fetchable struct {
	error
	program goProgram
}
