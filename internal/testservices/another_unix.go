//go:build unix

package testservices

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync"
	"syscall"
)

const (
	stopSignal  = syscall.SIGINT
	crashSignal = syscall.SIGQUIT
)

// another is the user as whom a program runs that root must not run: nil where we are not root.
var another = sync.OnceValue(func() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if errUID == nil && errGID == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	return nil
})

// asAnother has cmd run as a user who is not root.
func asAnother(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Credential = another()
	cmd.SysProcAttr.Setpgid = true // an interrupt from the terminal is for the test
}

// giveAway makes path that user's.
func giveAway(path string) error {
	if c := another(); c != nil {
		return os.Chown(path, int(c.Uid), int(c.Gid))
	}
	return nil
}
