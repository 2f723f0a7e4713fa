package eventloop

import (
	"fmt"
	"math"
)

// Descriptors is how the open files of the process are shared out.
type Descriptors struct {
	Connections int // at most so many are served
	Files       int // uploads may keep so many files open
	Most        int // connections that there would be room for beside these files
}

// maxRefused is how many connections beyond the limit may wait at a time for
// their 1607 to reach them; more are closed as soon as it is sent.
const maxRefused = 16

// ShareDescriptors divides the limit of open files (0: none) between connections, at
// most wanted, and files that uploads keep open. What loops, workers and registry need
// is set aside first.
func ShareDescriptors(limit uint64, wanted, loops, workers int) (Descriptors, error) {
	const most = 1024 // files: more would save less than opening a file again costs
	if limit == 0 || limit > 1<<30 {
		return Descriptors{Connections: wanted, Files: most, Most: math.MaxInt}, nil
	}
	// A loop has an epoll and an eventfd; a worker may open a file, its directory
	// and its parent; the acceptor has the listener, a spare, one connection that
	// it has just accepted, and a second descriptor for each that it hands over.
	aside := 24 + 2*loops + 3*workers + 3 + maxEnrolling + maxRefused + maxEvicting
	rest := int(limit) - aside
	if rest < 8 {
		return Descriptors{}, fmt.Errorf("the limit of %d open files is too low: %d loops and %d workers need %d", limit, loops, workers, aside+8)
	}
	d := Descriptors{Files: min(rest/8, most)}
	d.Connections = rest - d.Files
	if wanted < d.Connections {
		d.Connections = wanted
		d.Files = min(rest-wanted, most)
	}
	d.Most = rest - d.Files
	return d, nil
}
