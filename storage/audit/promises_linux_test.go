package audit_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/memory"
	"sealift/storage/sqlite"
	"sealift/storage/storagetest"
	"sealift/storage/storagetest/power"
)

// machine is a server's directory with a database in it.
type machine struct {
	dir     string
	failing bool
	db      *power.Database
	disk    *power.Folder
	reg     storage.Registry
	store   *files.Store
	rnd     *rand.Rand
	cut     bool // the last life ended with a power cut
}

func newMachine(t *testing.T) *machine {
	m := &machine{dir: t.TempDir(), rnd: rand.New(rand.NewPCG(3, 4))}
	m.db = power.Watch(m.dir, func(string) bool { return m.failing && m.rnd.IntN(3) == 0 })
	m.disk = power.WatchFolder(m.dir)
	return m
}

func (m *machine) Start(t *testing.T, step func()) (storage.Registry, storage.Files) {
	reg, err := sqlite.Open(t.Context(), filepath.Join(m.dir, "defensive.db"), sqlite.Options{Fsync: true})
	if err != nil {
		t.Fatal(err)
	}
	m.reg = reg
	return m.start(t, step)
}

func (m *machine) start(t *testing.T, step func()) (storage.Registry, storage.Files) {
	store, err := files.Open(m.dir, files.Options{Fsync: true, Faults: m.disk.Faults()})
	if err != nil {
		t.Fatal(err)
	}
	m.store = store
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
	db, err := m.db.Kill(to)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := m.disk.Kill(to)
	if err != nil {
		t.Fatal(err)
	}
	m.bury(to, db, disk)
}

func (m *machine) Cut(t *testing.T, rnd *rand.Rand) {
	to := t.TempDir()
	db, err := m.db.Cut(to, rnd)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := m.disk.Cut(to, rnd)
	if err != nil {
		t.Fatal(err)
	}
	m.cut = true
	m.bury(to, db, disk)
}

func (m *machine) bury(to string, db *power.Database, disk *power.Folder) {
	m.disk.Step, m.disk.Fail = nil, nil
	_, _ = m.reg.Close(), m.store.Close()
	_ = os.RemoveAll(m.dir)
	m.dir, m.db, m.disk = to, db, disk
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

// promiseSeed is the seed of the rounds. Another one can be had by SEALIFT_SEED.
func promiseSeed(t *testing.T) uint64 {
	text := os.Getenv("SEALIFT_SEED")
	if text == "" {
		return storagetest.Seed
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

// What a 1029 is answered is true, whatever a server's life ends with.
func TestPromises(t *testing.T) {
	storagetest.Promises(t, promiseSeed(t), 50, true, func(t *testing.T) storagetest.Machine { return newMachine(t) })
}

type mortal struct{ *machine }

func (m mortal) Start(t *testing.T, step func()) (storage.Registry, storage.Files) {
	m.reg = memory.New()
	return m.start(t, step)
}

func TestPromisesInMemory(t *testing.T) {
	storagetest.Promises(t, promiseSeed(t), 50, false, func(t *testing.T) storagetest.Machine { return mortal{newMachine(t)} })
}

// What was recorded of a partial file is there, whatever a server's life ends with.
func TestPartialPromises(t *testing.T) {
	storagetest.PartialPromises(t, promiseSeed(t), 20, func(t *testing.T) storagetest.Machine { return newMachine(t) })
}
