// Package bars draws progress bars below the lines of text of a terminal.
package bars

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// frame is how often the bars are drawn: often enough to look alive.
const frame = 150 * time.Millisecond

// Screen is a terminal, or a file in the place of one, that lines are written
// to. Bars are drawn below them where it is a terminal that can. All methods may
// be called from any goroutine.
type Screen struct {
	f    *os.File
	able bool

	mu     sync.Mutex
	p      *mpb.Progress // nil while there are no bars
	bars   []*Bar
	redraw chan any      // has mpb draw everything anew
	stop   chan struct{} // ends the goroutine that draws now and then
}

// New returns a Screen on f. There will be no bars if f is no terminal, if
// TERM says that it cannot move its cursor, or where CI says that it is a log.
func New(f *os.File) *Screen { return &Screen{f: f, able: able(f)} }

func able(f *os.File) bool {
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return false
	}
	if width, _, err := term.GetSize(fd); err != nil || width <= 0 {
		return false
	}
	switch os.Getenv("CI") {
	case "", "0", "false":
	default:
		return false
	}
	kind := os.Getenv("TERM")
	return kind != "dumb" && (kind != "" || runtime.GOOS == "windows")
}

// Write writes whole lines, above the bars if there are any.
func (s *Screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p != nil {
		if n, err := s.p.Write(b); err == nil {
			s.draw()
			return n, nil
		}
	}
	return s.f.Write(b)
}

// Drawing reports whether there are bars.
func (s *Screen) Drawing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.p != nil
}

// Stop takes all bars off the screen. What was written is on it when Stop
// returns.
func (s *Screen) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p == nil {
		return
	}
	close(s.stop)
	for _, b := range s.bars {
		b.bar.Abort(true)
	}
	// The first time shows them for the last time.
	s.draw()
	s.draw()
	s.p.Shutdown()
	s.p, s.bars = nil, nil
}

// draw draws the bars as they are now. The caller holds mu, and there are bars.
func (s *Screen) draw() {
	for _, b := range s.bars {
		b.mu.Lock()
		done, total := b.done, b.total
		b.mu.Unlock()
		b.bar.SetTotal(total, false)
		b.bar.SetCurrent(done)
	}
	s.redraw <- time.Now()
}

// Bar is one line. A nil Bar draws nothing.
type Bar struct {
	bar   *mpb.Bar
	began time.Time

	mu          sync.Mutex
	label       string
	done, total int64
	skipped     int64  // of done, without taking time
	tail        string // of the line that is being drawn
}

// Add returns a new bar below the others, or nil where there are none. With
// rate it shows bytes a second and the time left.
func (s *Screen) Add(label string, rate bool) *Bar { return s.add(label, rate, 0) }

// AddLast is Add for a bar that stays below those that come later.
func (s *Screen) AddLast(label string, rate bool) *Bar { return s.add(label, rate, 1<<30) }

func (s *Screen) add(label string, rate bool, priority int) *Bar {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.able {
		return nil
	}
	if s.p == nil {
		s.start()
	}
	b := &Bar{label: label, began: time.Now()}
	options := []mpb.BarOption{
		mpb.BarFillerTrim(),
		mpb.BarFillerMiddleware(roomy),
		mpb.PrependDecorators(decor.Any(func(st decor.Statistics) string { return b.head(st, rate) })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return b.tail })),
	}
	if priority > 0 {
		options = append(options, mpb.BarPriority(priority))
	}
	// Without a total at its birth a bar ends only when it is told to: a file that
	// is whole may begin anew.
	b.bar = s.p.New(0, mpb.BarStyle(), options...)
	s.bars = append(slices.DeleteFunc(s.bars, func(b *Bar) bool { return b.bar.AbortedOrCompleted() }), b)
	return b
}

// start begins to draw. The caller holds mu.
func (s *Screen) start() {
	s.redraw, s.stop = make(chan any), make(chan struct{})
	s.p = mpb.New(mpb.WithOutput(s.f), mpb.WithManualRefresh(s.redraw))
	go func(stop <-chan struct{}) {
		tick := time.NewTicker(frame)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.mu.Lock()
				select {
				case <-stop:
				default:
					s.draw()
				}
				s.mu.Unlock()
			case <-stop:
				return
			}
		}
	}(s.stop)
}

// Label changes what stands before the bar. It must be printable.
func (b *Bar) Label(label string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.label = label
}

// Set shows that done of total bytes are through; total 0: nobody knows of how
// many.
func (b *Bar) Set(done, total int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done, b.total = done, total
}

// Skip says that n bytes more were through from the beginning: they do not count for the
// rate.
func (b *Bar) Skip(n int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.skipped += n
}

// Remove takes the bar off the screen.
func (b *Bar) Remove() {
	if b != nil {
		b.bar.Abort(true)
	}
}

// The fewest columns that a label and a bar are worth.
const minLabel, minBar = 16, 10

// head returns the label of a line of st.AvailableWidth columns, and prepares
// its tail: as much as there is room for.
func (b *Bar) head(st decor.Statistics, rate bool) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	width := st.AvailableWidth - 1 // some terminals begin a new line after the last column
	tails := b.tails(st, rate)
	for _, b.tail = range tails {
		if runewidth.StringWidth(b.tail)+min(minLabel, runewidth.StringWidth(b.label)) <= width {
			break
		}
	}
	room := max(width-runewidth.StringWidth(b.tail), 0)
	if room >= 2*minBar { // then there is a bar, too
		room = max(room/2, room-40)
	}
	return runewidth.Truncate(b.label, room, "…")
}

// tails returns what may stand behind a bar, the longest first.
func (b *Bar) tails(st decor.Statistics, rate bool) []string {
	done := humanize.Bytes(uint64(max(st.Current, 0)))
	speed, left := "", ""
	if elapsed := time.Since(b.began); rate && elapsed > time.Second && st.Current > b.skipped {
		perSecond := float64(st.Current-b.skipped) / elapsed.Seconds()
		speed = fmt.Sprintf("  %s/s", humanize.Bytes(uint64(perSecond)))
		if st.Total > 0 {
			left = fmt.Sprintf("  %v left", time.Duration(float64(st.Total-st.Current)/perSecond*float64(time.Second)).Round(time.Second))
		}
	}
	if st.Total <= 0 {
		return []string{"  " + done + speed, "  " + done}
	}
	share := fmt.Sprintf(" %3d%%", 100*min(st.Current, st.Total)/st.Total)
	return []string{
		share + "  " + done + " / " + humanize.Bytes(uint64(st.Total)) + speed + left,
		share + speed + left,
		share + left,
		share,
	}
}

// roomy draws a bar only where it has room, and a total.
func roomy(base mpb.BarFiller) mpb.BarFiller {
	return mpb.BarFillerFunc(func(w io.Writer, st decor.Statistics) error {
		st.AvailableWidth -= 2 // a blank before it, and the last column
		if st.AvailableWidth < minBar || st.Total <= 0 {
			return nil
		}
		if _, err := io.WriteString(w, " "); err != nil {
			return err
		}
		return base.Fill(w, st)
	})
}
