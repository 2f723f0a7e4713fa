package report

import (
	"errors"
	"image/color"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chart is how a scenario is drawn.
type chart struct {
	scenario, title, axis string
	of                    func(*Figure) float64
	x                     func(*Figure) float64 // lines over this; nil makes bars, one group for each case
	xAxis                 string
	dots                  bool // on a logarithmic axis, where values are orders apart
	cases                 func(string) bool
}

var charts = []chart{
	{scenario: "bulk", title: "Large files", axis: "GB/s", of: throughput},
	{scenario: "sessions", title: "Sessions: register, key, 1 KiB, verify", axis: "a second", of: perSecond,
		cases: func(c string) bool { return !strings.HasSuffix(c, "a second") }},
	{scenario: "mixed", title: "1 KiB files of 1,000 clients, 99th percentile", axis: "ms", of: p99, dots: true},
	{scenario: "active", title: "Connections that all send 16 KiB files", axis: "files a second", of: perSecond,
		x: func(f *Figure) float64 { return float64(f.Connections) }, xAxis: "connections"},
	{scenario: "sizes", title: "One connection, files of growing size", axis: "GB/s", of: throughput,
		x: func(f *Figure) float64 { return float64(f.FileSize) / (1 << 20) }, xAxis: "MiB"},
	{scenario: "idle", title: "Memory of an idle connection", axis: "KiB", of: idleKiB},
	{scenario: "endtoend", title: "One file of 1 GiB, disk to disk", axis: "GB/s", of: throughput},
	{scenario: "reconnect", title: "Sessions: reconnect, 1 KiB, verify", axis: "a second", of: perSecond},
}

// overview are the scenarios in the picture for the README, in two rows.
var overview = []string{"bulk", "sessions", "mixed", "active", "sizes", "idle"}

// colours of the peers, told apart also by those who see few colours (Okabe and
// Ito).
var colours = map[string]color.Color{
	"sealift":    color.RGBA{0, 114, 178, 255},
	"plain":      color.RGBA{240, 228, 66, 255},
	"goroutine":  color.RGBA{230, 159, 0, 255},
	"python":     color.RGBA{0, 158, 115, 255},
	"python-ram": color.RGBA{86, 180, 233, 255},
	"sftp":       color.RGBA{204, 121, 167, 255},
	"tusd":       color.RGBA{213, 94, 0, 255},
	"floor":      color.RGBA{170, 170, 170, 255},
}

// The size of one chart.
const (
	chartWidth  = 14 * vg.Centimeter
	chartHeight = 9 * vg.Centimeter
)

// Plot draws the run into dir, which it makes if it has to: each scenario, and
// an overview, as SVG and as PNG.
func Plot(dir string, run *Run) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var tiles []*plot.Plot
	for _, c := range charts {
		p, err := c.plot(run.Rows(c.scenario))
		if err != nil {
			return err
		}
		if p == nil {
			continue
		}
		if err := save(filepath.Join(dir, c.scenario), [][]*plot.Plot{{p}}); err != nil {
			return err
		}
		if slices.Contains(overview, c.scenario) {
			tiles = append(tiles, p)
		}
	}
	if len(tiles) < len(overview) {
		return nil
	}
	half := len(tiles) / 2
	return save(filepath.Join(dir, "overview"), [][]*plot.Plot{tiles[:half], tiles[half:]})
}

// plot draws the rows of a scenario; nil if there are none.
func (c *chart) plot(rows []Row) (*plot.Plot, error) {
	rows = slices.DeleteFunc(rows, func(r Row) bool { return r.Peer == earlier || c.cases != nil && !c.cases(r.Case) })
	if len(rows) == 0 {
		return nil, nil
	}
	var cases, peers []string
	for _, r := range rows {
		if !slices.Contains(cases, r.Case) {
			cases = append(cases, r.Case)
		}
		if !slices.Contains(peers, r.Peer) {
			peers = append(peers, r.Peer)
		}
	}
	p := plot.New()
	p.Title.Text, p.Y.Label.Text, p.X.Label.Text = c.title, c.axis, c.xAxis
	p.BackgroundColor = color.White
	p.Legend.Top = c.x == nil // lines leave room below
	p.Y.Tick.Marker = shortTicks{}
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = color.Gray{225}
	p.Add(grid)
	add := c.bars
	switch {
	case c.x != nil:
		add = c.lines
	case c.dots:
		add = c.points
	}
	for i, peer := range peers {
		if err := add(p, rows, cases, peer, i, len(peers)); err != nil {
			return nil, err
		}
	}
	switch {
	case c.x != nil:
		logarithmic(&p.X)
		p.Y.Min = 0
	case c.dots:
		logarithmic(&p.Y)
		p.NominalX(wrap(cases)...)
		p.X.Min, p.X.Max = -0.5, float64(len(cases))
		p.Y.Max *= 4 // room for the legend
	default:
		p.Y.Min = 0
		p.NominalX(wrap(cases)...)
	}
	if c.x == nil && !c.dots {
		p.Y.Max *= 1.1 + 0.06*float64(len(peers)) // room for the legend
	}
	return p, nil
}

