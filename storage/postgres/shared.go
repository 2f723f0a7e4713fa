package postgres

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

// watch is what Changed has seen last.
type watch struct {
	mu     sync.Mutex
	looked bool
	others steering
}

// steering is how often other registries have steered, and how many there are: where one is
// forgotten, the sum alone might stay the same.
type steering struct{ changes, writers int64 }

// What others have steered, and whether an event is due at once. That the last event is another
// one would not tell: they are not committed in order, and those that were put off may be made due.
const selectWatch = "SELECT coalesce(sum(changes) FILTER (WHERE instance <> $1 AND changes > 0), 0)::bigint," +
	" count(*) FILTER (WHERE instance <> $1 AND changes > 0)," +
	" EXISTS (SELECT FROM event_targets t WHERE EXISTS (SELECT FROM events e WHERE e.target = t.name AND e.due = 0))" +
	" FROM writers"

// Changed implements storage.Shared. It reports true only where another registry has steered
// clients or files: pinned, disabled, deleted, a quota, the targets of events. What uploads do
// does not count.
func (r *Registry) Changed(ctx context.Context) (changed bool, err error) {
	r.watch.mu.Lock()
	defer r.watch.mu.Unlock()
	var others steering
	var due bool
	err = r.persist(ctx, func(ctx context.Context) error {
		rows, err := r.query(ctx, selectWatch, r.instance)
		if err != nil {
			return err
		}
		_, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
			return struct{}{}, row.Scan(&others.changes, &others.writers, &due)
		})
		if err == nil && (!r.watch.looked || others != r.watch.others) {
			err = r.loadTargets(ctx)
		}
		return err
	})
	if err != nil {
		return false, r.failure("read", err)
	}
	changed = !r.watch.looked || others != r.watch.others
	if due { // an attempt at it may be under way: then whoever tells events looks in vain
		r.tellRecorded()
	}
	r.watch.looked, r.watch.others = true, others
	return changed, nil
}

// Secret implements storage.Secrets.
func (r *Registry) Secret(ctx context.Context, name string, fresh func() ([]byte, error)) (value []byte, err error) {
	look := func(ctx context.Context) error {
		rows, err := r.query(ctx, "SELECT value FROM secrets WHERE name = $1", name)
		if err != nil {
			return err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if len(found) > 0 {
			value = found[0]
		}
		return err
	}
	if err := r.persist(ctx, look); err != nil {
		return nil, r.failure("read", err)
	}
	if value != nil {
		return value, nil
	}
	if r.readOnly {
		return nil, r.failure("write", ErrReadOnly)
	}
	made, err := fresh()
	if err != nil {
		return nil, err
	}
	err = r.persist(ctx, func(ctx context.Context) error {
		if _, err := r.pool.Exec(ctx, "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING", name, made); err != nil {
			return err
		}
		return look(ctx)
	})
	if err != nil {
		return nil, r.failure("write", err)
	}
	return value, nil
}

// Writable returns nil if what is applied now would be durable: it commits something that says
// nothing.
func (r *Registry) Writable(ctx context.Context) error {
	if r.readOnly {
		return r.failure("write", ErrReadOnly)
	}
	err := r.persist(ctx, func(ctx context.Context) error {
		_, err := r.pool.Exec(ctx, noteInstance, r.instance, 0)
		return err
	})
	if err != nil {
		return r.failure("write", err)
	}
	return nil
}

// noteInstance has a registry be in the table writers by itself, with so many more changes.
const noteInstance = "INSERT INTO writers (writer, instance, seq, changes, at) VALUES ($1, $1, 0, $2, now())" +
	" ON CONFLICT (writer) DO UPDATE SET changes = writers.changes + excluded.changes, at = excluded.at"
