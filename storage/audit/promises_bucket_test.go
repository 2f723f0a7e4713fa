package audit_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/memory"
	"sealift/storage/storagetest"
)

// servers are those that share a registry and a bucket: each life is another one's.
type servers struct {
	reg    *memory.Registry
	bucket *storagetest.Bucket
	store  *storagetest.BucketFiles
	now    time.Time
}

func newServers() *servers {
	m := &servers{bucket: storagetest.NewBucket(), now: now}
	m.reg = memory.NewAt(func() time.Time { return m.now })
	return m
}

func (m *servers) Start(t *testing.T, step func()) (storage.Registry, storage.Files) {
	m.store = m.bucket.Server(storagetest.LeaseFrom(m.reg, "a", 5*time.Minute))
	m.bucket.Step = nil
	// What the last server was about to remove, this one does.
	if _, err := audit.Clear(t.Context(), m.reg, m.store, audit.Options{}); err != nil {
		t.Fatal(err)
	}
	m.sweep(t)
	m.bucket.Step = func(string, storage.Uploaded) error {
		step()
		return nil
	}
	return m.reg, m.store
}

// sweep sweeps once all leases have run out, and checks that nothing is left that is not on
// record.
func (m *servers) sweep(t *testing.T) {
	t.Helper()
	m.now = m.now.Add(2 * time.Hour)
	if _, err := audit.Sweep(t.Context(), m.reg, m.store, audit.SweepOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, up := range m.bucket.Uploads() {
		find := &storage.FindUpload{Upload: up}
		if err := m.reg.Apply(t.Context(), []storage.Operation{find}); err != nil || !find.Found {
			t.Errorf("%v: %+v is left over", err, up)
		}
	}
}

func (m *servers) Kill(*testing.T) { m.store.Kill() }

func (m *servers) Cut(*testing.T, *rand.Rand) { m.store.Kill() }

func (m *servers) Expire(t *testing.T, svc *session.Service, now time.Time) {
	_, err := audit.Expire(t.Context(), m.reg, m.store, audit.Options{
		UnverifiedTTL: time.Minute, Now: now, Exclusive: svc.Exclusive, Dropped: svc.Dropped, Finished: svc.Finished, Forgotten: svc.Forgotten,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (m *servers) Clear(t *testing.T, svc *session.Service) error {
	_, err := audit.Clear(t.Context(), m.reg, m.store, audit.Options{
		Exclusive: svc.Exclusive, Dropped: svc.Dropped, Finished: svc.Finished, Forgotten: svc.Forgotten,
	})
	return err
}

func (m *servers) FailSyncs(bool) {}

func (m *servers) Remove(t *testing.T, id codec.ClientID, path string) {
	get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: id, Path: path}
	if err := m.reg.Apply(t.Context(), []storage.Operation{get}); err != nil {
		t.Fatal(err)
	}
	if err := m.store.Remove(t.Context(), get.Verified.Stored()); err != nil {
		t.Fatal(err)
	}
}

// What a 1029 is answered is true, whichever of the servers on a bucket answers, and whatever was
// under way when the one before was killed.
func TestPromisesOfABucket(t *testing.T) {
	seed, rounds := uint64(storagetest.Seed), 50
	storagetest.Promises(t, seed, rounds, true, func(*testing.T) storagetest.Machine { return newServers() })
}