// shortTicks are the default ones with labels like 2.5 and 5000.
type shortTicks struct{}

func (shortTicks) Ticks(from, to float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(from, to)
	for i := range ticks {
		if l := ticks[i].Label; strings.Contains(l, ".") {
			ticks[i].Label = strings.TrimRight(strings.TrimRight(l, "0"), ".")
		}
	}
	return ticks
}

// logarithmic makes an axis so. What is drawn must be positive; an axis of one
// value, or none, gets room to both sides of it.
func logarithmic(a *plot.Axis) {
	if a.Min > a.Max {
		a.Min, a.Max = 1, 1
	}
	if a.Min == a.Max {
		a.Min, a.Max = a.Min/2, a.Max*2
	}
	a.Scale, a.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
}

// wrap breaks labels that would run into each other.
func wrap(labels []string) []string {
	out := slices.Clone(labels)
	for i := range out {
		out[i] = strings.NewReplacer(", ", "\n", " in ", "\nin ").Replace(out[i])
	}
	return out
}

func (c *chart) bars(p *plot.Plot, rows []Row, cases []string, peer string, i, n int) error {
	values := make(plotter.Values, len(cases))
	for k, name := range cases {
		if r := find(rows, name, peer); r != nil {
			values[k] = r.Median(c.of)
		}
	}
	width := 0.75 * (chartWidth - 3*vg.Centimeter) / vg.Length(len(cases)*n)
	bars, err := plotter.NewBarChart(values, width)
	if err != nil {
		return err
	}
	bars.Color, bars.LineStyle.Width = colours[peer], 0
	bars.Offset = width * (vg.Length(i) - vg.Length(n-1)/2)
	p.Add(bars)
	p.Legend.Add(peer, bars)
	return nil
}

func (c *chart) lines(p *plot.Plot, rows []Row, cases []string, peer string, _, _ int) error {
	var points plotter.XYs
	for _, name := range cases {
		if r := find(rows, name, peer); r != nil {
			points = append(points, plotter.XY{X: r.Median(c.x), Y: r.Median(c.of)})
		}
	}
	line, dots, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	line.Color, line.Width = colours[peer], vg.Points(2)
	dots.Color, dots.Shape, dots.Radius = colours[peer], draw.CircleGlyph{}, vg.Points(3)
	p.Add(line, dots)
	p.Legend.Add(peer, line, dots)
	return nil
}

func (c *chart) points(p *plot.Plot, rows []Row, cases []string, peer string, i, n int) error {
	var points plotter.XYs
	for k, name := range cases {
		// Nothing but positive values has a place on a logarithmic axis.
		if r := find(rows, name, peer); r != nil && r.Median(c.of) > 0 {
			points = append(points, plotter.XY{X: float64(k) + 0.1*(float64(i)-float64(n-1)/2), Y: r.Median(c.of)})
		}
	}
	if len(points) == 0 {
		return nil
	}
	dots, err := plotter.NewScatter(points)
	if err != nil {
		return err
	}
	dots.Color, dots.Shape, dots.Radius = colours[peer], draw.CircleGlyph{}, vg.Points(6)
	p.Add(dots)
	p.Legend.Add(peer, dots)
	return nil
}

// save writes plots side by side, in rows of the same length, as path.svg and
// path.png.
func save(path string, plots [][]*plot.Plot) error {
	w, h := chartWidth*vg.Length(len(plots[0])), chartHeight*vg.Length(len(plots))
	svg := vgsvg.New(w, h)
	png := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(120), vgimg.UseBackgroundColor(color.White))}
	for _, to := range []struct {
		canvas interface {
			vg.CanvasSizer
			io.WriterTo
		}
		suffix string
	}{{svg, ".svg"}, {png, ".png"}} {
		tiles := draw.Tiles{
			Rows: len(plots), Cols: len(plots[0]),
			PadX: vg.Centimeter, PadY: vg.Centimeter,
			PadTop: vg.Points(8), PadBottom: vg.Points(8), PadLeft: vg.Points(8), PadRight: vg.Points(8),
		}
		canvases := plot.Align(plots, tiles, draw.New(to.canvas))
		for i := range plots {
			for j := range plots[i] {
				plots[i][j].Draw(canvases[i][j])
			}
		}
		f, err := os.Create(path + to.suffix)
		if err != nil {
			return err
		}
		_, err = to.canvas.WriteTo(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
