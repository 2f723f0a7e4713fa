//go:build unix

package client

import "syscall"

// dontWait opens a FIFO without waiting for its other end. It changes nothing
// for a regular file.
const dontWait = syscall.O_NONBLOCK
