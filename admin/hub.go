package admin

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	frameEvery = time.Second      // how often those who watch are told
	frameTime  = 2 * time.Second  // for how long a frame waits for the loops
	sampleTime = 10 * time.Second // between two points of the history
	samples    = 360              // an hour
	shownMost  = 100              // connections in a frame
)

// hub makes what the page shows, once for all who watch, and only while somebody does; and
// keeps the history. Its methods may be called from any goroutine.
type hub struct {
	live   *Live
	health *health

	mu    sync.Mutex // held while a frame is made
	last  *Frame
	at    time.Time
	speed map[string]speed // of transfers, as of last
	names map[string]string

	historyMu sync.Mutex
	history   []Point
}

// speed is how fast something was.
type speed struct {
	bytes int64
	at    time.Time
	rate  float64 // bytes a second, over some seconds
}

// next is the speed when there are so many bytes.
func (s speed) next(bytes int64, now time.Time) speed {
	took := now.Sub(s.at).Seconds()
	if took <= 0 {
		return s
	}
	rate := float64(max(0, bytes-s.bytes)) / took
	if s.rate > 0 {
		const weight = 0.4 // of the latest second
		rate = weight*rate + (1-weight)*s.rate
	}
	return speed{bytes, now, rate}
}

// Point is a moment of the history.
type Point struct {
	At          time.Time `json:"at"`
	Bytes       float64   `json:"bytes_per_second"` // received
	Files       float64   `json:"files"`            // verified a second
	Connections int64     `json:"connections"`
}

// Frame is the server at a moment.
type Frame struct {
	Now     time.Time `json:"now"`
	Started time.Time `json:"started"`
	Version string    `json:"version"`
	Stage   Stage     `json:"stage"`
	Ready   bool      `json:"ready"`
	Reasons []Reason  `json:"reasons"`
	Rate    int64     `json:"bytes_per_second"`
	Totals  Totals    `json:"totals"`
	Disk    Disk      `json:"disk"`
	Memory  Memory    `json:"buffers"`
	Limit   int       `json:"connections_limit"`
	Limits  []Limit   `json:"limits"`
	Waiting []Waiting `json:"waiting"` // null: nobody is told of anything
	Problem string    `json:"problem,omitempty"`
	Observed
}

// Totals count from the start.
type Totals struct {
	Registered uint64 `json:"registered"`
	Received   uint64 `json:"received"`
	Verified   uint64 `json:"verified"`
	Bytes      uint64 `json:"bytes"`
	Refused    uint64 `json:"refused"`
	Failed     uint64 `json:"failed"`
}

// Disk is room, in bytes; -1: not known.
type Disk struct {
	Free    int64 `json:"free_bytes"`
	Reserve int64 `json:"reserve_bytes"` // stays free of content
}

// Memory is room for content on its way to the disk, in bytes.
type Memory struct {
	Free   int64 `json:"free_bytes"`
	Budget int64 `json:"budget_bytes"`
}

func newHub(live *Live, h *health) *hub {
	return &hub{live: live, health: h, names: make(map[string]string)}
}

// frame is how the server is, or was less than a second ago.
func (h *hub) frame(ctx context.Context) *Frame {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.last != nil && now.Sub(h.at) < frameEvery*9/10 {
		return h.last
	}
	// The frame is for all who ask, also if the one that asked first has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), frameTime)
	defer cancel()
	h.health.checks.begin()
	stats, condition := h.health.source.Stats(), h.health.checks.known()
	f := &Frame{
		Now: now, Started: h.live.Started, Version: h.live.Version,
		Stage: h.health.source.Stage(), Reasons: h.health.reasons(condition),
		Totals: totalsOf(&stats), Disk: Disk{condition.Free, condition.Reserve},
		Memory: Memory{stats.Memory.Budget - stats.Memory.Used, stats.Memory.Budget},
		Limit:  stats.Limit, Limits: h.live.Limits(),
	}
	f.Ready = len(f.Reasons) == 0
	var err error
	if f.Observed, err = h.live.Observe(ctx, shownMost, ""); err != nil {
		f.Problem = "the connections cannot be listed: " + err.Error()
	}
	if f.List == nil {
		f.List = []Connection{}
	}
	if h.live.Waiting != nil {
		if f.Waiting, err = h.live.Waiting(ctx); err != nil {
			f.Problem = "what waits to be told cannot be listed: " + err.Error()
		}
	}
	h.measure(f, now)
	h.last, h.at = f, now
	return f
}

