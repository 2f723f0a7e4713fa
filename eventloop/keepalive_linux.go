package eventloop

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// setKeepAlive has the connections of a listener find out when their peer's machine is
// gone. The kernel gives each the options of the socket that it was accepted from: four
// system calls for the listener instead of four for each connection.
func setKeepAlive(lc *net.ListenConfig, c net.KeepAliveConfig) {
	lc.KeepAlive = -1 // nothing more for each connection
	lc.Control = func(_, _ string, raw syscall.RawConn) (err error) {
		if e := raw.Control(func(fd uintptr) {
			set := func(level, option, value int) error { return unix.SetsockoptInt(int(fd), level, option, value) }
			err = errors.Join(
				set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
				set(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(c.Idle.Seconds())),
				set(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(c.Interval.Seconds())),
				set(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, c.Count))
		}); e != nil {
			return e
		}
		return err
	}
}
