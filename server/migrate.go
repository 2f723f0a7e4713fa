package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// MigrateOptions are about a Migrate.
type MigrateOptions struct {
	Verify bool // read everything back at the end
	// Moved is called with how many bytes of how many are moved, and Verified with how many are
	// read back.
	Moved, Verified func(done, total int64)
	// Wrong is called with each file whose content is missing or damaged: it stays in the
	// directory, and is on record as missing if it was verified.
	Wrong func(File, error)
	// Left is called with each partial file that cannot be moved: its client begins anew.
	Left func(Partial, error)
}

// Migrated is what Migrate has moved; see [audit.Moved].
type Migrated struct {
	audit.Moved
	Before bool // it was all done before
	Wrong  int  // files whose content is missing or damaged
}

// Migrate moves what the server in dir has, which must not run, to a PostgreSQL or a bucket or both:
// at.Registry and at.Files; what is "" stays in dir. The new stores must be empty. Migrate may be
// killed at any moment and called again: it goes on. When it is done, dir is marked, so that no
// server goes on with what was left there.
//
//  1. The file named moved says that it has begun: from then on no server starts in dir.
//  2. [audit.Move] copies everything, and compares it.
//  3. Where the registry stays a database, a new one was made beside the old, since content has
//     other keys in a bucket. It takes the place of the old one.
//  4. The file says that it is done.
func Migrate(ctx context.Context, dir string, at Stores, o MigrateOptions) (done Migrated, err error) {
	if err := checkTarget(&at); err != nil {
		return done, err
	}
	at.Dir = dir
	m := &migration{MigrateOptions: o, dir: dir, at: at}
	defer func() { err = errors.Join(err, m.close(), m.unlock()) }()
	if err := m.openSource(ctx); err != nil {
		return done, err
	}
	switch {
	case m.mark.State == moveDone:
		done.Before = true
		return done, nil
	case m.mark.State == moveBegun || m.mark.State == "":
		if done, err = m.move(ctx); err != nil {
			return done, err
		}
	}
	return done, m.finish()
}

// checkTarget checks where to move to.
func checkTarget(at *Stores) error {
	if at.database() && at.folder() {
		return errors.New("--to is not set: want postgres://… or s3://… or both")
	}
	s := Storage{Registry: at.Registry, Files: at.Files}
	if err := s.complete(); err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	return nil
}

// migration is one Migrate.
type migration struct {
	MigrateOptions
	dir  string
	at   Stores // where to
	mark moved
	// resumed: an earlier Migrate has begun.
	resumed bool
	total   int64
	wrong   int

	store   *files.Store // of the directory, which it locks
	taking  underway     // see checkTaking; nil: it is not locked
	from    *sqlite.Registry
	to      storage.Registry
	toFiles fileStore // nil: they stay
	stop    func()    // what goes on beside; may be nil
}

// close closes all but the directory.
func (m *migration) close() error {
	if m.stop != nil {
		m.stop()
	}
	var errs []error
	if m.toFiles != nil {
		errs = append(errs, m.toFiles.Close())
	}
	if m.to != nil {
		errs = append(errs, m.to.Close())
	}
	m.to, m.toFiles, m.stop = nil, nil, nil
	if m.from != nil {
		errs = append(errs, m.from.Close())
		m.from = nil
	}
	return errors.Join(errs...)
}

// unlock gives the directory back.
func (m *migration) unlock() (err error) {
	if m.store != nil {
		err = m.store.Close()
		m.store = nil
	}
	if m.taking != nil {
		m.taking.unlock()
		m.taking = nil
	}
	return err
}

// move copies everything.
func (m *migration) move(ctx context.Context) (done Migrated, err error) {
	if err := m.settle(ctx); err != nil {
		return done, err
	}
	if err := m.openTarget(ctx); err != nil {
		return done, err
	}
	if err := m.begin(ctx); err != nil {
		return done, err
	}
	targets, err := m.from.Targets(ctx)
	if err != nil {
		return done, err
	}
	if m.total, err = m.measure(ctx); err != nil {
		return done, err
	}
	var moved int64
	m.Moved(0, m.total)
	copying := &audit.Move{
		From: m.from, To: m.to, FromFiles: m.store, Targets: targets, Workers: moveWorkers,
		Done: func(n int64) {
			moved += n
			m.Moved(moved, m.total)
		},
		Wrong: func(f File, why error) {
			m.wrong++
			m.Wrong(f, why)
		},
		Left: m.Left,
	}
	if m.toFiles != nil {
		copying.ToFiles = m.toFiles
	}
	done.Moved, err = copying.Run(ctx)
	if err == nil && m.resumed && m.toFiles != nil {
		err = m.sweep(ctx)
	}
	if err == nil && m.Verify {
		err = m.readBack(ctx)
	}
	done.Wrong = m.wrong
	return done, explainMove(err)
}

// moveWorkers is how many files are sent at a time: the answers of a bucket take their time.
const moveWorkers = 4

// settle puts the directory in order, as a server does at its start.
func (m *migration) settle(ctx context.Context) error {
	_, err := audit.Recover(ctx, m.from, m.store, audit.Options{Now: time.Now()})
	var gone *audit.FilesGoneError
	if errors.As(err, &gone) {
		return &Hinted{Err: err, Hint: "Is the right disk mounted? To move without them: sealiftd forget-missing --dir " + m.dir}
	}
	return err
}

