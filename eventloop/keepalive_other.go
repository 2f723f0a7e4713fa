//go:build !linux

package eventloop

import "net"

// setKeepAlive has the connections of a listener find out when their peer's machine is
// gone.
func setKeepAlive(lc *net.ListenConfig, c net.KeepAliveConfig) { lc.KeepAliveConfig = c }
