package sqlite

import (
	"context"
	"errors"
	"os"
	"strings"
)

// CopyTo writes a copy of the database as it is at one moment to path, where
// there must be no file, durably and with mode 0600. It waits for no writer, and
// no writer waits for it. After an error there is no file, unless there was one
// before.
func (r *Registry) CopyTo(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // SQLite takes an empty file
	if err != nil {
		return err
	}
	if err = r.vacuumInto(ctx, path); err == nil {
		err = f.Sync() // SQLite does not
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

func (r *Registry) vacuumInto(ctx context.Context, path string) error {
	c, err := r.take(ctx, r.reader)
	if err == nil {
		err = c.run(ctx, "VACUUM INTO '"+strings.ReplaceAll(path, "'", "''")+"'")
		r.give(r.reader, c, err != nil)
	}
	if err != nil {
		return r.failure("copy", err)
	}
	return nil
}
