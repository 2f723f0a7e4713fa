package events

import (
	"context"
	"time"

	"go.uber.org/zap"

	"sealift/storage"
)

// tidyEvery is how often the Teller counts what waits, drops what is too old or too much, and
// looks whether something of it can be told. So more than Limits.Max may wait for that long, and
// so late is told at most what the registry did not say: of several servers that record at once,
// one may commit an event after another one has seen a later one.
const tidyEvery = 2 * time.Second

// tidy counts and drops until ctx ends.
func (t *Teller) tidy(ctx context.Context) {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	failed := false
	for {
		err := t.tidyOnce(ctx, time.Now())
		if err != nil && !failed && ctx.Err() == nil { // once, until it goes well again
			t.o.Log.Error("looking for events failed", zap.Error(err))
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// tidyOnce does it once. Without targets nothing is recorded, and once nothing waits there is
// nothing more to do.
func (t *Teller) tidyOnce(ctx context.Context, now time.Time) error {
	if len(t.tellers) == 0 && t.looked && len(t.backlogs) == 0 {
		return nil
	}
	all, err := t.o.Registry.Backlogs(ctx)
	if err != nil {
		return err
	}
	limits := t.limits.Load()
	dropped := false
	for _, b := range all {
		if limits.TTL > 0 && b.Oldest.Before(now.Add(-limits.TTL)) {
			n, err := t.drop(&storage.DropEvents{Chosen: storage.Chosen{Target: b.Target}, Before: now.Add(-limits.TTL)})
			if err != nil {
				return err
			}
			t.count(b.Target, Dropped{Old: uint64(n)})
			t.o.Log.Warn("events were dropped", zap.String("target", b.Target), zap.Int("count", n), zap.String("reason", "they were not accepted in time"))
			dropped = true
			b.Events -= n
		}
		if limits.Max > 0 && b.Events > limits.Max {
			n, err := t.drop(&storage.DropEvents{Chosen: storage.Chosen{Target: b.Target}, Keep: limits.Max})
			if err != nil {
				return err
			}
			t.count(b.Target, Dropped{Many: uint64(n)})
			t.o.Log.Warn("events were dropped", zap.String("target", b.Target), zap.Int("count", n), zap.String("reason", "too many wait"))
			dropped = true
		}
	}
	if dropped {
		if all, err = t.o.Registry.Backlogs(ctx); err != nil {
			return err
		}
	}
	if dropped || len(all) > 0 {
		t.Wake()
	}
	t.mu.Lock()
	t.backlogs, t.looked = all, true
	t.mu.Unlock()
	return nil
}

func (t *Teller) drop(op *storage.DropEvents) (int, error) {
	op.By = storage.Server
	done := make(chan error, 1)
	t.o.Submit(op, func(err error) { done <- err })
	err := <-done
	return op.Dropped, err
}

func (t *Teller) count(target string, d Dropped) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.dropped[target]
	of.Old, of.Many = of.Old+d.Old, of.Many+d.Many
	t.dropped[target] = of
}
