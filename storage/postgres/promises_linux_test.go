package postgres

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sealift/codec"
	"sealift/internal/testservices"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/storagetest"
	"sealift/storage/storagetest/power"
)

// machine is a server's directory, with its registry in PostgreSQL, which may crash when the
// server does.
type machine struct {
	postgres *testservices.Postgres
	url      string
	dir      string
	failing  bool
	disk     *power.Folder
	reg      *Registry
	store    *files.Store
	rnd      *rand.Rand
	cut      bool // the last life ended with a power cut
	lives    int
}

func newMachine(t *testing.T, p *testservices.Postgres) *machine {
	url, err := p.Database()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{postgres: p, url: url, dir: t.TempDir(), rnd: rand.New(rand.NewPCG(3, 4))}
	m.disk = power.WatchFolder(m.dir)
	return m
}

func (m *machine) Start(t *testing.T, step func()) (storage.Registry, storage.Files) {
	reg, err := Open(t.Context(), m.url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	store, err := files.Open(m.dir, files.Options{Fsync: true, Faults: m.disk.Faults()})
	if err != nil {
		t.Fatal(err)
	}
	m.reg, m.store = reg, store
	m.disk.Fail = func() bool { return m.failing && m.rnd.IntN(3) == 0 }
	m.disk.Step = nil
	if _, err := audit.Recover(t.Context(), m.reg, store, audit.Options{}); err != nil {
		t.Fatal(err)
	}
	if m.cut { // all partial files are another boot's; the test gives each boot the same name
		for _, boot := range []string{"after a power cut", storagetest.PartialBoot} {
			if err := audit.CheckPartials(t.Context(), m.reg, store, audit.PartialOptions{Boot: boot}); err != nil {
				t.Fatal(err)
			}
		}
		m.cut = false
	}
	m.disk.Step = step
	return m.reg, store
}

func (m *machine) Kill(t *testing.T) {
	to := t.TempDir()
	disk, err := m.disk.Kill(to)
	if err != nil {
		t.Fatal(err)
	}
	m.bury(t, to, disk)
}

func (m *machine) Cut(t *testing.T, rnd *rand.Rand) {
	to := t.TempDir()
	disk, err := m.disk.Cut(to, rnd)
	if err != nil {
		t.Fatal(err)
	}
	m.cut = true
	m.bury(t, to, disk)
}

func (m *machine) bury(t *testing.T, to string, disk *power.Folder) {
	m.disk.Step, m.disk.Fail = nil, nil
	if m.lives++; m.lives%8 == 0 { // with the connections of the life that ends
		if err := m.postgres.Crash(); err != nil {
			t.Fatal(err)
		}
		if err := m.postgres.Start(); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = m.reg.Close(), m.store.Close()
	_ = os.RemoveAll(m.dir)
	m.dir, m.disk = to, disk
}

func (m *machine) Expire(t *testing.T, svc *session.Service, now time.Time) {
	_, err := audit.Expire(t.Context(), m.reg, m.store, audit.Options{
		UnverifiedTTL: time.Minute, Now: now, Exclusive: svc.Exclusive, Dropped: svc.Dropped, Finished: svc.Finished, Forgotten: svc.Forgotten,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (m *machine) Clear(t *testing.T, svc *session.Service) error {
	_, err := audit.Clear(t.Context(), m.reg, m.store, audit.Options{
		Exclusive: svc.Exclusive, Dropped: svc.Dropped, Finished: svc.Finished, Forgotten: svc.Forgotten,
	})
	return err
}

func (m *machine) FailSyncs(fail bool) { m.failing = fail }

func (m *machine) Remove(t *testing.T, id codec.ClientID, path string) {
	if err := os.Remove(filepath.Join(m.dir, "files", id.String(), path)); err != nil {
		t.Fatal(err)
	}
}

// What a 1029 is answered is true, whatever a server's life ends with, and the database's.
func TestPromises(t *testing.T) {
	// It need not sync: its process ends, not the machine. With it, recovery syncs each of
	// thousands of files.
	p := testservices.NewPostgres(t, testservices.PostgresOptions{})
	storagetest.Promises(t, storagetest.Seed, 12, true, func(t *testing.T) storagetest.Machine { return newMachine(t, p) })
}

// What was recorded of a partial file is there, whatever a server's life ends with.
func TestPartialPromises(t *testing.T) {
	p := testservices.NewPostgres(t, testservices.PostgresOptions{})
	storagetest.PartialPromises(t, storagetest.Seed, 6, func(t *testing.T) storagetest.Machine { return newMachine(t, p) })
}
