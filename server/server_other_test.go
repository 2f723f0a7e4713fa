//go:build !linux

package server

import "testing"

// descriptors cannot be counted here: it is always the same.
func descriptors(*testing.T) int { return 0 }
