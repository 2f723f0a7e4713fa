// Package events tells targets what has happened: a command, or whoever listens at a URL. What is to be told is
// on record in the registry (storage.Events), in the transaction of the change itself; a [Teller] goes through that, at
// least once for each event, in the order of a client's events, and again until the target accepts it.
//
// docs/EVENTS.md is the part of it that users see.
package events

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sealift/storage"
)

// Target is who is told. Safe for concurrent use.
type Target interface {
	// Name tells the targets of a server apart, also after a restart with other settings.
	Name() string
	// Tell tells e once. nil means that the target has accepted it. An error may be, or wrap, a
	// *[RestError].
	Tell(ctx context.Context, e *storage.Event) error
}

// RestError is a target that asks for a rest. No event is told to it for that long.
type RestError struct {
	For time.Duration
	Err error
}

func (e *RestError) Error() string { return e.Err.Error() }
func (e *RestError) Unwrap() error { return e.Err }

// Limits may change while a Teller runs.
type Limits struct {
	TTL time.Duration // after which an event is dropped that was not accepted; 0: never
	Max int           // events that wait for one target; the oldest are dropped beyond. 0: any number
	// Retry is how long an event waits after the first attempt that failed. It is doubled for each
	// further one, up to MaxRetry, and then varied by a half.
	Retry   time.Duration
	Timeout time.Duration // for one attempt
}

// MaxRetry is the longest time between two attempts to tell an event, but for a target that
// asks for more, and the variation.
const MaxRetry = time.Hour

// Options of New. All are needed.
type Options struct {
	Registry storage.Registry
	// Submit puts an operation into a batch of the registry.
	Submit   func(op storage.Operation, done func(error))
	Targets  []Target
	Parallel int // attempts at once, for each target
	Limits   Limits
	Log      *zap.Logger
}

// Teller tells the events of a registry. Make one with [New] and [Teller.Run] it.
type Teller struct {
	o       Options
	limits  atomic.Pointer[Limits]
	tellers []*teller

	mu       sync.Mutex
	backlogs []storage.Backlog // as they were last looked at; only tidy changes them
	looked   bool
	dropped  map[string]Dropped
}

// Dropped is how many events were given up.
type Dropped struct{ Old, Many uint64 } // beyond Limits.TTL and Limits.Max

// New returns a Teller. It does nothing before Run.
func New(o Options) *Teller {
	t := &Teller{o: o, dropped: make(map[string]Dropped)}
	t.limits.Store(&o.Limits)
	for _, target := range o.Targets {
		t.tellers = append(t.tellers, newTeller(t, target))
	}
	return t
}

// Names returns the names of targets.
func Names(targets []Target) []string {
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = t.Name()
	}
	return names
}

// Limit sets the limits anew.
func (t *Teller) Limit(l Limits) {
	t.limits.Store(&l)
	t.Wake()
}

// Wake has the Teller look for events: those that another process has recorded, or made due.
func (t *Teller) Wake() {
	for _, of := range t.tellers {
		of.wake()
	}
}

// grace is how long attempts under way may take after Run's context has ended.
const grace = 3 * time.Second

// Run tells events until ctx ends. Attempts under way may take some seconds more, unless ctx
// ends for a cause of its own: then another process tells the same events. It may be called
// again after that.
func (t *Teller) Run(ctx context.Context) {
	attempts, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		if context.Cause(ctx) == ctx.Err() {
			time.AfterFunc(grace, stop)
		} else {
			stop()
		}
	})()
	var all sync.WaitGroup
	for _, of := range t.tellers {
		all.Go(func() { of.run(ctx, attempts) })
	}
	all.Go(func() { t.tidy(ctx) })
	for ended := false; !ended; {
		select {
		case <-t.o.Registry.Recorded():
			t.Wake()
		case <-ctx.Done():
			ended = true
		}
	}
	all.Wait()
	if context.Cause(ctx) != ctx.Err() { // what waits is another process's to count
		t.mu.Lock()
		t.backlogs, t.looked = nil, false
		t.mu.Unlock()
	}
}

// Stats are numbers of a moment and totals since the start, of one target.
type Stats struct {
	Target   string
	Waiting  int       // events on record, as they were counted some seconds ago
	Oldest   time.Time // of them; zero: there is none
	UnderWay int       // attempts
	Told     uint64    // events that the target accepted
	Failed   uint64    // attempts
	Dropped  Dropped
	Failure  string // why the last attempt failed, "" once one goes well
}

// Stats returns the numbers of all targets, and of those that are none any more and for which
// events wait.
func (t *Teller) Stats() []Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Stats, 0, len(t.tellers))
	at := make(map[string]int)
	for _, of := range t.tellers {
		at[of.target.Name()] = len(all)
		all = append(all, of.stats())
	}
	for _, b := range t.backlogs {
		i, ok := at[b.Target]
		if !ok {
			i = len(all)
			all = append(all, Stats{Target: b.Target})
		}
		all[i].Waiting, all[i].Oldest = b.Events, b.Oldest
	}
	for i := range all {
		all[i].Dropped = t.dropped[all[i].Target]
	}
	return all
}
