//go:build linux

package main

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if done, err := playRole(); done {
		if err != nil {
			fmt.Fprintln(os.Stderr, "Fatal error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestSoak runs every scenario once, in its short form.
func TestSoak(t *testing.T) {
	build(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			if s.parallel {
				t.Parallel()
			}
			s.run(newRun(t, s.name, false, seed))
		})
	}
}
