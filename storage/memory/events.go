package memory

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// events are what waits to be told.
type events struct {
	targets  []string
	last     int64                         // Seq
	waiting  map[audience]*[]storage.Event // in the order of Seq; never empty
	recorded chan struct{}
}

// audience is whom events are told, and the client that they are about.
type audience struct {
	target string
	id     codec.ClientID
}

func newEvents() events {
	return events{waiting: make(map[audience]*[]storage.Event), recorded: make(chan struct{}, 1)}
}

// subject reads what the events of op need, before it is done.
func (r *Registry) subject(op storage.Operation) (was *storage.File, client *storage.Client) {
	s, ok := storage.SubjectOf(op)
	if !ok {
		return nil, nil
	}
	if s.Client {
		if c := r.clients[s.Place.ID]; c != nil {
			client = &storage.Client{ID: c.ID, Name: c.Name}
		}
		return nil, client
	}
	at := place{s.Place.ID, s.Place.Path}
	if s.Verified {
		was = r.verified(at, s.Incoming)
	} else if e := r.unverified(at, s.Incoming); e != nil {
		was = e.unverified
	}
	return copyFile(was), nil
}

// record records the events of op, which has succeeded.
func (r *Registry) record(op storage.Operation, was *storage.File, client *storage.Client) {
	for _, e := range storage.EventsOf(op, was, client) {
		e.ID, e.Happened = storage.NewEventID(), time.Now().UTC().Truncate(time.Millisecond)
		if c := r.clients[e.Client]; c != nil && e.ClientName == "" {
			e.ClientName = c.Name
		}
		e.Attempts, e.Failure, e.Due = 0, "", time.Time{}
		for _, target := range r.targets {
			r.last++
			e.Seq, e.Target = r.last, target
			to := audience{target, e.Client}
			if r.waiting[to] == nil {
				r.waiting[to] = new([]storage.Event)
			}
			*r.waiting[to] = append(*r.waiting[to], e)
		}
		select {
		case r.recorded <- struct{}{}:
		default: // whoever listens will look anyway
		}
	}
}

func (r *Registry) raiseEvent(op *storage.RaiseEvent) error {
	_, err := r.client(op.Event.Client, op.By)
	return err
}

func (r *Registry) restoreEvent(e storage.Event) {
	to := audience{e.Target, e.Client}
	if r.waiting[to] == nil {
		r.waiting[to] = new([]storage.Event)
	}
	all := r.waiting[to]
	if slices.ContainsFunc(*all, func(other storage.Event) bool { return other.ID == e.ID }) {
		return
	}
	r.last++
	e.Seq, e.Due, e.Behind = r.last, time.Time{}, false
	e.Happened = e.Happened.UTC().Truncate(time.Millisecond)
	*all = append(*all, e)
	select {
	case r.events.recorded <- struct{}{}:
	default: // whoever listens will look anyway
	}
}

func (r *Registry) eventTold(op *storage.EventTold) error {
	e := &op.Event
	dropped := r.drop(func(other *storage.Event) bool { return other.Seq == e.Seq }, audience{e.Target, e.Client})
	if dropped == 0 {
		return storage.ErrNoEvent
	}
	return nil
}

// drop forgets the events of some audiences that are meant.
func (r *Registry) drop(meant func(*storage.Event) bool, of ...audience) (dropped int) {
	for _, to := range of {
		all := r.waiting[to]
		if all == nil {
			continue
		}
		before := len(*all)
		*all = slices.DeleteFunc(*all, func(e storage.Event) bool { return meant(&e) })
		dropped += before - len(*all)
		if len(*all) == 0 {
			delete(r.waiting, to)
		}
	}
	return dropped
}

func (r *Registry) postponeEvent(op *storage.PostponeEvent) error {
	for _, all := range r.waiting {
		for i := range *all {
			if e := &(*all)[i]; e.Seq == op.Seq {
				e.Attempts++
				e.Due, e.Failure = op.Due, op.Failure
				return nil
			}
		}
	}
	return storage.ErrNoEvent
}

func (r *Registry) retryEvents(op *storage.RetryEvents) {
	op.Retried = 0
	for _, all := range r.waiting {
		if e := &(*all)[0]; op.Takes(e) && !e.Due.IsZero() {
			e.Due = time.Time{}
			op.Retried++
		}
	}
}

func (r *Registry) dropEvents(op *storage.DropEvents) {
	var newest int64 // of those that may go for Keep
	if op.Keep > 0 {
		var all []int64
		for _, e := range r.allEvents() {
			if e.Target == op.Target {
				all = append(all, e.Seq)
			}
		}
		if len(all) > op.Keep {
			newest = all[len(all)-op.Keep-1]
		}
	}
	var of []audience
	for to := range r.waiting {
		of = append(of, to)
	}
	op.Dropped = r.drop(func(e *storage.Event) bool {
		return op.Takes(e) && (op.Before.IsZero() || e.Happened.Before(op.Before)) && (op.Keep == 0 || e.Seq <= newest)
	}, of...)
}

// allEvents returns all events in the order of Seq.
func (r *Registry) allEvents() []storage.Event {
	var all []storage.Event
	for _, of := range r.waiting {
		for i, e := range *of {
			e.Behind = i > 0
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b storage.Event) int { return cmp.Compare(a.Seq, b.Seq) })
	return all
}

// SetTargets implements storage.Events.
func (r *Registry) SetTargets(ctx context.Context, targets []string) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.mu.Unlock()
	r.targets = slices.Clone(targets)
	return nil
}

// NextEvents implements storage.Events. It looks at all clients of which something waits.
func (r *Registry) NextEvents(ctx context.Context, target string, limit int) ([]storage.Event, error) {
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	var next []storage.Event
	for to, all := range r.waiting {
		if to.target == target {
			next = append(next, (*all)[0])
		}
	}
	slices.SortFunc(next, func(a, b storage.Event) int { return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Seq, b.Seq)) })
	return next[:min(limit, len(next))], nil
}

// ListEvents implements storage.Events. It yields what there was when it began.
func (r *Registry) ListEvents(ctx context.Context, yield func(storage.Event) error) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	all := r.allEvents()
	r.mu.Unlock()
	return each(ctx, all, yield)
}

// Backlogs implements storage.Events.
func (r *Registry) Backlogs(ctx context.Context) ([]storage.Backlog, error) {
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	of := make(map[string]*storage.Backlog)
	for _, e := range r.allEvents() {
		b := of[e.Target]
		if b == nil {
			b = &storage.Backlog{Target: e.Target, Oldest: e.Happened}
			of[e.Target] = b
		}
		b.Events++
	}
	var all []storage.Backlog
	for _, b := range of {
		all = append(all, *b)
	}
	slices.SortFunc(all, func(a, b storage.Backlog) int { return strings.Compare(a.Target, b.Target) })
	return all, nil
}

// Recorded implements storage.Events.
func (r *Registry) Recorded() <-chan struct{} { return r.events.recorded }
