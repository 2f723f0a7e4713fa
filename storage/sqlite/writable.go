package sqlite

import (
	"context"
	"fmt"
)

// Writable returns nil if what is applied now would be durable: it writes to the database,
// a page of which nothing changes. It waits for the batch under way, and for another
// process that has the database locked. With Fsync it costs a sync.
func (r *Registry) Writable(ctx context.Context) error {
	if r.writer == nil {
		return r.failure("write", ErrReadOnly)
	}
	c, err := r.take(ctx, r.writer)
	if err != nil {
		return r.failure("open", err)
	}
	err = r.transact(ctx, c, func() error {
		version, err := c.value(ctx, "PRAGMA user_version")
		if err != nil {
			return err
		}
		return c.run(ctx, fmt.Sprintf("PRAGMA user_version = %d", version))
	})
	r.release(ctx, r.writer, c, err)
	if err != nil {
		return r.failure("commit", err)
	}
	return nil
}
