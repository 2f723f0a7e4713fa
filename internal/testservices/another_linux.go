package testservices

import (
	"os/exec"
	"syscall"
)

// endWithUs has cmd get a signal when this process ends, however that ends. SysProcAttr is set.
//
// The signal comes when the thread ends that started cmd, not the process: Go ends a thread
// only with a goroutine that stays locked to it.
func endWithUs(cmd *exec.Cmd, s syscall.Signal) { cmd.SysProcAttr.Pdeathsig = s }
