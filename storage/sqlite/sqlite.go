// Package sqlite keeps the registry of clients and files in an SQLite
// database: the file defensive.db of the protocol documents ("Server
// Persistence with SQLite").
//
// The database is in WAL mode. One connection writes, one reads; a batch is one
// transaction, which is on stable storage before Apply returns. Timestamps are
// text, in UTC, so that a look with the sqlite3 program says something:
//
//	sqlite3 defensive.db "select hex(ID), Name, LastSeen from clients"
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"modernc.org/sqlite"

	"sealift/storage"
)

// What is wrong with a database that cannot be opened, or that stopped working.
// The errors of this package wrap one of these where one of them applies.
var (
	ErrLocked      = errors.New("another process holds the database locked")
	ErrReadOnly    = errors.New("the database cannot be written to")
	ErrFolder      = errors.New("SQLite cannot read the database without the right to write in its folder")
	ErrNotDatabase = errors.New("this is not an SQLite database, or a damaged one")
	ErrForeign     = errors.New("the database belongs to another program")
	ErrNewer       = errors.New("the database was made by a newer version of Sealift")
	ErrOlder       = errors.New("the database was made by an older version of Sealift")
	ErrClosed      = errors.New("the registry is closed")
)

// DefaultBusyTimeout is how long an operation waits for a lock that another
// process holds, unless Options say otherwise.
const DefaultBusyTimeout = 5 * time.Second

// Options of Open.
type Options struct {
	// Fsync makes every batch survive a power cut. Without it a batch survives
	// the end of the process, and the database stays whole after a power cut,
	// but it may have lost its last minutes.
	Fsync bool
	// BusyTimeout is how long to wait for a lock that another process holds, to
	// the millisecond. Zero is DefaultBusyTimeout.
	BusyTimeout time.Duration
	// Beside is for a process that does little, and beside a server that may be running:
	// it keeps nobody waiting but while it writes, and does not wait for those who read.
	Beside bool
}

// Registry is a storage.Registry in an SQLite database. It is safe for
// concurrent use.
type Registry struct {
	path        string
	pragma      []string // run on each new connection
	uri         string
	busyTimeout time.Duration
	now         func() time.Time
	writes      bool        // its connections must be able to
	db          os.FileInfo // the file that the first connection opened; all others must

	// The two connections, each in a channel of one that serves as a mutex which
	// can be waited for together with a context. A nil connection is opened by
	// the next who needs it: an error of the store costs its connection, since
	// what state it is in is anybody's guess.
	writer chan *conn // no connection at all in a read-only registry
	reader chan *conn

	// partials: there may be partial files on record. While there are none, a PutFile asks
	// nothing about them. Whoever has the writing connection owns it.
	partials bool
	beside   bool // another process may add partial files

	closing sync.Once
	closed  chan struct{}
}

var _ storage.Registry = (*Registry)(nil)

// Open opens the database at path for reading and writing, and makes it first
// if there is none: with mode 0600, because it holds the AES keys. Waiting for
// a lock ends with ctx. The error wraps ErrLocked, ErrReadOnly, ErrNotDatabase,
// ErrForeign or ErrNewer where one applies.
func Open(ctx context.Context, path string, o Options) (*Registry, error) {
	if err := create(path); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	// What SQLite does by itself where it was built for the system: the time of
	// the last change, which fsync writes as well, is not needed. Elsewhere than
	// on Linux there may be no such call.
	_, _ = sqlite.Fdatasync(true)
	synchronous := "NORMAL"
	if o.Fsync {
		synchronous = "FULL"
	}
	r, err := newRegistry(path, "rw", o.BusyTimeout)
	if err != nil {
		return nil, err
	}
	r.writes = true
	r.pragma = append(r.pragma,
		"PRAGMA synchronous = "+synchronous,
		"PRAGMA fullfsync = 1", // macOS: fsync alone stops at the drive's cache
		"PRAGMA checkpoint_fullfsync = 1",
		"PRAGMA wal_autocheckpoint = 4000",     // pages: 16 MiB of WAL, so that pages written often are copied seldom
		"PRAGMA journal_size_limit = 16777216", // and no more of it stays
	)
	c, err := r.connect(ctx, r.prepareSchema)
	if err != nil {
		return nil, r.failure("open", err)
	}
	// A server that was killed may have left frames in the WAL whose sync had
	// failed: they can be read from the page cache, but the disk does not have
	// them, and all that is appended behind them would be lost in a power cut.
	// In the database itself they are written and synced anew.
	fold := c.foldWAL
	if o.Beside {
		fold = c.copyWAL
	}
	if err := r.whenFree(ctx, func() error { return fold(ctx) }); err != nil {
		return nil, errors.Join(r.failure("open", err), c.close())
	}
	r.beside = o.Beside
	if err := r.lookForPartials(ctx, c); err != nil {
		return nil, errors.Join(r.failure("open", err), c.close())
	}
	r.writer = newSlot(c)
	return r, nil
}

