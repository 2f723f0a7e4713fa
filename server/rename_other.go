//go:build !linux

package server

// renameNew moves a file to a place that must be free: fs.ErrExist if it is not.
func renameNew(m move) error { return renameByPath(m) }
