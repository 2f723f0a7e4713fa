package client

import "time"

const (
	// ackPatience is how long a paced packet waits for the peer's TCP to
	// acknowledge it. A server that reads nothing for so long gets the next one.
	ackPatience = 5 * time.Second
	// The first and the longest wait between two looks at what is acknowledged.
	ackLook, maxAckLook = 50 * time.Microsecond, 2 * time.Millisecond
)

// pace waits until the peer's TCP has acknowledged what was written, where the
// system can tell, and then for the pause: so a server that reads once finds
// one message. It returns early when the connection is closed.
func (c *conn) pace(pause time.Duration) {
	if pause <= 0 {
		return
	}
	look := ackLook
	for began := time.Now(); time.Since(began) < ackPatience; look = min(2*look, maxAckLook) {
		if n, ok := unacknowledged(c.nc); !ok || n == 0 || !c.sleep(look) {
			break
		}
	}
	c.sleep(pause)
}

// sleep reports whether the connection is still open after d.
func (c *conn) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.done:
		return false
	}
}
