package eventloop

import "errors"

// shutdownWrite is not to be had: gnet keeps the socket to itself.
func shutdownWrite(int) error { return errors.ErrUnsupported }

// OpenFileLimit is 0: handles are not limited.
func OpenFileLimit() uint64 { return 0 }
