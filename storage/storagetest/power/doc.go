// Package power shows tests what a disk would hold after a power cut: of each
// file what was synced, and of the rest any part. It also makes syncs fail, as
// the kernel does: a sync that failed is reported once, what it was to write is
// lost, and the next one succeeds without it.
package power
