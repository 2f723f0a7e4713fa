package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed schema
var schemaFiles embed.FS

// migrations[v] are the files that make schema v+1 of schema v. Each step is one transaction. A
// step is never changed once it was released: a database may have any of the earlier schemas.
var migrations = [][]string{
	{
		"schema/1_tables.sql", "schema/1_common.sql", "schema/1_clients.sql", "schema/1_files.sql", "schema/1_partials.sql",
		"schema/1_leases.sql", "schema/1_events.sql",
	},
}

// schemaVersion is that of a database which this program uses.
var schemaVersion = len(migrations)

const oldestServer = 140000

// migrate makes the tables, or the changes that an older schema lacks. Of several that do that
// at once one does it, and the others wait.
func (r *Registry) migrate(ctx context.Context, c *pgxpool.Conn) error {
	// Look before touching, and lock nothing if nothing is to be done.
	if version, err := r.version(ctx, c.Conn()); err != nil || version == schemaVersion {
		return err
	}
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('sealift schema'), hashtext($1))", r.schema); err != nil {
			return err
		}
		version, err := r.version(ctx, tx.Conn())
		if err != nil || version == schemaVersion {
			return err
		}
		if version == 0 {
			// IF NOT EXISTS needs the right to create one even where it is there.
			if there, err := r.exists(ctx, tx.Conn(), "SELECT FROM pg_namespace WHERE nspname = $1", r.schema); err != nil {
				return err
			} else if !there {
				if _, err := tx.Exec(ctx, "CREATE SCHEMA "+r.schema); err != nil {
					return err
				}
			}
			if _, err := tx.Exec(ctx, "CREATE TABLE sealift_schema (version integer NOT NULL)"); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "INSERT INTO sealift_schema VALUES (0)"); err != nil {
				return err
			}
		}
		for ; version < schemaVersion; version++ {
			for _, name := range migrations[version] {
				text, err := schemaFiles.ReadFile(name)
				if err != nil {
					return err
				}
				if _, err := tx.Exec(ctx, string(text)); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
		_, err = tx.Exec(ctx, "UPDATE sealift_schema SET version = $1", schemaVersion)
		return err
	})
}

// checkSchema returns an error unless the database has the schema that this program uses.
func (r *Registry) checkSchema(ctx context.Context) error {
	c, err := r.acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	if err := checkServer(ctx, c.Conn()); err != nil {
		return err
	}
	version, err := r.version(ctx, c.Conn())
	if err == nil && version < schemaVersion {
		err = fmt.Errorf("%w: schema %d, this one needs %d; a server that is started on it brings it up to date", ErrOlder, version, schemaVersion)
	}
	return err
}

func checkServer(ctx context.Context, c *pgx.Conn) error {
	var encoding string
	var number int
	err := c.QueryRow(ctx, "SELECT current_setting('server_encoding'), current_setting('server_version_num')::int").Scan(&encoding, &number)
	switch {
	case err != nil:
		return err
	case encoding != "UTF8":
		return fmt.Errorf("%w: %s", ErrEncoding, encoding)
	case number < oldestServer:
		return fmt.Errorf("%w; this is %d", ErrVersion, number/10000)
	}
	return nil
}

// version reads which schema the database has; 0: none. ErrForeign if the tables are not
// ours, ErrNewer if this program does not know them.
func (r *Registry) version(ctx context.Context, c *pgx.Conn) (version int, err error) {
	ours, err := r.exists(ctx, c, "SELECT FROM pg_class WHERE relname = 'sealift_schema' AND relnamespace = to_regnamespace($1)", r.schema)
	if err != nil {
		return 0, err
	}
	if !ours {
		foreign, err := r.exists(ctx, c, "SELECT FROM pg_class WHERE relname IN ('clients', 'files') AND relnamespace = to_regnamespace($1)", r.schema)
		if foreign {
			err = fmt.Errorf("%w: %s has tables clients or files, and no sealift_schema", ErrForeign, r.schema)
		}
		return 0, err
	}
	if err := c.QueryRow(ctx, "SELECT version FROM sealift_schema").Scan(&version); err != nil {
		if errors.Is(err, pgx.ErrNoRows) {
			err = fmt.Errorf("%w: sealift_schema is empty", ErrForeign)
		}
		return 0, err
	}
	if version > schemaVersion {
		return 0, fmt.Errorf("%w: schema %d, this one knows %d", ErrNewer, version, schemaVersion)
	}
	return version, nil
}

// exists reports whether a query has a row.
func (r *Registry) exists(ctx context.Context, c *pgx.Conn, query string, args ...any) (there bool, err error) {
	err = c.QueryRow(ctx, "SELECT EXISTS ("+query+")", args...).Scan(&there)
	return there, err
}
