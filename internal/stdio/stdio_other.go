//go:build !unix

// Package stdio tells of the standard streams what Go's runtime hides.
package stdio

import "os"

// WasClosed reports whether a standard stream was closed when the process began.
func WasClosed(f *os.File) bool {
	_, err := f.Stat()
	return err != nil
}
