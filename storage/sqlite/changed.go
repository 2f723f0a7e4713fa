package sqlite

import (
	"context"
	"database/sql/driver"

	"sealift/storage"
)

var _ storage.Shared = (*Registry)(nil)

// Changed implements storage.Shared. It asks the writing connection: SQLite tells each
// connection of the commits of all others, and in this process no other one writes. A
// read-only registry has none; it says that it may have changed. It waits for the
// batch under way.
func (r *Registry) Changed(ctx context.Context) (bool, error) {
	if r.writer == nil {
		return true, nil
	}
	c, err := r.take(ctx, r.writer)
	if err != nil {
		return false, r.failure("open", err)
	}
	changed := false
	err = c.rows(ctx, dataVersion, nil, 1, func(row []driver.Value) error {
		changed = c.version != row[0] // also on a new connection, whose numbers are its own
		c.version = row[0]
		return nil
	})
	if err == nil && changed {
		err = r.lookForPartials(ctx, c)
	}
	r.give(r.writer, c, err != nil && !isBusy(err) && ctx.Err() == nil)
	if err != nil {
		return false, r.failure("read", err)
	}
	return changed, nil
}
