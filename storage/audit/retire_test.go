package audit_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/memory"
)

// Files go when they are older than their client's own time, or that of all. What is
// missing, taken, waiting, or of an unknown age stays, and a dry run changes nothing.
func TestRetire(t *testing.T) {
	w := newWorld(t)
	old := func(path string, age time.Duration) {
		t.Helper()
		w.store(path, oldContent)
		f := *w.get(path).Verified
		f.Received = time.Time{}
		if age > 0 {
			f.Received = now.Add(-age)
		}
		w.apply(&storage.PutFile{File: f})
		w.apply(&storage.VerifyFile{ID: alice, Path: path, Incoming: f.Incoming})
	}
	old("new", time.Hour)
	old("old", 3*time.Hour)
	old("very old", 5*time.Hour)
	old("of an unknown age", 0)
	old("missing", 5*time.Hour)
	w.apply(&storage.MarkFile{ID: alice, Path: "missing", Incoming: w.get("missing").Verified.Incoming, Missing: true})
	old("taken", 5*time.Hour)
	w.take("taken")
	w.put(w.receive("waits"), "waits", "waits")
	if err := w.reg.(*memory.Registry).SetTargets(t.Context(), []string{"test"}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		all, own time.Duration
		want     []string
	}{
		{0, 0, nil},
		{6 * time.Hour, 0, nil},
		{4 * time.Hour, storage.Unlimited, nil},
		{4 * time.Hour, 6 * time.Hour, nil},
		{4 * time.Hour, 0, []string{"very old"}},
		{0, 4 * time.Hour, []string{"very old"}},
		{4 * time.Hour, 2 * time.Hour, []string{"old", "very old"}},
	} {
		w.apply(&storage.SetKeepFor{ID: alice, KeepFor: tt.own})
		var got []string
		n, err := audit.Retire(t.Context(), w.reg, audit.RetireOptions{
			Now: now, KeepFor: tt.all, DryRun: true, Each: func(f *storage.File) { got = append(got, f.Path) },
		})
		if slices.Sort(got); err != nil || n != len(got) || !slices.Equal(got, tt.want) {
			t.Errorf("all for %v, this client's for %v: %q (%d) go, %v; want %q", tt.all, tt.own, got, n, err, tt.want)
		}
	}
	w.apply(&storage.SetKeepFor{ID: alice})
	w.clear(audit.Report{audit.Taken: 1})
	retire := func(want int) {
		t.Helper()
		if n, err := audit.Retire(t.Context(), w.reg, audit.RetireOptions{Now: now, KeepFor: 2 * time.Hour}); n != want || err != nil {
			t.Errorf("%d files go, %v, want %d", n, err, want)
		}
	}
	retire(2)
	retire(0)
	w.clear(audit.Report{audit.Deleted: 2})
	told := map[storage.EventKind]int{}
	_ = w.reg.(*memory.Registry).ListEvents(t.Context(), func(e storage.Event) error {
		told[e.Kind]++
		return nil
	})
	if want := map[storage.EventKind]int{storage.EventExpired: 2, storage.EventRemoved: 3}; !maps.Equal(told, want) {
		t.Errorf("told is %v, want %v", told, want)
	}
	w.get("new")
}

// The count of clients for whom a quota stands is compared with their files.
func TestCompareUsage(t *testing.T) {
	w := newWorld(t)
	compare := func(want ...storage.Usage) {
		t.Helper()
		var got []storage.Usage
		err := audit.CompareUsage(t.Context(), w.reg, func(c *storage.Client, kept, actual storage.Usage) {
			if c.ID != alice {
				t.Errorf("it is %v", c)
			}
			got = append(got, kept, actual)
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	w.store(path, oldContent)
	compare()
	ten := int64(10)
	w.apply(&storage.SetQuota{ID: alice, Files: &ten})
	one := storage.Usage{Bytes: int64(len(oldContent)), Files: 1}
	compare(one, one)
}
