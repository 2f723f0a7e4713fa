//go:build linux

package soak

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"

	_ "modernc.org/sqlite"
)

// lockDatabase keeps a write lock on the database at path until standard input
// ends, as a backup or an editor would. It says on standard output when it has
// it.
func lockDatabase(path string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx := context.Background()
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, statement := range []string{"PRAGMA busy_timeout = 10000", "BEGIN IMMEDIATE"} {
		if _, err := c.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	fmt.Println("locked")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_, err = c.ExecContext(ctx, "ROLLBACK")
	return err
}
