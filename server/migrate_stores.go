package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/postgres"
	"sealift/storage/s3"
	"sealift/storage/sqlite"
)

// The stores of a Migrate: the directory, which is locked, and what it is moved to.

// openSource takes the directory, and reads how far an earlier Migrate has come.
func (m *migration) openSource(ctx context.Context) (err error) {
	if _, err = os.Stat(m.dir); errors.Is(err, fs.ErrNotExist) {
		return &Hinted{Err: fmt.Errorf("--from %s does not exist", m.dir), Hint: "Is the right disk mounted?"}
	}
	if err = checkDir(m.dir); err != nil {
		return err
	}
	if m.mark, err = readMoved(m.dir); err != nil {
		return err
	}
	registry, bucket := "", ""
	if !m.at.database() {
		registry = storeTold(m.at.Registry)
	}
	if !m.at.folder() {
		bucket = storeTold(m.at.Files)
	}
	if m.mark.State != "" && (m.mark.Registry != registry || m.mark.Files != bucket) {
		return &Hinted{
			Err:  fmt.Errorf("%s is moved to %s, not to what --to says", m.dir, m.mark.to()),
			Hint: "Give the same --to as before. To begin anew with another: remove " + filepath.Join(m.dir, movedName) + ", and what was copied.",
		}
	}
	if m.mark.State == moveDone {
		return nil
	}
	if m.mark.State != moveSwaps {
		if err = checkRecords(ctx, m.dir); err != nil && !errors.Is(err, sqlite.ErrOlder) {
			return err
		}
	}
	m.store, err = files.Open(m.dir, files.Options{Fsync: true})
	if errors.Is(err, files.ErrLocked) {
		return &Hinted{Err: err, Hint: "Stop the server first: what it receives meanwhile would be lost."}
	}
	if err != nil {
		return err
	}
	if again, err := readMoved(m.dir); err != nil || again != m.mark {
		return errors.Join(err, fmt.Errorf("%s: another sealiftd migrate was at work there until now", m.dir))
	}
	m.mark.Registry, m.mark.Files = registry, bucket
	if m.mark.State == moveSwaps {
		return nil
	}
	if m.from, err = sqlite.Open(ctx, filepath.Join(m.dir, DatabaseName), sqlite.Options{Fsync: true}); err != nil {
		return err
	}
	return m.checkTaking(ctx)
}

// checkTaking returns an error if a command that took files was killed while it recorded them:
// which of them are taken, it finds out best where they are. It has commands that still take
// files wait until m is closed.
func (m *migration) checkTaking(ctx context.Context) error {
	u, err := lockUnderway(ctx, m.dir)
	if err != nil {
		return err
	}
	m.taking = u
	batch, to, err := u.get()
	if err == nil && batch != "" {
		err = &Hinted{
			Err:  fmt.Errorf("a command that took files to %s was killed, and has to be finished first", to),
			Hint: "Run sealiftd file take again, with --to " + to + ".",
		}
	}
	return err
}

// checkEmpty returns an error if there is something in the new stores.
func (m *migration) checkEmpty(ctx context.Context) error {
	empty, err := isEmpty(ctx, m.to)
	if err == nil && empty {
		err = m.to.Added(ctx, func(string) error { return errFound })
		if errors.Is(err, errFound) {
			empty, err = false, nil
		}
	}
	if err == nil && !empty {
		err = &Hinted{
			Err:  fmt.Errorf("%s has records: want an empty one", m.mark.Registry),
			Hint: "Name another database, or another schema: …?search_path=NAME.",
		}
	}
	before := filepath.Join(m.dir, oldDatabase)
	if _, e := os.Lstat(before); err == nil && m.at.database() && !errors.Is(e, fs.ErrNotExist) {
		err = fmt.Errorf("%s is there, from an earlier move: want it out of the way", before)
	}
	if err != nil || m.toFiles == nil {
		return err
	}
	holds, err := hasContent(ctx, m.toFiles)
	if err == nil && holds {
		err = &Hinted{
			Err:  fmt.Errorf("%s has files: want an empty bucket, or a prefix of which there is nothing", m.mark.Files),
			Hint: "Name another prefix: s3://BUCKET/PREFIX.",
		}
	}
	return err
}

