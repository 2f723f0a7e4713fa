//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that was started for the benchmark. It dies with it.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	errors tail
}

// start runs a program with pipes to its standard input and output.
func start(ctx context.Context, env []string, name string, args ...string) (*process, error) {
	p := newProcess(ctx, env, name, args)
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewReader(out)
	return p, p.cmd.Start()
}

// startApart runs a program that nobody talks to. What it prints is kept for
// when there is trouble.
func startApart(ctx context.Context, env []string, name string, args ...string) (*process, error) {
	p := newProcess(ctx, env, name, args)
	p.cmd.Stdout = &p.errors
	return p, p.cmd.Start()
}

func newProcess(ctx context.Context, env []string, name string, args []string) *process {
	p := &process{cmd: exec.CommandContext(ctx, name, args...)}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = &p.errors
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = time.Second // for children of its own that keep a pipe open
	return p
}

// self runs this program again, as something else.
func self(ctx context.Context, env []string, args ...string) (*process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(ctx, env, program, args...)
}

// line reads a line of the program's standard output.
func (p *process) line() (string, error) {
	s, err := p.out.ReadString('\n')
	if err != nil {
		return "", p.explain(err)
	}
	return strings.TrimSuffix(s, "\n"), nil
}

// explain adds to an error what the program complained of.
func (p *process) explain(err error) error {
	return fmt.Errorf("%s: %w%s", strings.Join(p.cmd.Args, " "), err, p.errors.quote())
}

// stopTime is how long a program may take to end when its standard input has.
const stopTime = 20 * time.Second

// stop ends the program by the end of its standard input, or by a signal.
func (p *process) stop(sig os.Signal) error {
	if p.in != nil {
		_ = p.in.Close() // it may have ended already
	}
	if sig != nil {
		_ = p.cmd.Process.Signal(sig)
	}
	timer := time.AfterFunc(stopTime, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	if p.out != nil {
		_, _ = io.Copy(io.Discard, p.out)
	}
	if err := p.cmd.Wait(); err != nil && sig == nil {
		return p.explain(err)
	}
	return nil
}

// tail keeps the last kilobytes of what is written to it. Any goroutine may use
// it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 2 << 10

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	t.buf = t.buf[max(0, len(t.buf)-tailSize):]
	return len(b), nil
}

func (t *tail) quote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.buf) == 0 {
		return ""
	}
	return "; it said:\n" + strings.TrimSpace(string(t.buf))
}
