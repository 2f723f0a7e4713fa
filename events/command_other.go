//go:build !unix

package events

import "os/exec"

// runGroup runs cmd. Where there are no process groups, its children live on.
func runGroup(cmd *exec.Cmd) error { return cmd.Run() }
