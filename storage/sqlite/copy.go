package sqlite

import (
	"context"
	"errors"
	"os"
	"strings"
)

// CopyTo writes a copy of the database as it is at one moment to path, where
// there must be no file, durably and with mode 0600. It waits for no writer, and
// no writer waits for it.
func (r *Registry) CopyTo(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // SQLite takes an empty file
	if err != nil {
		return err
	}
	c, err := r.take(ctx, r.reader)
	if err == nil {
		err = c.run(ctx, "VACUUM INTO '"+strings.ReplaceAll(path, "'", "''")+"'")
		r.give(r.reader, c, err != nil)
	}
	if err != nil {
		err = r.failure("copy", err)
	} else {
		err = f.Sync() // SQLite does not
	}
	return errors.Join(err, f.Close())
}
