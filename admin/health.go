package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Source is what the address asks the server. All functions but Check answer at once, and
// may be called from any goroutine.
type Source struct {
	// Alive is when all loops last answered; zero if they do not run.
	Alive func() time.Time
	// Stage is what the server does.
	Stage func() Stage
	// Check looks at the disk and the registry, and may take long. It is called on a
	// goroutine of its own, one call at a time.
	Check func() Condition
	// Stats takes the numbers of the moment.
	Stats func() Stats
}

// Stage is what a server does.
type Stage string

// A server recovers, serves, drains and has then stopped.
const (
	Recovering Stage = "recovering" // it reads what was left, and accepts no connection
	Serving    Stage = "serving"
	Draining   Stage = "draining" // it lets transfers finish, and begins none
)

// Condition is what Source.Check has found.
type Condition struct {
	Free, Reserve int64 // bytes on the disk, and those that stay free; below 0: not known
	// Reasons are why clients had better not come now, none if all is well.
	Reasons []Reason
}

// Reason is why a server is not ready.
type Reason struct {
	Reason string `json:"reason"` // one of those below, or a Stage
	Detail string `json:"detail,omitempty"`
}

// What a Reason may say.
const (
	DiskBelowReserve    = "disk_below_reserve"
	StoreMoved          = "store_moved"
	StoreFails          = "store_fails"
	RegistryNotWritable = "registry_not_writable"
	NoAnswer            = "no_answer" // the disk keeps the check waiting
	LoopsDoNotAnswer    = "loops_do_not_answer"
)

// maxBeat is how long the loops may go without an answer. They are asked twice a second,
// and the process ends when one of them takes 10 s.
const maxBeat = 5 * time.Second

// health answers how the server is.
type health struct {
	source Source
	checks *checks
}

// beats reports whether the loops answer, or need not.
func (h *health) beats() bool {
	at := h.source.Alive()
	return at.IsZero() || time.Since(at) <= maxBeat
}

// alive is /healthz.
func (h *health) alive(w http.ResponseWriter, _ *http.Request) {
	if !h.beats() {
		http.Error(w, "the event loops do not answer", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintln(w, "ok")
}

// ready is /readyz: "ready", or a JSON object a line for each reason that there is.
func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	reasons := h.reasons(h.checks.latest(r.Context()))
	if len(reasons) == 0 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintln(w, "ready")
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusServiceUnavailable)
	lines := json.NewEncoder(w)
	for _, reason := range reasons {
		_ = lines.Encode(reason)
	}
}

// reasons are why clients had better not come now, if that is the condition.
func (h *health) reasons(found Condition) []Reason {
	reasons := []Reason{}
	if stage := h.source.Stage(); stage != Serving {
		reasons = append(reasons, Reason{Reason: string(stage)})
	}
	if !h.beats() {
		reasons = append(reasons, Reason{Reason: LoopsDoNotAnswer})
	}
	return append(reasons, found.Reasons...)
}