// OpenReadOnly opens the database at path for Clients, Files, and batches that
// only read: GetClient and GetFile without At. It works beside a running
// server, and changes nothing in the database. The error wraps fs.ErrNotExist
// if there is no database, fs.ErrPermission or ErrFolder if the user may not read
// it, and otherwise what Open's does.
func OpenReadOnly(ctx context.Context, path string) (*Registry, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	r, err := newRegistry(path, "ro", 0)
	if err != nil {
		return nil, err
	}
	c, err := r.connect(ctx, checkSchema)
	if isCannotOpen(err) && !exists(path+"-wal") {
		// Nobody has it open, and on a read-only medium nobody will: SQLite can do
		// without the files that it wants to make beside it.
		r.uri += "&immutable=1"
		c, err = r.connect(ctx, checkSchema)
	}
	if err != nil {
		return nil, r.failure("open", r.whyUnread(err))
	}
	<-r.reader
	r.reader <- c
	return r, nil
}

// whyUnread returns err, or a better error if the user lacks a right. SQLite
// keeps files beside the database, and makes them if there are none.
func (r *Registry) whyUnread(err error) error {
	folder := isReadOnlyFolder(err)
	if !folder && !isCannotOpen(err) {
		return err
	}
	f, mayNot := os.Open(r.path)
	if mayNot != nil {
		return mayNot
	}
	_ = f.Close()
	if folder || exists(r.path+"-wal") && !exists(r.path+"-shm") {
		return ErrFolder
	}
	return err
}

func newRegistry(path, mode string, busyTimeout time.Duration) (*Registry, error) {
	uri, err := databaseURI(path, mode)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	if busyTimeout <= 0 {
		busyTimeout = DefaultBusyTimeout
	}
	return &Registry{
		path:        path,
		uri:         uri,
		busyTimeout: busyTimeout,
		now:         time.Now,
		pragma: []string{
			fmt.Sprintf("PRAGMA busy_timeout = %d", busyTimeout.Milliseconds()),
			// KiB for each connection. Twice as many, SQLite's default, are no faster, with
			// 400,000 clients neither: the kernel has the pages. Half as many cost 4 %.
			"PRAGMA cache_size = -1000",
		},
		reader: newSlot(nil),
		closed: make(chan struct{}),
	}, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func newSlot(c *conn) chan *conn {
	slot := make(chan *conn, 1)
	slot <- c
	return slot
}

// create makes an empty file where there is none, which SQLite takes for an
// empty database, and sees to it that its directory entry is durable. If that
// fails, it removes the file, for the next create to make it anew. SQLite gives
// the files beside it (-wal, -shm) the same mode.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := errors.Join(f.Close(), syncFolder(filepath.Dir(path))); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// syncFolder makes the entries of a folder durable.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" {
		return nil // no such thing as syncing a folder
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// take waits for the connection in slot, opening it if there is none.
func (r *Registry) take(ctx context.Context, slot chan *conn) (*conn, error) {
	var c *conn
	select {
	case c = <-slot:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.closed:
		return nil, ErrClosed
	}
	if c != nil {
		return c, nil
	}
	c, err := r.connect(ctx, checkSchema)
	if err != nil {
		slot <- nil
		return nil, err
	}
	return c, nil
}

// give returns what take gave. A connection that has seen a failure goes.
func (r *Registry) give(slot chan *conn, c *conn, failed bool) {
	if failed {
		c.close()
		c = nil
	}
	slot <- c
}

// Close waits for the batch under way and closes the database. What comes later
// gets ErrClosed.
func (r *Registry) Close() error {
	var err error
	r.closing.Do(func() {
		close(r.closed)
		// The writer last: the last connection to go folds the WAL into the
		// database, which a read-only one could not.
		for _, slot := range []chan *conn{r.reader, r.writer} {
			if slot == nil {
				continue
			}
			c := <-slot
			if c == nil {
				continue
			}
			if moved := r.mayClose(c); moved != nil {
				err = errors.Join(err, r.failure("close", moved))
				continue
			}
			err = errors.Join(err, c.close())
		}
	})
	return err
}

// failure makes an error of the store say what a user can do something about.
func (r *Registry) failure(doing string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrClosed) {
		return err
	}
	var e *sqlite.Error
	if errors.As(err, &e) {
		if kind := kindOf(e.Code()); kind != nil {
			return fmt.Errorf("database %s: %s: %w (%w)", r.path, doing, kind, err)
		}
	}
	return fmt.Errorf("database %s: %s: %w", r.path, doing, err)
}
