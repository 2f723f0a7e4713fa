//go:build purego || (!amd64 && !arm64)

package aescbc

// kernels returns what this machine can run, the fastest first.
func kernels() []kernel { return []kernel{portable} }
