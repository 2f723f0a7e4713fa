package client

import "time"

// Impatient makes a client wait for nobody: for a reply before it asks others, for
// their replies, for the first file. A notice comes at once. The returned
// function makes it patient again.
func Impatient() (restore func()) {
	old := [...]time.Duration{patience, suspicion, probePatience, firstSilence}
	patience, suspicion, probePatience, firstSilence = 0, 20*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
	return func() { patience, suspicion, probePatience, firstSilence = old[0], old[1], old[2], old[3] }
}
