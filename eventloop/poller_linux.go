package eventloop

import "golang.org/x/sys/unix"

// canPause is whether a connection can be paused, and lent, on this system.
const canPause = true

// poller is the epoll of a loop. gnet has no way to stop reading from a
// connection, so this does it behind its back: on the loop's goroutine, and for
// open connections only.
type poller struct {
	fd       int // 0: not looked for yet, -1: not to be found
	disabled bool
}

// works reports whether connections of the loop can be paused.
func (p *poller) works() bool { return p.fd > 0 && !p.disabled }

// maxSought is the descriptors among which find looks. The epolls of the loops are among
// the first ones of the process.
const maxSought = 1 << 16

// find looks for the epoll that watches connection conn, once for each loop. It is the
// only descriptor that the kernel lets change what it watches of conn: here, to what
// it watches already.
func (p *poller) find(conn int) {
	if p.fd != 0 {
		return
	}
	for p.fd = 1; p.fd < maxSought; p.fd++ {
		if p.arm(conn, true, false) == nil {
			return
		}
	}
	p.fd = -1
}

// arm says what the loop is woken for: bytes to read, and room to write.
func (p *poller) arm(conn int, read, write bool) error {
	ev := unix.EpollEvent{Fd: int32(conn)}
	if read {
		ev.Events |= unix.EPOLLIN | unix.EPOLLPRI
	}
	if write {
		ev.Events |= unix.EPOLLOUT
	}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, conn, &ev)
}

// take takes a connection out of the loop's epoll. Until put, neither what comes nor
// the end of the connection reaches gnet, so it does not close the descriptor.
func (p *poller) take(conn int) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, conn, nil)
}

// put is the end of take: the loop is woken for bytes to read.
func (p *poller) put(conn int) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, conn,
		&unix.EpollEvent{Fd: int32(conn), Events: unix.EPOLLIN | unix.EPOLLPRI})
}

// readBuffer is how much gnet reads at a time, in bytes. It need not be much:
// only what comes first after a wait is read by gnet and copied.
const readBuffer = 16 << 10

// readv reads into a, and into b once a is full. It returns 0 or less if there
// is nothing to read now.
func readv(fd int, a, b []byte) int {
	n, _ := unix.Readv(fd, [][]byte{a, b})
	return n
}

// read reads into p. It returns 0 or less if there is nothing to read now.
func read(fd int, p []byte) int {
	n, _ := unix.Read(fd, p)
	return n
}

// peek is read, but what it reads stays in the socket, until skip.
func peek(fd int, p []byte) int {
	n, _, _ := unix.Recvfrom(fd, p, unix.MSG_PEEK)
	return n
}

// skip takes from the socket what peek has read. It does not write to p (tcp(7),
// MSG_TRUNC).
func skip(fd int, p []byte) { _, _, _ = unix.Recvfrom(fd, p, unix.MSG_TRUNC) }
