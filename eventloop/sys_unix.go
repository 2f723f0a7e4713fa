//go:build unix

package eventloop

import "golang.org/x/sys/unix"

// shutdownWrite sends a FIN and leaves the receiving side open.
func shutdownWrite(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) }

// OpenFileLimit is how many files the process may have open, 0 if unlimited.
// The Go runtime has raised it as far as it goes.
func OpenFileLimit() uint64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || uint64(l.Cur) > 1<<40 {
		return 0
	}
	return uint64(l.Cur)
}
