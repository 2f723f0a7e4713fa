//go:build linux

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"time"

	"sealift/bench/load"
	"sealift/bench/proc"
)

// loader is a load that is set up: either the load generator's process or
// programs of their own.
type loader interface {
	Go() error      // starts the clock
	Stopped() error // waits until it stops
	Result() (load.Result, error)
	close() error
}

// generator is the load generator in a process of its own.
type generator struct {
	*load.Process
	p *process
}

func (g *generator) close() error { return g.p.stop(nil) }

// fileClient sends one file, with a program that people use.
type fileClient interface {
	// connect does what is not to be timed.
	connect() error
	// send sends the file once.
	send() error
	// cpu is the processor time in seconds that the client has used.
	cpu() float64
	close() error
}

// programs is a load of such clients, one file each, all at a time.
type programs struct {
	spec    load.Spec
	clients []fileClient
	verify  func() error // compares what has arrived

	began  time.Time
	before float64
	result load.Result
	sent   chan error
}

func (l *programs) cpu() (sum float64) {
	for _, c := range l.clients {
		sum += c.cpu()
	}
	return sum
}

func (l *programs) connect() error {
	for _, c := range l.clients {
		if err := c.connect(); err != nil {
			return err
		}
	}
	return nil
}

func (l *programs) Go() error {
	l.sent = make(chan error, 1)
	l.before = l.cpu()
	l.began = time.Now()
	errs := make([]error, len(l.clients))
	var wg sync.WaitGroup
	for i, c := range l.clients {
		wg.Go(func() { errs[i] = c.send() })
	}
	go func() {
		wg.Wait()
		l.result.Seconds = time.Since(l.began).Seconds()
		l.sent <- errors.Join(errs...)
	}()
	return nil
}

func (l *programs) Stopped() error {
	err := <-l.sent
	l.result.CPU = l.cpu() - l.before
	l.result.Rounds = int64(len(l.clients))
	l.result.Bytes = l.result.Rounds * l.spec.FileSize
	return err
}

func (l *programs) Result() (load.Result, error) {
	if l.verify == nil {
		return l.result, nil
	}
	return l.result, l.verify()
}

func (l *programs) close() error {
	var errs []error
	for _, c := range l.clients {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

// commandClient runs a program for each file.
type commandClient struct {
	prepare func() error // may be nil
	command func() *exec.Cmd
	used    float64
}

func (c *commandClient) connect() error {
	if c.prepare == nil {
		return nil
	}
	return c.prepare()
}

func (c *commandClient) send() error {
	cmd := c.command()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	c.used += (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	return nil
}

func (c *commandClient) cpu() float64 { return c.used }
func (c *commandClient) close() error { return nil }

// cpuOf is the processor time of a program that runs.
func cpuOf(p *process) float64 {
	u, err := proc.Tree(p.cmd.Process.Pid)
	if err != nil {
		return 0 // it has ended, and its client with an error
	}
	return u.CPU
}

// pause is between two looks at something that does not tell when it is ready.
func pause() { time.Sleep(100 * time.Millisecond) }
