//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
)

// T is what a scenario needs of a *testing.T. The command gives it one of its
// own.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
	TempDir() string
	Failed() bool
}

// run is one run of a scenario.
type run struct {
	T
	name string
	long bool // the size for the command, else that for a test
	seed uint64
	rng  *rand.Rand // of the scenario's own goroutine
}

func newRun(t T, name string, long bool, seed uint64) *run {
	return &run{T: t, name: name, long: long, seed: seed, rng: rand.New(rand.NewPCG(seed, 1))}
}

// size is how much of something a run does. Under the race detector, where
// everything takes ten times as long, it is a tenth of the short one.
func (r *run) size(short, long int) int {
	n := short
	if r.long {
		n = long
	}
	if raceEnabled {
		n = max(1, n/10)
	}
	return n
}

// step is how many places a run goes on at a time, where a long one visits all.
func (r *run) step(short int) int {
	switch {
	case raceEnabled:
		return 5 * short
	case r.long:
		return 1
	}
	return short
}

// figures prints the line of a scenario that says what it saw.
func (r *run) figures(format string, args ...any) {
	r.Helper()
	r.Logf("%-12s %s", r.name, fmt.Sprintf(format, args...))
}

// scenario is one row of the suite.
type scenario struct {
	name string
	what string
	run  func(*run)
	// parallel: it mostly waits, and what it asserts does not depend on how fast
	// the machine is.
	parallel bool
}

var scenarios = []scenario{
	{"pressure", "clients send faster than the storage takes it", pressure, false},
	{"idle", "10,000 connections that say nothing", idle, false},
	{"crowd", "10,000 clients register and upload at once", crowd, false},
	{"full", "more connections than --max-connections", full, false},
	{"hog", "one address takes all the connections it can get", hog, false},
	{"deep", "128 clients store files in ever new folders", deep, false},
	{"kill", "kill -9 while clients upload and others disturb", kill, false},
	{"cut", "the connection cut after every byte", cut, false},
	{"corrupt", "one bit flipped at every byte", corrupt, false},
	{"grammar", "sessions of random messages", grammar, false},
	{"giants", "packets that declare 4 GiB", giants, false},
	{"disorder", "65,535 packets out of order", disorder, false},
	{"begun", "thousands of transfers begun on one connection", begun, false},
	{"flood", "registrations without end", flood, false},
	{"names", "other clients' ids, names that nearly agree, planted links", names, false},
	{"descriptors", "2,000 connections and 256 descriptors", descriptors, false},
	{"knock", "clients that connect without end, no descriptor left, two servers on one port", knock, false},
	{"folder", "sealift side by side in one folder, while the server dies, comes back older, or is another", folder, false},
	{"timers", "clients that are slow or silent", timers, true},
	{"disk", "a file system of 8 MiB, a limit of the file size", disk, true},
	{"database", "defensive.db locked, read-only, rubbish", database, true},
	{"drain", "SIGTERM with 100 uploads under way", drain, true},
}

// command is the T of a scenario that the command runs.
type command struct {
	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

func (c *command) Helper() {}

func (c *command) Logf(format string, args ...any) {
	fmt.Printf(format+"\n", args...)
}

func (c *command) Errorf(format string, args ...any) {
	c.mu.Lock()
	c.failed = true
	c.mu.Unlock()
	fmt.Printf("FAIL: "+format+"\n", args...)
}

func (c *command) Fatalf(format string, args ...any) {
	c.Errorf(format, args...)
	runtime.Goexit()
}

func (c *command) Cleanup(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cleanups = append(c.cleanups, f)
}

func (c *command) TempDir() string {
	dir, err := os.MkdirTemp("", "sealift-soak-")
	if err != nil {
		c.Fatalf("%v", err)
	}
	c.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (c *command) Failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// try runs f and reports whether all went well so far.
func (c *command) try(f func()) bool {
	done := make(chan struct{})
	go func() { // of its own, since Fatalf ends it
		defer close(done)
		f()
	}()
	<-done
	return !c.Failed()
}

// cleanup does what was to be done at the end, the last first.
func (c *command) cleanup() {
	for {
		c.mu.Lock()
		n := len(c.cleanups)
		if n == 0 {
			c.mu.Unlock()
			return
		}
		f := c.cleanups[n-1]
		c.cleanups = c.cleanups[:n-1]
		c.mu.Unlock()
		c.try(f)
	}
}
