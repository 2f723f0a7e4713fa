package report

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"text/tabwriter"
)

// reference is the peer that the others are compared with.
const reference = "sealift"

// earlier is the reference as it was at an earlier commit. The tables have it. The short table and
// the pictures, which are for those who compare it with others, do not.
const earlier = "before"

// column is a column of a table. Its unit stands in the second line of the head.
type column struct {
	head, unit string
	cell       func(row *Row, ref *Row) string // ref is nil where sealift did not run
}

// value makes a column of medians.
func value(head, unit, format string, of func(*Figure) float64) column {
	return column{head, unit, func(row, _ *Row) string { return fmt.Sprintf(format, row.Median(of)) }}
}

// ratio says how many times as much the reference has of what of returns, or,
// with less, how many times as little; unit says what that means.
func ratio(unit string, less bool, of func(*Figure) float64) column {
	return column{"sealift is", unit, func(row, ref *Row) string {
		if ref == nil || row.Peer == reference {
			return ""
		}
		q := ref.Median(of) / row.Median(of)
		if less {
			q = 1 / q
		}
		if math.IsNaN(q) || math.IsInf(q, 0) || q < 0 {
			return "-"
		}
		if q >= 10 {
			return fmt.Sprintf("%.0fx", q)
		}
		return fmt.Sprintf("%.2fx", q)
	}}
}

func spread(of func(*Figure) float64) column {
	return column{"spread", "", func(row, _ *Row) string {
		if len(row.Figures) < 2 {
			return ""
		}
		return fmt.Sprintf("%.0f%%", 100*row.Spread(of))
	}}
}

// What the columns show.
var (
	perSecond  = (*Figure).PerSecond
	throughput = (*Figure).GB

	serverPerGB = func(f *Figure) float64 { return 1e3 * f.Server.CPU / f.allGB() }
	clientPerGB = func(f *Figure) float64 { return 1e3 * f.Load.CPU * 1e9 / f.bytes() }
	serverPer   = func(f *Figure) float64 { return 1e6 * f.Server.CPU / float64(f.Load.Rounds) }
	clientPer   = func(f *Figure) float64 { return 1e6 * f.Load.CPU / float64(f.Load.Rounds) }
	peakMiB     = func(f *Figure) float64 { return float64(f.Server.Peak) / (1 << 20) }
	nowKiB      = func(f *Figure) float64 { now, _ := f.PerConnection(); return now / 1024 }
	idleKiB     = func(f *Figure) float64 { _, idle := f.PerConnection(); return idle / 1024 }
	idleCPU     = func(f *Figure) float64 { return 100 * f.Server.CPU / f.Load.Seconds }
	p50         = func(f *Figure) float64 { return f.Load.Latency.P50 }
	p99         = func(f *Figure) float64 { return f.Load.Latency.P99 }
	p999        = func(f *Figure) float64 { return f.Load.Latency.P999 }
	slowest     = func(f *Figure) float64 { return f.Load.Latency.Max }
	late99      = func(f *Figure) float64 { return f.Load.Late.P99 }
	missed      = func(f *Figure) float64 { return float64(f.Load.Missed) }
	background  = func(f *Figure) float64 {
		if f.Background == nil {
			return 0
		}
		return float64(f.Background.Bytes) / 1e9 / f.Background.Seconds
	}
)

// allGB is how many billion bytes the server received while the clock ran.
func (f *Figure) allGB() float64 { return f.GB() * f.Load.Seconds }

