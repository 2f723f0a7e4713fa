//go:build !unix

package main

import "os"

// wasClosed reports whether a standard stream was closed when the process began.
func wasClosed(f *os.File) bool {
	_, err := f.Stat()
	return err != nil
}
