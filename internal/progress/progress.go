// Package progress draws one progress bar on the last line of a terminal.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

const (
	// interval is how often the bar is drawn: often enough to look alive.
	interval = 100 * time.Millisecond

	// The columns that a bar is drawn for where the terminal does not say, and
	// the fewest that are worth one.
	defaultWidth = 80
	minWidth     = 40
)

// Bar is a progress bar. As an io.Writer it passes on text to the terminal
// without mixing it with the bar. All methods may be called from any goroutine.
// A nil Bar draws nothing.
type Bar struct {
	w     io.Writer
	width func() int
	now   func() time.Time

	mu     sync.Mutex
	shown  bool // a bar is on the last line
	label  string
	began  time.Time
	offset int64 // bytes at began
	drawn  time.Time
}

// New returns a bar on f, or nil if f is no terminal.
func New(f *os.File) *Bar {
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return nil
	}
	return &Bar{w: f, now: time.Now, width: func() int {
		if w, _, err := term.GetSize(fd); err == nil && w > 0 {
			return w
		}
		return defaultWidth
	}}
}

// Update shows that done of total bytes of what label names are through. A
// label other than the last one's, or a done that went back, begins a new
// measurement of speed. label must be printable.
func (b *Bar) Update(label string, done, total int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if label != b.label || done < b.offset {
		b.label, b.began, b.offset, b.drawn = label, now, done, time.Time{}
	}
	if done < total && now.Sub(b.drawn) < interval {
		return
	}
	b.drawn, b.shown = now, true
	fmt.Fprintf(b.w, "\r%s\x1b[K", line(b.width()-1, label, done, total, b.offset, now.Sub(b.began)))
}

// Clear takes the bar off the terminal.
func (b *Bar) Clear() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clear()
	b.label = ""
}

func (b *Bar) clear() {
	if b.shown {
		fmt.Fprint(b.w, "\r\x1b[K")
		b.shown = false
	}
}

// Write writes p where the bar was; the next Update draws it again below.
func (b *Bar) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clear()
	b.drawn = time.Time{}
	return b.w.Write(p)
}

// line makes the bar, at most width columns.
func line(width int, label string, done, total, offset int64, elapsed time.Duration) string {
	width = max(width, minWidth)
	share := 1.0
	if total > 0 {
		share = float64(done) / float64(total)
	}
	tail := fmt.Sprintf(" %3.0f%%  %s / %s", share*100, Bytes(done), Bytes(total))
	if s := elapsed.Seconds(); s > 0.5 && done > offset {
		speed := float64(done-offset) / s
		tail += fmt.Sprintf("  %s/s  %v left", Bytes(int64(speed)), time.Duration(float64(total-done)/speed*float64(time.Second)).Round(time.Second))
	}
	if room := width - len(tail); len(label) > room/2 {
		label = label[:max(room/2-1, 0)] + "~"
	}
	if cells := width - len(label) - len(tail) - len(" []"); cells >= 5 {
		full := int(share * float64(cells))
		label += " [" + strings.Repeat("=", full) + strings.Repeat(" ", cells-full) + "]"
	}
	return (label + tail)[:min(width, len(label)+len(tail))]
}

// Bytes writes n with a decimal unit: "1.5 MB".
func Bytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1e3, "kB"
	for _, larger := range []string{"MB", "GB", "TB"} {
		if v < 999.95 {
			break
		}
		v, unit = v/1e3, larger
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}
