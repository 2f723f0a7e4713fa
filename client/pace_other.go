//go:build !linux

package client

import "net"

// unacknowledged cannot be told here.
func unacknowledged(net.Conn) (n int, ok bool) { return 0, false }
