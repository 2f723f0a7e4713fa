//go:build !linux && !darwin

package bootid

func id() string { return "" }
