package testservices

import (
	"os/exec"
	"syscall"
)

// endWithUs has cmd end when this process does, however that ends. SysProcAttr is set.
//
// The signal comes when the thread ends that started cmd, not the process: Go ends a thread
// only with a goroutine that stays locked to it.
func endWithUs(cmd *exec.Cmd) { cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT }
