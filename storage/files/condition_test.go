package files

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The reserve may change while somebody looks.
func TestConditionWhileTheReserveChanges(t *testing.T) {
	s := open(t, t.TempDir(), Options{MinFree: 1})
	var changing sync.WaitGroup
	changing.Go(func() { s.Keep(2) })
	if c, err := s.Condition(); err != nil || c.Reserve != 1 && c.Reserve != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	changing.Wait()
	if c, err := s.Condition(); err != nil || c.Reserve != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}

// A look at the store says how much room there is, and whether it is in its place.
func TestCondition(t *testing.T) {
	var free atomic.Int64
	free.Store(1000)
	dir := t.TempDir()
	s := open(t, dir, Options{MinFree: 1000, Faults: &Faults{Free: func(int64) int64 { return free.Load() }}})
	c, err := s.Condition()
	if err != nil || !c.Known || c.Free != 1000 || c.Reserve != 1000 || c.Short() || c.Moved != nil {
		t.Fatalf("%+v, %v", c, err)
	}
	free.Store(999)
	if c, _ = s.Condition(); !c.Short() {
		t.Errorf("%+v: want that the reserve is taken", c)
	}
	if err := os.Rename(filepath.Join(dir, "files"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if c, _ = s.Condition(); !errors.Is(c.Moved, ErrMoved) {
		t.Errorf("%+v: want that it was moved", c)
	}
	if err := os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "files")); err != nil {
		t.Fatal(err)
	}
	if c, _ = s.Condition(); c.Moved != nil {
		t.Errorf("%+v: it is back", c)
	}
}

// Each sync of content and of folders is told, with its time.
func TestSynced(t *testing.T) {
	var content, folders atomic.Int64
	s := open(t, t.TempDir(), Options{Fsync: true, Synced: func(op Op, took time.Duration) {
		if took < 0 {
			t.Errorf("%s took %v", op, took)
		}
		if op == SyncFile {
			content.Add(1)
		} else {
			folders.Add(1)
		}
	}})
	before := folders.Load()
	commit(t, s, waiting(receive(t, s, newer), "a", newer))
	if content.Load() != 1 || folders.Load() == before {
		t.Errorf("%d syncs of content and %d of folders for one file", content.Load(), folders.Load()-before)
	}
}
