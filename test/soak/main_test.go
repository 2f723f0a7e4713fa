//go:build linux

// Package soak puts real servers under load, faults and hostile input over
// loopback, and checks that they lose nothing, grow within their bounds and
// recover. Each scenario is a test in a file of its name, which is also its name in
// docs/SECURITY.md, and logs the figures that it saw:
//
//	go test ./test/soak                                          every scenario, small
//	go test -v ./test/soak -run 'TestKill|TestCut' -seed 7
//	go test -v ./test/soak -full -count 5 -timeout 0             in full size, five times
//	SEALIFT_TEST_TLS=1 go test ./test/soak                       the same over TLS
package soak

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
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
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(status)
}

// sealiftd and sealift are the paths of the programs that are tested, in the
// folder built.
var sealiftd, sealift, built string

// build makes the programs, with the race detector if the tests have it.
var build = sync.OnceValue(func() (err error) {
	if built, err = os.MkdirTemp("", "sealift-soak-"); err != nil {
		return err
	}
	args := []string{"build", "-o", built + string(filepath.Separator)}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "sealift/cmd/sealiftd", "sealift/cmd/sealift")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	sealiftd, sealift = filepath.Join(built, "sealiftd"), filepath.Join(built, "sealift")
	return nil
})

// run is one run of a scenario.
type run struct {
	*testing.T
	seed uint64
	rng  *rand.Rand // of the scenario's own goroutine
}

// newRun begins a scenario.
func newRun(t *testing.T) *run {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	return &run{T: t, seed: s, rng: rand.New(rand.NewPCG(s, 1))}
}

// size is how much of something a run does, in small or in full. Under the race
// detector, where everything takes ten times as long, it is a tenth.
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

// step is how many places a run goes on at a time, where one in full size visits
// all.
func (r *run) step(small int) int {
	switch {
	case raceEnabled:
		return 5 * small
	case *full:
		return 1
	}
	return small
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
