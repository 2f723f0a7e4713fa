// Package bootid tells one boot of the machine from another: what a process wrote before it
// was killed is still there in the next process of the same boot, and after another boot only
// what was synced is.
package bootid

// ID names the boot of the machine. It is "" where the system does not say.
func ID() string { return id() }
