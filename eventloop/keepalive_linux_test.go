package eventloop

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A connection finds out within two minutes that its peer's machine is gone.
func TestKeepAlive(t *testing.T) {
	r := start(t, nil)
	b := r.rawPeer(r.raw(), "peer") // served, so it is in a loop
	defer b.Close()
	checked := make(chan struct{})
	r.each(func(c *conn) {
		defer close(checked)
		fd := c.gc.Fd()
		on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		if err != nil || on == 0 {
			t.Errorf("SO_KEEPALIVE %d, %v", on, err)
		}
		get := func(option int) int {
			n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, option)
			if err != nil {
				t.Error(err)
			}
			return n
		}
		idle, interval, count := get(unix.TCP_KEEPIDLE), get(unix.TCP_KEEPINTVL), get(unix.TCP_KEEPCNT)
		if after := idle + interval*count; after > 120 {
			t.Errorf("after %d s: %d s of silence and %d probes, one in %d s", after, idle, count, interval)
		}
	})
	<-checked
}
