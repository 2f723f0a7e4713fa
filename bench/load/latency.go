package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latency sums up how long something took, in milliseconds. It is exact to a
// hundredth of each value.
type Latency struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
}

// histogram is a distribution of durations. Any goroutine may add to it.
type histogram struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

// The range of a histogram, in nanoseconds; what lies outside counts as its
// end.
const (
	shortest = int64(time.Microsecond)
	longest  = int64(10 * time.Minute)
)

func newHistogram() *histogram {
	return &histogram{h: hdrhistogram.New(shortest, longest, 2)}
}

func (h *histogram) add(d time.Duration) {
	h.mu.Lock()
	_ = h.h.RecordValue(min(max(int64(d), shortest), longest)) // within range
	h.mu.Unlock()
}

func (h *histogram) summary() Latency {
	h.mu.Lock()
	defer h.mu.Unlock()
	ms := func(ns int64) float64 { return float64(ns) / float64(time.Millisecond) }
	l := Latency{Count: h.h.TotalCount()}
	if l.Count > 0 {
		l.P50, l.P90 = ms(h.h.ValueAtQuantile(50)), ms(h.h.ValueAtQuantile(90))
		l.P99, l.P999 = ms(h.h.ValueAtQuantile(99)), ms(h.h.ValueAtQuantile(99.9))
		l.Max = ms(h.h.Max())
	}
	return l
}
