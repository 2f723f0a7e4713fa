//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	sealift "sealift/server"
)

// The peer `before` is this program as it was at an earlier commit, whose server it
// runs as it runs its own: with `server sealift` and the same flags.

// peersOf are the servers of a case: before stands beside sealift.
func (h *harness) peersOf(c kase) []string {
	i := slices.Index(c.peers, "sealift")
	if h.before == "" || i < 0 {
		return c.peers
	}
	return slices.Insert(slices.Clone(c.peers), i+1, "before")
}

// buildBefore takes the commit out of the checkout around the working directory and
// builds its benchmark, below h.dir.
func (h *harness) buildBefore(ctx context.Context, commit string) error {
	dir := filepath.Join(h.dir, "before")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	top, err := output(exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel"))
	if err != nil {
		return fmt.Errorf("--before: %w", err)
	}
	archive := exec.CommandContext(ctx, "git", "archive", "--format=tar", commit)
	archive.Dir = strings.TrimSpace(top) // all of the commit, not the working directory's part
	tree, err := output(archive)
	if err != nil {
		return fmt.Errorf("--before %s: %w", commit, err)
	}
	extract := exec.CommandContext(ctx, "tar", "-x", "-C", dir)
	extract.Stdin = strings.NewReader(tree)
	if _, err := output(extract); err != nil {
		return err
	}
	h.note("building commit %s", commit)
	program, err := filepath.Abs(filepath.Join(dir, "bench-before"))
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, ".")
	build.Dir = filepath.Join(dir, "bench") // a module of its own, or a package of the product's
	if _, err := output(build); err != nil {
		return fmt.Errorf("--before %s: %w", commit, err)
	}
	h.before = program
	return nil
}

// storedBefore is storedBySealift for what may have an older form: a server is opened
// on it first, which brings it up to date.
func storedBefore(ctx context.Context, h *harness, srv *server) error {
	s, err := sealift.Open(ctx, sealift.Options{Dir: srv.opts.dir, Log: zap.NewNop(), Network: sealift.Network{Listen: loopback}})
	if err != nil {
		return err
	}
	return errors.Join(s.Close(), storedBySealift(ctx, h, srv))
}

// output runs a command and returns what it prints. Its error says what it complained of.
func output(cmd *exec.Cmd) (string, error) {
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil && complaint.Len() > 0 {
		err = errors.New(lastLine(complaint.String()))
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", cmd.Args[0], cmd.Args[1], err)
	}
	return string(out), err
}

// startBefore starts the server of the earlier commit.
func startBefore(ctx context.Context, h *harness, o serverOptions, env []string) (*server, error) {
	p, err := start(ctx, env, h.before, o.args("sealift")...)
	if err != nil {
		return nil, err
	}
	return whenListening(&server{process: p, opts: o, golang: true})
}
