package client

import "errors"

// Temporary reports whether what failed may succeed later without anybody's
// doing: the server was out of reach, or answered 1607.
func Temporary(err error) bool { return errors.Is(err, ErrConnection) || errors.Is(err, ErrServer) }
