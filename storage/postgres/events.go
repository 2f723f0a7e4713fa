package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sealift/codec"
	"sealift/storage"
)

const (
	eventColumns = "seq, target, event_id, kind, why, happened, id, client_name, file_name, path, version, size, cksum, attempts, failure, due"
	nextEvents   = "SELECT " + eventColumns + " FROM events WHERE target = $1 AND due IS NOT NULL ORDER BY due, seq LIMIT $2"
	listEvents   = "SELECT " + eventColumns + " FROM events WHERE seq > $1 ORDER BY seq LIMIT $2"
	listBacklogs = "SELECT b.target, b.count, e.happened FROM (SELECT target, count(*) AS count, min(seq) AS oldest FROM events" +
		" GROUP BY target) b JOIN events e ON e.seq = b.oldest ORDER BY b.target"
	listTargets = "SELECT name FROM event_targets ORDER BY name"
)

// SetTargets implements storage.Events. Other servers that have the registry open see it when
// they call Changed.
func (r *Registry) SetTargets(ctx context.Context, targets []string) error {
	if r.readOnly {
		return r.failure("write", ErrReadOnly)
	}
	want := slices.Compact(slices.Sorted(slices.Values(targets)))
	err := r.persist(ctx, func(ctx context.Context) error {
		c, err := r.acquire(ctx)
		if err != nil {
			return err
		}
		defer c.Release()
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "LOCK TABLE event_targets IN SHARE ROW EXCLUSIVE MODE"); err != nil {
				return err
			}
			on, err := targetsOf(ctx, tx)
			if err != nil || slices.Equal(on, want) {
				return err
			}
			if _, err := tx.Exec(ctx, "DELETE FROM event_targets"); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "INSERT INTO event_targets SELECT unnest($1::text[])", want); err != nil {
				return err
			}
			return r.steered(ctx, tx)
		})
	})
	if err != nil {
		return r.failure("write", err)
	}
	r.tells.Store(len(want) > 0)
	return nil
}

// steered notes that this registry has steered, in a transaction beside the batches.
func (r *Registry) steered(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, noteInstance, r.instance, 1)
	return err
}

// Targets returns the targets that events are recorded for, in order.
func (r *Registry) Targets(ctx context.Context) (names []string, err error) {
	err = r.persist(ctx, func(ctx context.Context) error {
		names, err = targetsOf(ctx, r.pool)
		return err
	})
	if err != nil {
		return nil, r.failure("read", err)
	}
	return names, nil
}

type querier interface {
	Query(ctx context.Context, text string, args ...any) (pgx.Rows, error)
}

func targetsOf(ctx context.Context, q querier) ([]string, error) {
	rows, err := q.Query(ctx, listTargets)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// loadTargets finds out whether events are recorded.
func (r *Registry) loadTargets(ctx context.Context) error {
	targets, err := targetsOf(ctx, r.pool)
	if err == nil {
		r.tells.Store(len(targets) > 0)
	}
	return err
}

// NextEvents implements storage.Events.
func (r *Registry) NextEvents(ctx context.Context, target string, limit int) (found []storage.Event, err error) {
	err = r.persist(ctx, func(ctx context.Context) error {
		rows, err := r.query(ctx, nextEvents, target, limit)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, eventOf)
		return err
	})
	if err != nil {
		return nil, r.failure("read", err)
	}
	return found, nil
}

// ListEvents implements storage.Events. Events that come or go meanwhile may be among those
// yielded or not.
func (r *Registry) ListEvents(ctx context.Context, yield func(storage.Event) error) error {
	return each(ctx, r, listEvents, []any{int64(0)}, yield, func(row pgx.CollectableRow) (storage.Event, []any, error) {
		e, err := eventOf(row)
		return e, []any{e.Seq}, err
	})
}

// Backlogs implements storage.Events.
func (r *Registry) Backlogs(ctx context.Context) (all []storage.Backlog, err error) {
	err = r.persist(ctx, func(ctx context.Context) error {
		rows, err := r.query(ctx, listBacklogs)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (b storage.Backlog, err error) {
			err = row.Scan(&b.Target, &b.Events, &b.Oldest)
			b.Oldest = roundTime(b.Oldest)
			return b, err
		})
		return err
	})
	if err != nil {
		return nil, r.failure("read", err)
	}
	return all, nil
}

// Recorded implements storage.Events. It is also sent to when Changed has seen an event that is
// due: another server may have recorded it, or made it due.
func (r *Registry) Recorded() <-chan struct{} { return r.recorded }

// tellRecorded sends to Recorded.
func (r *Registry) tellRecorded() {
	select {
	case r.recorded <- struct{}{}:
	default: // whoever listens will look anyway
	}
}

// eventOf makes an Event of a row of eventColumns.
func eventOf(row pgx.CollectableRow) (e storage.Event, err error) {
	var id uuid.UUID
	var cksum, attempts int64
	var due *int64
	err = row.Scan(&e.Seq, &e.Target, &e.ID, &e.Kind, &e.Why, &e.Happened, &id, &e.ClientName, &e.FileName, &e.Path, &e.Version,
		&e.Size, &cksum, &attempts, &e.Failure, &due)
	e.Client, e.Cksum, e.Attempts, e.Happened, e.Behind = codec.ClientID(id), uint32(cksum), int(attempts), roundTime(e.Happened), due == nil
	if due != nil && *due > 0 {
		e.Due = time.UnixMilli(*due).UTC()
	}
	return e, err
}
