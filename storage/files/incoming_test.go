package files

import (
	"errors"
	"slices"
	"testing"

	"sealift/storage"
)

// An empty file comes into being with Close, which says so if it could not. It is
// synced through the descriptor that made it, like any other.
func TestEmptyFile(t *testing.T) {
	s, d, dir := faulty(t, Options{})
	begin := func() storage.Incoming {
		in, err := s.Create(t.Context(), placeOf("docs/a"), storage.Announce(0))
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	in := begin()
	d.fail(in.Key(), Create)
	if err := in.Close(t.Context()); !errors.Is(err, errDisk) {
		t.Errorf("Close: %v, want that the disk failed", err)
	}
	if left := leftIncoming(t, dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	d.repair()
	d.taken()
	in = begin()
	if err := in.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := waiting(in.Key(), "docs/a", "")
	commit(t, s, f)
	incoming := "files/.incoming/" + inFolder(f.Incoming)
	want := []string{"create " + incoming, "sync file " + incoming, "close " + incoming, "rename " + incoming, "sync folder " + aliceFolder + "/docs"}
	if got := d.taken(Mkdir); !slices.Equal(got, want) {
		t.Errorf("%q,\nwant %q", got, want)
	}
	wantFile(t, dir, "docs/a", "")
	if n := len(s.slots); n != 0 {
		t.Errorf("%d slots are left", n)
	}
}

// A file that could not be removed is not called discarded, and if it is spoilt, it
// stays so.
func TestFailedDiscard(t *testing.T) {
	s, d, dir := faulty(t, Options{})
	f := waiting(receive(t, s, newer), "docs/a", newer)
	d.fail(f.Incoming, SyncFile, Remove)
	for range 2 {
		wantCommit(t, s, f, storage.ErrNotDurable)
		if err := s.Discard(t.Context(), f.Uploaded()); !errors.Is(err, errDisk) {
			t.Errorf("Discard: %v, want that the disk failed", err)
		}
		wantIncoming(t, s, f.Incoming)
	}
	d.repair()
	if err := s.Discard(t.Context(), f.Uploaded()); err != nil {
		t.Errorf("Discard: %v", err)
	}
	if left := leftIncoming(t, dir); len(left) != 0 || len(s.spoilt) != 0 {
		t.Errorf("left %v, and remembered as spoilt %v", left, s.spoilt)
	}
	wantCommit(t, s, f, storage.ErrNotStored)
	wantFile(t, dir, "docs/a", older)
}
