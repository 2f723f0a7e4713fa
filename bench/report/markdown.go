package report

import (
	"fmt"
	"io"
	"slices"
)

// digest is a line of the short table.
type digest struct {
	what           string
	scenario, kase string
	unit           string // behind sealift's figure, with the verb that formats it
	less           bool   // less of it is better
	of             func(*Figure) float64
}

var digests = []digest{
	{"large files, 1 connection", "bulk", "1 x 1 GiB", "%.2f GB/s", false, throughput},
	{"large files, 4 connections", "bulk", "4 x 256 MiB", "%.2f GB/s", false, throughput},
	{"large files, 64 connections", "bulk", "64 x 16 MiB", "%.2f GB/s", false, throughput},
	{"server's processor time for 1 GB", "bulk", "1 x 1 GiB", "%.0f ms", true, serverPerGB},
	{"one file, disk to disk, programs at both ends", "endtoend", "1 x 1 GiB", "%.2f GB/s", false, throughput},
	{"sessions, durable", "sessions", "durable, 128 at a time", "%.0f/s", false, perSecond},
	{"sessions, `--fsync off`", "sessions", "fsync off, 128 at a time", "%.0f/s", false, perSecond},
	{"reconnects, durable", "reconnect", "durable, 128 at a time", "%.0f/s", false, perSecond},
	{"16 KiB files over 1 connection", "active", "1 connections", "%.0f/s", false, perSecond},
	{"16 KiB files over 1,000", "active", "1000 connections", "%.0f/s", false, perSecond},
	{"16 KiB files over 10,000", "active", "10000 connections", "%.0f/s", false, perSecond},
	{"99th percentile of 1 KiB files beside large ones", "mixed", "beside bulk", "%.0f ms", true, p99},
	{"memory of an idle connection", "idle", "10000 connections", "%.1f KiB", true, idleKiB},
}

// PrintMarkdown writes the short table of a run for the README: what the
// reference reached, and how many times better that is than each other peer.
func PrintMarkdown(w io.Writer, run *Run) {
	var peers []string
	for _, f := range run.Figures {
		if f.Peer != reference && f.Peer != earlier && !slices.Contains(peers, f.Peer) && f.Scenario == "bulk" {
			peers = append(peers, f.Peer)
		}
	}
	fmt.Fprintf(w, "| | %s |", reference)
	for _, p := range peers {
		fmt.Fprintf(w, " as against %s |", p)
	}
	fmt.Fprint(w, "\n|---|---:|")
	for range peers {
		fmt.Fprint(w, "---:|")
	}
	fmt.Fprintln(w)
	for _, d := range digests {
		rows := run.Rows(d.scenario)
		ref := find(rows, d.kase, reference)
		if ref == nil {
			continue
		}
		fmt.Fprintf(w, "| %s | "+d.unit+" |", d.what, ref.Median(d.of))
		quotient := ratio("", d.less, d.of).cell
		for _, p := range peers {
			if row := find(rows, d.kase, p); row != nil {
				fmt.Fprintf(w, " %s |", quotient(row, ref))
			} else {
				fmt.Fprint(w, " |")
			}
		}
		fmt.Fprintln(w)
	}
}
