//go:build linux

package main

import (
	"os/exec"
	"path/filepath"
)

// sealiftd and sealift are the paths of the programs that are tested.
var sealiftd, sealift string

// build makes the programs, with the race detector if this one has it.
func build(t T) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "sealift/cmd/sealiftd", "sealift/cmd/sealift")...).CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	sealiftd, sealift = filepath.Join(dir, "sealiftd"), filepath.Join(dir, "sealift")
}