// measure sets the rates of f. Holds mu.
func (h *hub) measure(f *Frame, now time.Time) {
	speeds := make(map[string]speed)
	set := func(key string, bytes int64, began time.Time) int64 {
		s, known := h.speed[key]
		if !known {
			s = speed{at: began}
		}
		speeds[key] = s.next(bytes, now)
		return int64(speeds[key].rate)
	}
	f.Rate = set("", int64(f.Totals.Bytes), h.live.Started)
	if h.last == nil || now.Sub(h.at) > 5*frameEvery { // nobody has looked
		delete(speeds, "")
		h.historyMu.Lock()
		if n := len(h.history); n > 0 {
			f.Rate = int64(h.history[n-1].Bytes)
		}
		h.historyMu.Unlock()
		speeds[""] = speed{int64(f.Totals.Bytes), now, float64(f.Rate)}
	}
	for i := range f.List {
		c := &f.List[i]
		for k := range c.Transfers {
			t := &c.Transfers[k]
			t.Rate = set(c.ID+"\x00"+t.File, t.Bytes, t.Began)
		}
	}
	h.speed = speeds
}

func totalsOf(s *Stats) Totals {
	sum := func(m map[string]uint64) (n uint64) {
		for v := range maps.Values(m) {
			n += v
		}
		return n
	}
	return Totals{
		Registered: s.Sessions.Registered, Received: s.Sessions.Received, Verified: s.Sessions.Verified,
		Bytes: s.Sessions.ContentBytes, Refused: sum(s.Sessions.Refusals) + s.Refused + s.Unprotected + s.Unintroduced, Failed: sum(s.Sessions.Failures),
	}
}

// keep keeps the history until quit is closed.
func (h *hub) keep(quit <-chan struct{}) {
	ticker := time.NewTicker(sampleTime)
	defer ticker.Stop()
	before, at := h.health.source.Stats(), time.Now()
	for {
		select {
		case <-quit:
			return
		case now := <-ticker.C:
			stats := h.health.source.Stats()
			h.note(&before, &stats, now.Sub(at), now)
			before, at = stats, now
		}
	}
}

// note adds a point to the history.
func (h *hub) note(before, after *Stats, took time.Duration, now time.Time) {
	connections := int64(0)
	for n := range maps.Values(after.Connections) {
		connections += n
	}
	p := Point{
		At:          now,
		Bytes:       float64(after.Sessions.ContentBytes-before.Sessions.ContentBytes) / took.Seconds(),
		Files:       float64(after.Sessions.Verified-before.Sessions.Verified) / took.Seconds(),
		Connections: connections,
	}
	h.historyMu.Lock()
	defer h.historyMu.Unlock()
	if len(h.history) >= samples {
		h.history = slices.Delete(h.history, 0, 1)
	}
	h.history = append(h.history, p)
}

// past returns the points of the history behind that time.
func (h *hub) past(after time.Time) []Point {
	h.historyMu.Lock()
	defer h.historyMu.Unlock()
	i := len(h.history)
	for i > 0 && h.history[i-1].At.After(after) {
		i--
	}
	return append([]Point{}, h.history[i:]...)
}

// files are the latest files, with the names of their clients.
func (h *hub) files(ctx context.Context, from uint64, most int) ([]StoredFile, uint64) {
	files, next := h.live.Files.since(from, most)
	h.name(ctx, files)
	return files, next
}

// maxNames is how many names of clients are remembered.
const maxNames = 1000

// name sets Name of files, as far as the registry says in time who their clients are.
func (h *hub) name(ctx context.Context, files []StoredFile) {
	if unknown := h.unknown(files); len(unknown) > 0 {
		// Frames do not wait for a disk that hangs.
		ctx, cancel := context.WithTimeout(ctx, frameTime)
		defer cancel()
		if found, err := h.live.Names(ctx, unknown); err == nil {
			h.mu.Lock()
			maps.Copy(h.names, found)
			h.mu.Unlock()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range files {
		files[i].Name = h.names[files[i].Client]
	}
}

// unknown are the clients of files whose names are not remembered.
func (h *hub) unknown(files []StoredFile) (ids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.names) > maxNames {
		clear(h.names)
	}
	for _, f := range files {
		if _, ok := h.names[f.Client]; !ok && !slices.Contains(ids, f.Client) {
			ids = append(ids, f.Client)
		}
	}
	return ids
}
