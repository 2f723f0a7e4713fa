package client

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unacknowledged returns how many bytes of what was written to nc the peer's
// TCP has not acknowledged yet. ok is false where that cannot be told.
func unacknowledged(nc net.Conn) (n int, ok bool) {
	if p, ok := nc.(*protected); ok {
		nc = p.NetConn()
	}
	sc, isSocket := nc.(syscall.Conn)
	if !isSocket {
		return 0, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, false
	}
	var ioctlErr error
	if err := raw.Control(func(fd uintptr) { n, ioctlErr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil || ioctlErr != nil {
		return 0, false
	}
	return n, true
}