var columns = map[Table][]column{
	Throughput: {
		value("rate", "GB/s", "%.2f", throughput), ratio("as fast", false, throughput), spread(throughput),
		value("server CPU", "ms/GB", "%.0f", serverPerGB), value("peak", "MiB", "%.0f", peakMiB),
		value("clients' CPU", "ms/GB", "%.0f", clientPerGB),
	},
	Rate: {
		value("rate", "/s", "%.0f", perSecond), ratio("as fast", false, perSecond), spread(perSecond),
		value("p50", "ms", "%.2f", p50), value("p99", "ms", "%.2f", p99), value("p99.9", "ms", "%.1f", p999),
		value("server CPU", "µs each", "%.0f", serverPer), value("peak", "MiB", "%.0f", peakMiB),
		value("clients' CPU", "µs each", "%.0f", clientPer),
	},
	Latency: {
		value("p50", "ms", "%.2f", p50), value("p99", "ms", "%.2f", p99), ratio("as low", true, p99),
		value("p99.9", "ms", "%.1f", p999), value("max", "ms", "%.1f", slowest),
		value("served", "/s", "%.0f", perSecond), value("missed", "", "%.0f", missed),
		value("clients late, p99", "ms", "%.2f", late99), value("bulk", "GB/s", "%.2f", background), value("peak", "MiB", "%.0f", peakMiB),
	},
	Memory: {
		value("connection", "KiB", "%.1f", nowKiB), value("trimmed", "KiB", "%.1f", idleKiB), ratio("as low", true, idleKiB),
		value("idle CPU", "%", "%.1f", idleCPU), value("peak", "MiB", "%.0f", peakMiB),
	},
	Cores: {
		value("rate", "/s", "%.0f", perSecond), value("rate", "GB/s", "%.2f", throughput),
		ratio("as fast", false, perSecond), spread(perSecond), value("server CPU", "µs each", "%.0f", serverPer),
	},
}

// Print writes the tables of a run.
func Print(w io.Writer, run *Run) {
	m := &run.Machine
	fmt.Fprintf(w, "%s, %d cores, %s, %s, %s\n", m.Processor, m.Cores, m.Memory, m.System, m.FileSystem)
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		fmt.Fprintf(w, "%s: %s\n", name, m.Versions[name])
	}
	fmt.Fprintf(w, "bench %s: %s, %.0f s\n", run.Command, run.Began.Format("2006-01-02 15:04"), run.Took)
	for _, missing := range run.Missing {
		fmt.Fprintf(w, "not measured: %s\n", missing)
	}
	for _, s := range run.Scenarios {
		fmt.Fprintf(w, "\n%s: %s\n", s.Name, s.About)
		if s.Table == Parts {
			printParts(w, run.Parts)
		} else {
			printRows(w, run.Rows(s.Name), columns[s.Table])
		}
	}
}

func printRows(w io.Writer, rows []Row, cols []column) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer tw.Flush()
	// The two names are padded by hand, since a tabwriter aligns all columns to
	// the same side.
	wide, wideCase := len("peer"), len("case")
	for _, row := range rows {
		wide, wideCase = max(wide, len(row.Peer)), max(wideCase, len(row.Case))
	}
	line := func(name, peer string, cell func(column) string) {
		fmt.Fprintf(tw, "  %-*s  %-*s\t", wideCase, name, wide, peer)
		for _, c := range cols {
			fmt.Fprintf(tw, "%s\t", cell(c))
		}
		fmt.Fprintln(tw)
	}
	line("case", "peer", func(c column) string { return c.head })
	line("", "", func(c column) string { return c.unit })
	last := ""
	for _, row := range rows {
		name := row.Case
		if name == last {
			name = ""
		}
		last = row.Case
		line(name, row.Peer, func(c column) string { return c.cell(&row, find(rows, row.Case, reference)) })
	}
}

func printParts(w io.Writer, parts []Part) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer tw.Flush()
	fmt.Fprintln(tw, "  part\ta second\tCPU for one\tmeasured as")
	for _, p := range parts {
		rate, cpu := fmt.Sprintf("%.2f %s", p.Rate, p.Unit), fmt.Sprintf("%.0f ms", 1e3*p.CPU)
		if p.Unit != "GB" {
			rate, cpu = fmt.Sprintf("%.0f", p.Rate), fmt.Sprintf("%.1f µs", 1e6*p.CPU)
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\n", p.Name, rate, cpu, p.About)
	}
}