// sweep removes content that nothing on record names: what a Migrate that was killed had sent
// may have become an object after the next one had looked.
func (m *migration) sweep(ctx context.Context) error {
	store, ok := m.toFiles.(audit.Contents)
	if !ok {
		return nil
	}
	_, err := audit.Sweep(ctx, m.to, store, audit.SweepOptions{})
	return err
}

// scratchFolder is where content on its way to a bucket is, in a server's directory.
const scratchFolder = "scratch"

// openTarget opens the new stores.
func (m *migration) openTarget(ctx context.Context) (err error) {
	if m.at.database() {
		m.to, err = openNewDatabase(ctx, filepath.Join(m.dir, newDatabase), m.mark.State == moveBegun)
	} else {
		m.to, err = m.openPostgres(ctx)
	}
	if err != nil || m.at.folder() {
		return err
	}
	return m.openBucket(ctx)
}

// openPostgres opens the PostgreSQL, and has it for this Migrate alone among others.
func (m *migration) openPostgres(ctx context.Context) (storage.Registry, error) {
	reg, err := postgres.Open(ctx, m.at.Registry, commandOptions)
	if err != nil {
		return nil, explainPostgres("--to", err)
	}
	_, _, ok, err := reg.TryLock(ctx, "migrate") // until it is closed
	if err == nil && !ok {
		err = errors.New("another sealiftd migrate is at work there")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--to %s: %w", m.mark.Registry, err), reg.Close())
	}
	return reg, nil
}

// openNewDatabase opens the database that is to take the place of another. Unless it was begun,
// what is there is what a Migrate has left that was killed before it had begun.
func openNewDatabase(ctx context.Context, path string, begun bool) (*sqlite.Registry, error) {
	if !begun {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	return sqlite.Open(ctx, path, sqlite.Options{Fsync: true})
}

// openBucket opens the bucket, removes what a Migrate that was killed has left on its way, and
// renews the leases of what is on its way until m is closed.
func (m *migration) openBucket(ctx context.Context) error {
	store, err := s3.Open(ctx, m.at.Files, s3.Options{
		Scratch: filepath.Join(m.dir, scratchFolder),
		Lease: func(ctx context.Context, up storage.Uploaded) error {
			return applyOwn(ctx, m.to, &storage.LeaseUpload{Upload: up, Server: m.lessee(), For: leaseFor})
		},
		Release: func(ctx context.Context, key string) error { return applyOwn(ctx, m.to, &storage.EndLease{Key: key}) },
	})
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	m.toFiles = store
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	var renewing sync.WaitGroup
	renewing.Go(func() { m.renewLeases(beside, store) })
	m.stop = func() {
		stop()
		renewing.Wait()
	}
	return nil
}

// lessee is who has the leases of what is on its way.
func (m *migration) lessee() string { return "migrate " + m.mark.ID }

// renewLeases renews them until ctx ends. What fails shows where content is recorded.
func (m *migration) renewLeases(ctx context.Context, store *s3.Store) {
	ticker := time.NewTicker(leaseFor / renewParts)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for keys := range slices.Chunk(store.Leased(), renewBatch) {
			op := &storage.RenewLeases{Server: m.lessee(), Keys: keys, For: leaseFor}
			if applyOwn(ctx, m.to, op) == nil && len(op.Lost) > 0 {
				store.Lost(op.Lost)
			}
		}
	}
}

// dropLeft removes what an earlier run was sending when it was killed.
func (m *migration) dropLeft(ctx context.Context) error {
	var left []storage.Uploaded
	err := m.to.EachLease(ctx, func(l storage.Lease) error {
		if l.Server == m.lessee() {
			left = append(left, l.Upload)
		}
		return nil
	})
	for _, up := range left {
		if err != nil {
			return err
		}
		if err = applyOwn(ctx, m.to, &storage.EndLease{Key: up.Key}); err != nil {
			return err
		}
		find := &storage.FindUpload{Upload: up}
		if err = applyOwn(ctx, m.to, find); err == nil && !find.Found {
			err = m.toFiles.Discard(ctx, up)
		}
	}
	return err
}
