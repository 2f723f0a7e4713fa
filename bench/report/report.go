// Package report keeps the figures of a benchmark run, prints them as tables and
// draws them.
//
// A [Run] in JSON, as `bench --json` writes it, has all of the figures: one for
// each turn of each peer. Tables and pictures show the medians over the turns.
package report

import (
	"fmt"
	"slices"
	"time"

	"sealift/bench/load"
)

// Run is all that one call of the benchmark found out.
type Run struct {
	Command   string     `json:"command"` // its arguments
	Began     time.Time  `json:"began"`
	Took      float64    `json:"took"` // seconds
	Machine   Machine    `json:"machine"`
	Missing   []string   `json:"missing,omitempty"` // peers that could not be run, and why
	Scenarios []Scenario `json:"scenarios"`         // in the order in which they ran
	Figures   []Figure   `json:"figures"`
	Parts     []Part     `json:"parts,omitempty"`
}

// Machine is what a run was made on.
type Machine struct {
	Processor  string            `json:"processor"`
	Cores      int               `json:"cores"`
	Memory     string            `json:"memory"`
	System     string            `json:"system"`
	FileSystem string            `json:"file_system"` // that the servers write to
	Versions   map[string]string `json:"versions"`
}

// Table says which columns tell the most about a scenario.
type Table string

// The tables.
const (
	Throughput Table = "throughput"
	Rate       Table = "rate"
	Latency    Table = "latency"
	Memory     Table = "memory"
	Cores      Table = "cores"
	Parts      Table = "parts"
)

// Scenario names what figures belong together.
type Scenario struct {
	Name  string `json:"name"`
	About string `json:"about"`
	Table Table  `json:"table"`
}

// Figure is one turn of one peer.
type Figure struct {
	Scenario string `json:"scenario"`
	Case     string `json:"case"`
	Peer     string `json:"peer"`
	Round    int    `json:"round"`

	Connections int     `json:"connections"`
	FileSize    int64   `json:"file_size"` // bytes
	Fsync       bool    `json:"fsync"`
	Procs       int     `json:"procs,omitempty"` // GOMAXPROCS of the server, 0: all cores
	Rate        float64 `json:"rate,omitempty"`  // asked for, a second; 0: as fast as it goes

	Load       load.Result  `json:"load"` // what the clients saw, and cost
	Background *load.Result `json:"background,omitempty"`
	Server     Server       `json:"server"`
}

// Server is what a server cost, its child processes included, by /proc.
type Server struct {
	CPU      float64 `json:"cpu"`       // seconds of processor time while the clock ran
	RSSEmpty int64   `json:"rss_empty"` // bytes of memory before the first connection
	RSS      int64   `json:"rss"`       // with the connections of the load
	RSSIdle  int64   `json:"rss_idle"`  // the same when a server in Go has given back what it does not use
	Peak     int64   `json:"peak"`      // at most, until the clock stopped
}

// Part is the cost of one part of the work, alone on the machine.
type Part struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`  // what is counted: "GB", or an operation
	Rate  float64 `json:"rate"`  // units a second
	CPU   float64 `json:"cpu"`   // seconds of processor time for a unit
	About string  `json:"about"` // how it was measured
}

// GB is how many billion bytes a second were uploaded, those in the background
// included.
func (f *Figure) GB() float64 {
	gb := f.bytes() / 1e9 / f.Load.Seconds
	if f.Background != nil {
		gb += float64(f.Background.Bytes) / 1e9 / f.Background.Seconds
	}
	return gb
}

func (f *Figure) bytes() float64 { return float64(f.Load.Bytes) }

// PerSecond is how many rounds of the load ended in a second.
func (f *Figure) PerSecond() float64 { return float64(f.Load.Rounds) / f.Load.Seconds }

// PerConnection is how many bytes of memory a connection costs: first as the
// server has it, then without what it would give back.
func (f *Figure) PerConnection() (now, idle float64) {
	n := float64(f.Connections)
	return float64(f.Server.RSS-f.Server.RSSEmpty) / n, float64(f.Server.RSSIdle-f.Server.RSSEmpty) / n
}

// Brief is a figure in a few words, for one who waits.
func (f *Figure) Brief() string {
	return fmt.Sprintf("%9.1f /s  %6.3f GB/s  p99 %8.2f ms  server %5.2f s CPU, %4d MiB  clients %5.2f s CPU",
		f.PerSecond(), f.GB(), f.Load.Latency.P99, f.Server.CPU, f.Server.Peak>>20, f.Load.CPU)
}

// Row is a peer in a case: its figures over all rounds.
type Row struct {
	Case, Peer string
	Figures    []Figure
}

// Rows are those of a scenario, in the order of their first turns.
func (r *Run) Rows(scenario string) []Row {
	var rows []Row
	for _, f := range r.Figures {
		if f.Scenario != scenario {
			continue
		}
		i := slices.IndexFunc(rows, func(row Row) bool { return row.Case == f.Case && row.Peer == f.Peer })
		if i < 0 {
			i = len(rows)
			rows = append(rows, Row{Case: f.Case, Peer: f.Peer})
		}
		rows[i].Figures = append(rows[i].Figures, f)
	}
	// Those of a case side by side; peers take turns, so they are already in
	// their order.
	var cases []string
	for _, row := range rows {
		if !slices.Contains(cases, row.Case) {
			cases = append(cases, row.Case)
		}
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return slices.Index(cases, a.Case) - slices.Index(cases, b.Case) })
	return rows
}

// Median is the median of what of returns for each round.
func (r *Row) Median(of func(*Figure) float64) float64 {
	values := make([]float64, len(r.Figures))
	for i := range r.Figures {
		values[i] = of(&r.Figures[i])
	}
	slices.Sort(values)
	n := len(values)
	if n%2 == 1 {
		return values[n/2]
	}
	return (values[n/2-1] + values[n/2]) / 2
}

// Spread is how far the rounds are apart: the largest value over the smallest,
// less one.
func (r *Row) Spread(of func(*Figure) float64) float64 {
	least, most := of(&r.Figures[0]), of(&r.Figures[0])
	for i := range r.Figures {
		least, most = min(least, of(&r.Figures[i])), max(most, of(&r.Figures[i]))
	}
	if least <= 0 {
		return 0
	}
	return most/least - 1
}

// find is the row of a peer in a case.
func find(rows []Row, kase, peer string) *Row {
	for i := range rows {
		if rows[i].Case == kase && rows[i].Peer == peer {
			return &rows[i]
		}
	}
	return nil
}
