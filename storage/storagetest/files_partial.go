package storagetest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"

	"sealift/storage"
)

// reopen goes on with an incoming file after length bytes, writes data, and closes it.
func reopen(t testing.TB, s storage.Files, up storage.Uploaded, total, length int64, data []byte) {
	t.Helper()
	in, err := s.Reopen(t.Context(), up, storage.Announce(total), length)
	if err != nil {
		t.Fatalf("Reopen after %d bytes: %v", length, err)
	}
	if in.Key() != up.Key {
		t.Errorf("the key is %q, was %q", in.Key(), up.Key)
	}
	if len(data) > 0 {
		if n, err := in.Write(t.Context(), data); n != len(data) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if err := in.Close(t.Context()); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// An incoming file goes on where it was, or before that, as often as one likes, and is
// committed as any.
func testReopen(t *testing.T, s storage.Files) {
	data := content(7, 3<<20)
	up := uploaded(receive(t, s, 1, "a", data[:1<<20], storage.Announce(3<<20), 100_000), 1, "a")
	if err := s.Flush(t.Context(), up, 1<<20); err != nil {
		t.Errorf("Flush: %v", err)
	}
	wantContent(t, s, up, data[:1<<20])
	reopen(t, s, up, 3<<20, 1<<20, nil)
	wantContent(t, s, up, data[:1<<20])
	reopen(t, s, up, 3<<20, 1<<20, []byte("other content, which goes"))
	reopen(t, s, up, 3<<20, 1<<20-17, data[1<<20-17:2<<20])
	wantContent(t, s, up, data[:2<<20])
	reopen(t, s, up, 3<<20, 0, data[:5])
	wantContent(t, s, up, data[:5])
	reopen(t, s, up, 3<<20, 5, data[5:])
	for _, from := range []int64{0, 1, 3<<20 - 1, 3 << 20} {
		r, err := s.OpenFrom(t.Context(), up, from)
		if err != nil {
			t.Fatalf("OpenFrom %d: %v", from, err)
		}
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, data[from:]) {
			t.Errorf("from %d: %d bytes, %v", from, len(got), err)
		}
	}
	commit(t, s, waiting(up.Key, 1, "a", data))
	wantContent(t, s, stored(1, "a"), data)
}

func testReopenWhatIsNotThere(t *testing.T, s storage.Files) {
	up := uploaded(receive(t, s, 1, "a", []byte("12345"), unknown, 5), 1, "a")
	fails := func(what string, up storage.Uploaded, length int64) {
		t.Helper()
		if _, err := s.Reopen(t.Context(), up, storage.Announce(9), length); !errors.Is(err, storage.ErrNotStored) {
			t.Errorf("%s: Reopen: %v, want ErrNotStored", what, err)
		}
	}
	gone := func(what string, up storage.Uploaded) {
		t.Helper()
		fails(what, up, 0)
		if err := s.Flush(t.Context(), up, 0); !errors.Is(err, storage.ErrNotStored) {
			t.Errorf("%s: Flush: %v, want ErrNotStored", what, err)
		}
		if _, err := s.OpenFrom(t.Context(), up, 0); !errors.Is(err, storage.ErrNotStored) {
			t.Errorf("%s: OpenFrom: %v, want ErrNotStored", what, err)
		}
	}
	fails("shorter than that", up, 6)
	wantContent(t, s, up, []byte("12345"))
	gone("a key of nobody", uploaded("00000000000000000000000000000000", 1, "a"))
	gone("no key", uploaded("../../escaped", 1, "a"))
	if err := s.Discard(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	gone("discarded", up)
}

// A Flush may run at any time beside the writes, and spoils nothing.
func testFlushBesideWrites(t *testing.T, s storage.Files) {
	data := content(8, 4<<20)
	in, err := s.Create(t.Context(), place(1, "a"), storage.Announce(int64(len(data))))
	if err != nil {
		t.Fatal(err)
	}
	up := uploaded(in.Key(), 1, "a")
	if _, err := in.Write(t.Context(), data[:1]); err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{})
	var flushing sync.WaitGroup
	flushing.Go(func() {
		for {
			if err := s.Flush(t.Context(), up, 1); err != nil {
				t.Errorf("Flush: %v", err)
			}
			select {
			case <-written:
				return
			default:
			}
		}
	})
	for part := range slices.Chunk(data[1:], 100_000) {
		if _, err := in.Write(t.Context(), part); err != nil {
			t.Errorf("Write: %v", err)
		}
	}
	if err := in.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	close(written)
	flushing.Wait()
	wantContent(t, s, up, data)
}
