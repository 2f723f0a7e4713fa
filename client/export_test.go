package client

import "time"

// Impatient makes a client wait for nobody: for a reply before it asks others, for
// their replies, for the first file. A notice comes at once. The returned
// function makes it patient again.
func Impatient() (restore func()) {
	all := []*time.Duration{&patience, &suspicion, &strangerPatience, &probePatience, &firstSilence, &askPatience}
	var old []time.Duration
	for _, d := range all {
		old = append(old, *d)
		*d = 300 * time.Millisecond
	}
	patience, suspicion = 0, 20*time.Millisecond
	return func() {
		for i, d := range all {
			*d = old[i]
		}
	}
}

// Segments has a transfer carry most bytes of a file, and segment of one that is
// larger. The returned function undoes that.
func Segments(most, segment int64) (restore func()) {
	m, s := maxTransfer, segmentSize
	maxTransfer, segmentSize = most, segment
	return func() { maxTransfer, segmentSize = m, s }
}
