package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// conn is one connection to the database with its prepared statements. It
// speaks to the driver without database/sql between: that pool, its locks and
// its conversions by reflection cost a quarter of a small statement's time
// (BenchmarkStatement), and a registry has two connections that it knows by
// name. One goroutine at a time.
type conn struct {
	driver.Conn
	home     home
	prepared [statementCount]driver.Stmt
	args     []driver.NamedValue // reused from call to call
	version  driver.Value        // what dataVersion said last, nil: it was not asked
}

// databaseURI returns the name under which the driver opens path; mode is rw or
// ro. A URI, because only there does a question mark in a path stand for itself.
func databaseURI(path, mode string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	p := filepath.ToSlash(abs)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p // C:/x
	}
	return (&url.URL{Scheme: "file", Path: p, RawQuery: "mode=" + mode}).String(), nil
}

// connect opens a connection; schema looks at the database, or prepares it,
// before the statements are made ready.
func (r *Registry) connect(ctx context.Context, schema func(context.Context, *conn) error) (*conn, error) {
	connector, err := sqlite.NewConnector(r.uri)
	if err != nil {
		return nil, err
	}
	dc, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: dc}
	if r.writes {
		err = c.mustWrite()
	}
	if err == nil {
		err = c.setUp(ctx, r.pragma, schema)
	}
	if err == nil {
		c.home, err = findHome(r.path)
	}
	if err == nil && r.db == nil {
		r.db = c.home.db
	} else if err == nil && !os.SameFile(r.db, c.home.db) {
		err = fmt.Errorf("%w: %s", ErrMoved, r.path)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) setUp(ctx context.Context, pragma []string, schema func(context.Context, *conn) error) error {
	for _, p := range pragma {
		if err := c.run(ctx, p); err != nil {
			return err
		}
	}
	if err := schema(ctx, c); err != nil {
		return err
	}
	for i, text := range statements {
		st, err := c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, text)
		if err != nil {
			return err
		}
		c.prepared[i] = st
	}
	return nil
}

func (c *conn) close() error {
	for _, st := range c.prepared {
		if st != nil {
			_ = st.Close() // repeats the error of the statement's last run
		}
	}
	return c.Conn.Close()
}

// run executes a statement that is not worth preparing. Waiting for a lock ends
// with ctx.
func (c *conn) run(ctx context.Context, text string) error {
	_, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, text, nil)
	return err
}

// value runs a query of one column and row.
func (c *conn) value(ctx context.Context, text string) (driver.Value, error) {
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, text, nil)
	if err != nil {
		return nil, err
	}
	var dest [1]driver.Value
	if err := rows.Next(dest[:]); err != nil {
		_ = rows.Close()
		return nil, err
	}
	return dest[0], rows.Close()
}

func (c *conn) bind(args []any) []driver.NamedValue {
	c.args = c.args[:0]
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return c.args
}

// exec runs a prepared statement and returns how many rows it changed. The
// driver copies what args refer to. Inside of a transaction nothing waits for a
// lock, hence no context.
func (c *conn) exec(s statement, args ...any) (int64, error) {
	return c.execContext(context.Background(), s, args...)
}

func (c *conn) execContext(ctx context.Context, s statement, args ...any) (int64, error) {
	res, err := c.prepared[s].(driver.StmtExecContext).ExecContext(ctx, c.bind(args))
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// rows calls each with every row that a prepared statement yields; the values in
// row are each's to keep, row is not.
func (c *conn) rows(ctx context.Context, s statement, args []any, columns int, each func(row []driver.Value) error) error {
	rows, err := c.prepared[s].(driver.StmtQueryContext).QueryContext(ctx, c.bind(args))
	if err != nil {
		return err
	}
	row := make([]driver.Value, columns)
	for {
		if err = rows.Next(row); err != nil {
			break
		}
		if err = each(row); err != nil {
			break
		}
	}
	if err == io.EOF {
		err = nil
	}
	return errors.Join(err, rows.Close())
}

// kindOf says which of our errors an SQLite result code amounts to, or nil.
func kindOf(code int) error {
	switch code & 0xff { // without the extension
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return ErrLocked
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return ErrReadOnly
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return ErrNotDatabase
	}
	return nil
}

func isBusy(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && kindOf(e.Code()) == ErrLocked
}

func isCannotOpen(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_CANTOPEN
}

func isReadOnlyFolder(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_READONLY_DIRECTORY
}

// mustWrite returns ErrReadOnly if SQLite opened the database for reading only,
// as it does without a word where the file's mode or the file system allows no
// more.
func (c *conn) mustWrite() error {
	ro, err := c.Conn.(interface {
		IsReadOnly(schema string) (bool, error)
	}).IsReadOnly("main")
	if err == nil && ro {
		err = ErrReadOnly
	}
	return err
}
