package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whether a batch could be written is found out without one, and what keeps it from that.
func TestWritable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r, err := Open(t.Context(), path, Options{Fsync: true, BusyTimeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	apply(t, r, add(1, "anna"))
	writable := func(want error) {
		t.Helper()
		if err := r.Writable(t.Context()); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	writable(nil)
	c := other(t, path)
	run(t, c, "BEGIN EXCLUSIVE")
	writable(ErrLocked)
	run(t, c, "ROLLBACK")
	writable(nil)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	writable(ErrMoved)
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	writable(nil)
	apply(t, r, add(2, "ben"))
	wantNames(t, r, "anna ben")
	read, err := OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := read.Writable(t.Context()); !errors.Is(err, ErrReadOnly) {
		t.Errorf("%v, want ErrReadOnly", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	writable(ErrClosed)
}

// It really writes: a disk with an error is not taken for one that is well.
func TestWritableWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r := open(t, path)
	wal := func() int64 {
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	apply(t, r, add(1, "anna"))
	before := wal()
	if err := r.Writable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := wal(); after <= before {
		t.Errorf("the WAL has %d bytes, as before", after)
	}
}
