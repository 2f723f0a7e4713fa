//go:build !linux

package eventloop

// canPause is whether a connection can be paused, and lent, on this system.
const canPause = false

// poller cannot pause connections on this system.
type poller struct{ disabled bool }

func (*poller) works() bool               { return false }
func (*poller) find(int)                  {}
func (*poller) arm(int, bool, bool) error { return nil }

func (*poller) take(int) error { return nil }
func (*poller) put(int) error  { return nil }

// readBuffer is how much gnet reads at a time, in bytes.
const readBuffer = 64 << 10

// readv reads nothing: all that comes goes through gnet.
func readv(int, []byte, []byte) int { return 0 }

// read is not called: no connection is lent.
func read(int, []byte) int { return 0 }

// peek and skip are not called either.
func peek(int, []byte) int { return 0 }
func skip(int, []byte)     {}
