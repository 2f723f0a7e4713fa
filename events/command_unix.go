//go:build unix

package events

import (
	"os/exec"
	"syscall"
)

// runGroup runs cmd in a process group of its own, and kills what is left of that at its end.
func runGroup(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = kill
	if err := cmd.Start(); err != nil {
		return err
	}
	if awaitEnd(cmd.Process.Pid) {
		_ = kill() // its number is taken until Wait: no other group has it
		return cmd.Wait()
	}
	err := cmd.Wait()
	_ = kill()
	return err
}