// begin writes down where the directory is moved to, once it is certain that nothing else is
// there.
func (m *migration) begin(ctx context.Context) (err error) {
	m.resumed = m.mark.State == moveBegun
	if !m.resumed {
		if err := m.checkEmpty(ctx); err != nil {
			return err
		}
	}
	if bucket, ok := m.toFiles.(claimable); ok {
		if err := claim(ctx, m.to, bucket, m.dir, m.at.Files); err != nil {
			return err
		}
	}
	id := rand.Text()
	if secrets, ok := m.to.(storage.Secrets); ok {
		if id, err = m.agree(ctx, secrets, id); err != nil {
			return err
		}
	}
	if !m.resumed {
		m.mark.State, m.mark.ID = moveBegun, id
		return m.mark.write(m.dir)
	}
	if m.mark.ID != id && !m.at.database() {
		return fmt.Errorf("%s has records of something else than %s: want an empty one", m.mark.Registry, m.dir)
	}
	if m.toFiles == nil {
		return nil
	}
	return m.dropLeft(ctx)
}

// agree has the new registry keep which move it is part of, id or the one that is kept
// already, and the TLS key. It sets the name of the registry.
func (m *migration) agree(ctx context.Context, secrets storage.Secrets, id string) (string, error) {
	kept, err := secrets.Secret(ctx, "moved here", func() ([]byte, error) { return []byte(id), nil })
	if err != nil {
		return "", err
	}
	if m.mark.Name, err = registryName(ctx, m.to); err != nil {
		return "", err
	}
	if err := keepTogether(ctx, secrets, m.at.Files); err != nil {
		return "", err
	}
	if m.toFiles != nil { // servers show the same TLS key where they share both
		_, err = sharedPair(ctx, m.dir, secrets)
	}
	return string(kept), err
}

// measure returns how many bytes are to be moved.
func (m *migration) measure(ctx context.Context) (total int64, err error) {
	if m.toFiles == nil {
		return 0, nil
	}
	err = m.from.Files(ctx, func(f File) error {
		if !f.Deleted && (!f.Verified || !f.Missing && f.Taken.IsZero()) {
			total += f.Size
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return total, m.from.Partials(ctx, func(p Partial) error {
		if !p.Deleted {
			total += p.Length
		}
		return nil
	})
}

// readBack reads everything in the new stores.
func (m *migration) readBack(ctx context.Context) error {
	var store storage.Files = m.store
	if m.toFiles != nil {
		store = m.toFiles
	}
	var done, bad int64
	err := audit.Verify(ctx, m.to, store, func(f File, fault error) {
		if fault != nil && !f.Missing {
			bad++
			m.Wrong(f, fault)
		}
		done += f.Size
		m.Verified(done, max(done, m.total))
	})
	if err == nil && bad > 0 {
		err = fmt.Errorf("%s read back are not what was sent", countFiles(int(bad)))
	}
	return err
}

// explainMove adds what to do.
func explainMove(err error) error {
	if err == nil || Hint(err) != "" {
		return err
	}
	if errors.Is(err, storage.ErrBadRows) {
		return &Hinted{Err: err, Hint: "Somebody has changed the database by hand. sealiftd files and clients say what they cannot read; put that right, then run this again."}
	}
	return &Hinted{Err: err, Hint: "Nothing was lost: the directory is as it was. Run this again: it goes on where it was."}
}

// finish has what was moved take the place of the directory.
func (m *migration) finish() error {
	if err := m.close(); err != nil {
		return err
	}
	if m.at.database() {
		if m.mark.State != moveSwaps {
			m.mark.State = moveSwaps
			if err := m.mark.write(m.dir); err != nil {
				return err
			}
		}
		if err := m.swap(); err != nil {
			return err
		}
	}
	_ = os.Remove(filepath.Join(m.dir, scratchFolder)) // where it is empty
	m.mark.State = moveDone
	return m.mark.write(m.dir)
}

// swap puts the new database in the place of the old one. It may be killed and called again.
func (m *migration) swap() error {
	path := func(name string) string { return filepath.Join(m.dir, name) }
	_, err := os.Lstat(path(newDatabase))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is in its place
	}
	if err != nil {
		return err
	}
	for _, name := range []string{DatabaseName, newDatabase} {
		if info, err := os.Lstat(path(name + "-wal")); err == nil && info.Size() > 0 {
			return fmt.Errorf("%s-wal is not empty: another program has the database open", path(name))
		}
	}
	switch err := os.Rename(path(DatabaseName), path(oldDatabase)); {
	case errors.Is(err, fs.ErrNotExist): // it was renamed before a kill
	case err != nil:
		return err
	default:
		for _, suffix := range []string{"-wal", "-shm"} {
			if err := os.Remove(path(DatabaseName + suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := syncFolder(m.dir); err != nil {
			return err
		}
	}
	if err := os.Rename(path(newDatabase), path(DatabaseName)); err != nil {
		return err
	}
	return syncFolder(m.dir)
}
