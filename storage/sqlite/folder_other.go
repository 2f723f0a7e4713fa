//go:build !unix

package sqlite

import "errors"

// lookAtFolder would look at a folder. Windows does not always write the time of a
// change at once.
func lookAtFolder(string) (folder, error) { return folder{}, errors.ErrUnsupported }
