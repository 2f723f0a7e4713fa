// Package version says which version of Sealift a program is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"sealift/codec"
)

// released is for builds outside of a checkout, where the Go tool knows no
// version. The linker sets it:
//
//	go build -ldflags "-X sealift/internal/version.released=v1.2.3" ./cmd/...
var released string

// Number returns the version that the linker set, or else the module's as the Go
// tool recorded it, or else "(devel)".
func Number() string {
	if released != "" {
		return released
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// Line returns what program prints about itself, without a line end: its version,
// the protocol's, Go's, and the system that it was built for.
func Line(program string) string {
	return fmt.Sprintf("%s %s, protocol version %d, %s %s/%s",
		program, Number(), codec.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
