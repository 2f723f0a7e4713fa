//go:build linux

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// An earlier commit is built and measured beside sealift, in the cases that have
// sealift.
func TestBefore(t *testing.T) {
	commit, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil {
		t.Skip("not in a checkout of git: ", err)
	}
	o := options{rounds: 1, logLevel: "error", tiny: true, kase: "256 MiB", peers: []string{"sealift", "floor"}, before: strings.TrimSpace(string(commit))}
	h, _ := harnessFor(t, o)
	if err := h.runAll(t.Context(), scenarios[:1]); err != nil {
		t.Fatal(err)
	}
	var measured []string
	for _, r := range h.run.Rows(scenarios[0].name) {
		measured = append(measured, r.Peer)
	}
	if got := strings.Join(measured, " "); got != "sealift before floor" {
		t.Errorf("measured: %s", got)
	}
	h, _ = harnessFor(t, options{rounds: 1, tiny: true, before: "no-such-commit"})
	if err := h.runAll(t.Context(), scenarios[:1]); err == nil || !strings.HasPrefix(err.Error(), "--before no-such-commit: git archive: ") {
		t.Errorf("with a commit that does not exist: %v", err)
	}
}

// The server of an earlier commit is started with the flags that it knows: what came later is passed
// where it is asked for.
func TestFlagsOfEarlierServers(t *testing.T) {
	for _, arg := range (serverOptions{dir: "d", fsync: true, connections: 1, logLevel: "warn"}).args("sealift") {
		name, _, _ := strings.Cut(arg, "=")
		switch name {
		case "--dir", "--fsync", "--connections", "--log-level", "--fault":
		default:
			if strings.HasPrefix(name, "--") {
				t.Errorf("%s is passed in any case, and c777328 does not know it", name)
			}
		}
	}
}
