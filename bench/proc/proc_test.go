//go:build linux

package proc

import (
	"os/exec"
	"testing"
	"time"
)

func TestTreeCountsDescendants(t *testing.T) {
	// A shell whose child burns processor time, then one that has ended, whose
	// time must not be lost.
	cmd := exec.Command("sh", "-c", `sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo done; read x`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	u, err := Tree(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // read fails at the end of its input
	whole := (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	const tick = 2 * time.Second / ticks
	if u.CPU <= 0 || u.CPU > whole+2*tick.Seconds() || u.CPU < whole-4*tick.Seconds() {
		t.Errorf("CPU is %.3f s, and wait(2) says %.3f s", u.CPU, whole)
	}
	if u.RSS <= 0 || u.Peak < u.RSS {
		t.Errorf("RSS %d, peak %d", u.RSS, u.Peak)
	}
}
