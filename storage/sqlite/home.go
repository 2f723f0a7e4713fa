package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// ErrMoved is a database whose files are not where they were opened any more:
// they were removed or renamed, or another disk was mounted over their folder.
// What is written to them would be nowhere after a restart. Every operation
// fails until they are back in their place.
var ErrMoved = errors.New("the database was moved or removed while it is in use")

// home says which files a connection has open, so that it can be told whether
// the paths still lead there.
type home struct {
	db, wal, shm os.FileInfo
	// folder is the folder of the files as it was just before a look that found them all in it. Zero if
	// there was none, or if a change of the folder might not show in its time.
	folder folder
}

// folder is a folder as a look at it found it. If two are equal, nothing in it was made, renamed or removed
// between the looks, as long as it was settled.
type folder struct {
	dev, ino uint64
	changed  time.Time // its ctime. Unlike the time of modification, nobody can set it back.
}

// settleTime is how long ago a folder must have changed for a later change to give it another time: that of
// ext3, and of ext4 with small inodes, goes in steps of 1 s, that of FAT in steps of 2 s. fineTime is the same
// for a time that is no whole second: then it goes in steps of the kernel's ticks, 10 ms at most, or of what a
// file server has.
const (
	settleTime = 3 * time.Second
	fineTime   = 200 * time.Millisecond
)

func (f folder) settled(now time.Time) bool {
	if f.changed.Nanosecond() != 0 {
		return now.Sub(f.changed) > fineTime
	}
	return now.Sub(f.changed) > settleTime
}

// findHome looks at the files of a connection that has just been opened.
func findHome(path string) (home, error) {
	var h home
	var err error
	if h.db, err = os.Stat(path); err != nil {
		return h, err
	}
	// Without a WAL, and the index of it that all processes share (-shm), the
	// database is open for reading only, on a read-only medium.
	if h.wal, err = os.Stat(path + "-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return h, err
	}
	if h.shm, err = os.Stat(path + "-shm"); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return h, err
}

// atHome returns ErrMoved unless the paths of the database lead to what c has
// open. It costs one stat as long as nothing happens in their folder, otherwise four.
func (r *Registry) atHome(c *conn) error {
	now, err := lookAtFolder(filepath.Dir(r.path))
	if err == nil && now == c.home.folder {
		return nil
	}
	c.home.folder = folder{}
	if err := r.lookHome(c); err != nil {
		return err
	}
	if err == nil && now.settled(r.now()) && isFile(r.path) {
		c.home.folder = now
	}
	return nil
}

// isFile reports whether a path leads to a file and is no symbolic link: the folder of such a link says nothing
// about the file.
func isFile(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().IsRegular()
}

// lookHome looks at each of the files.
func (r *Registry) lookHome(c *conn) error {
	if err := leadsTo(r.path, c.home.db); err != nil || c.home.wal == nil {
		return err
	}
	if err := leadsTo(r.path+"-wal", c.home.wal); err != nil {
		if r.writes {
			// The WAL that is open is lost when the last connection closes it. Until
			// then its batches can be saved into the database.
			err = errors.Join(err, c.foldWAL(background))
		}
		return err
	}
	if c.home.shm == nil {
		return nil
	}
	// Locks and the index of the WAL are in the -shm. A process that opens the
	// database beside another one writes over what this one appended to the WAL.
	return leadsTo(r.path+"-shm", c.home.shm)
}

// mayClose returns ErrMoved if SQLite would harm another's database when it
// closes the last connection c: it removes a WAL by its path, and folds it by an
// index that another process may have overtaken.
func (r *Registry) mayClose(c *conn) error {
	err := leadsTo(r.path, c.home.db)
	if err == nil && c.home.shm != nil {
		err = leadsTo(r.path+"-shm", c.home.shm)
	}
	return err
}

func leadsTo(path string, open os.FileInfo) error {
	now, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, open):
		return fmt.Errorf("%w: %s", ErrMoved, path)
	case err != nil:
		return err
	}
	return nil
}

// whenFree does again what found the database locked, until it is not, or until
// the busy timeout is over. SQLite itself does not wait where two processes turn a
// database to WAL mode, or fold its WAL, at the same moment.
func (r *Registry) whenFree(ctx context.Context, do func() error) error {
	for end := time.Now().Add(r.busyTimeout); ; {
		err := do()
		if !errors.Is(err, ErrLocked) && !isBusy(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// foldWAL writes all that the WAL holds into the database, durably, and empties
// it. Nobody can write while it waits for those who read.
func (c *conn) foldWAL(ctx context.Context) error {
	busy, err := c.checkpoint(ctx, "TRUNCATE")
	if err == nil && busy {
		err = fmt.Errorf("%w: its WAL cannot be folded into it", ErrLocked)
	}
	return err
}

// copyWAL is foldWAL as far as it can be done without waiting for anybody. Where nobody
// else has the database open that is all of it, and whoever writes next begins the
// WAL anew.
func (c *conn) copyWAL(ctx context.Context) error {
	_, err := c.checkpoint(ctx, "PASSIVE")
	return err
}

// checkpoint returns whether others kept it from being complete.
func (c *conn) checkpoint(ctx context.Context, mode string) (busy bool, err error) {
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, "PRAGMA wal_checkpoint("+mode+")", nil)
	if err != nil {
		return false, err
	}
	var row [3]driver.Value // whether it was busy, and two numbers of pages
	err = errors.Join(rows.Next(row[:]), rows.Close())
	return row[0] != int64(0), err
}
