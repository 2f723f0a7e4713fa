//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "soak looks into /proc and mounts file systems: it runs on Linux only")
	os.Exit(2)
}
