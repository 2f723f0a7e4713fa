//go:build linux

// Package cluster puts several servers on one PostgreSQL and one S3 server, with HAProxy in
// front, and has all of them fail in turn under load. A 1604 that a client has seen must
// be true in the end, and nothing may lie about. Each scenario is a test in a file of its
// name, and logs the figures that it saw:
//
//	go test ./test/cluster                                       every scenario, small
//	go test -v ./test/cluster -run TestFire -seed 7
//	go test -v ./test/cluster -run TestFire -full -timeout 0     ten minutes of it
//
// It needs PostgreSQL, versitygw and HAProxy. Without one of them it is skipped, or fails
// where SEALIFT_INTEROP is 1.
package cluster

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

var (
	full = flag.Bool("full", false, "run the scenarios in full size")
	seed = flag.Uint64("seed", 0, "of what is random; 0: another one for each scenario")
)

func TestMain(m *testing.M) {
	if done, err := playRole(); done {
		if err != nil {
			fmt.Fprintln(os.Stderr, "Fatal error:", err)
			os.Exit(1)
		}
		return
	}
	status := m.Run()
	if err := stopServices(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(status)
}

// run is one run of a scenario.
type run struct {
	*testing.T
	seed uint64
	rng  *rand.Rand // of the scenario's own goroutine
}

func newRun(t *testing.T) *run {
	t.Helper()
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	return &run{T: t, seed: s, rng: rand.New(rand.NewPCG(s, 1))}
}

// size is how much of something a run does, in small or in full. Under the race detector,
// where everything takes ten times as long, it is a tenth.
func (r *run) size(small, large int) int {
	n := small
	if *full {
		n = large
	}
	if raceEnabled {
		n = max(1, n/10)
	}
	return n
}

// must ends the scenario if something that it does itself has failed.
func (r *run) must(what string, err error) {
	r.Helper()
	if err != nil {
		r.Fatalf("%s: %v", what, err)
	}
}

// patience is how long anything may take that should happen at once.
const patience = time.Minute

// until polls what another process does, for which there is no event.
func (r *run) until(what string, ok func() bool) {
	r.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("in vain waited for: %s", what)
		}
	}
}
