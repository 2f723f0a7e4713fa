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

// begun makes an incoming file that has data so far, flushed and closed, and names it.
func begun(t testing.TB, s storage.Files, path string, data []byte, total int64) storage.Uploaded {
	t.Helper()
	in, err := s.Create(t.Context(), place(1, path), storage.Announce(total))
	if err != nil {
		t.Fatal(err)
	}
	up := uploaded(in.Key(), 1, path)
	for chunk := range slices.Chunk(data, 100_000) {
		if _, err := in.Write(t.Context(), chunk); err != nil {
			t.Fatalf("Write: %v", err)
		}
	}
	if err := s.Flush(t.Context(), up, int64(len(data))); err != nil {
		t.Errorf("Flush: %v", err)
	}
	if err := in.Close(t.Context()); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return up
}

// wantPart checks what there is of a file that is not complete, as far as that can be read.
func wantPart(t testing.TB, s storage.Files, up storage.Uploaded, want []byte) {
	t.Helper()
	if !s.Keeping().Sealed {
		wantContent(t, s, up, want)
		return
	}
	if n, err := s.Size(t.Context(), up); n < int64(len(want)) || err != nil {
		t.Errorf("Size: %d, %v, want %d", n, err, len(want))
	}
}

// reopened names the content of in, which goes on with that of up. In a store that is sealed it may
// have a key of its own.
func reopened(t testing.TB, s storage.Files, up storage.Uploaded, in storage.Incoming) storage.Uploaded {
	t.Helper()
	if in.Key() != up.Key && !s.Keeping().Sealed {
		t.Errorf("the key is %q, was %q", in.Key(), up.Key)
	}
	up.Key = in.Key()
	return up
}

// reopen goes on with an incoming file after length bytes, writes data, and closes it. In a
// store that is sealed it flushes it first.
func reopen(t testing.TB, s storage.Files, up storage.Uploaded, total, length int64, data []byte) storage.Uploaded {
	t.Helper()
	in, err := s.Reopen(t.Context(), up, storage.Announce(total), length)
	if err != nil {
		t.Fatalf("Reopen after %d bytes: %v", length, err)
	}
	up = reopened(t, s, up, in)
	if len(data) > 0 {
		if n, err := in.Write(t.Context(), data); n != len(data) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if s.Keeping().Sealed {
		if err := s.Flush(t.Context(), up, length+int64(len(data))); err != nil {
			t.Fatalf("Flush: %v", err)
		}
	}
	if err := in.Close(t.Context()); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return up
}

// complete is reopen for the rest of a file.
func complete(t testing.TB, s storage.Files, up storage.Uploaded, length int64, data []byte) storage.Uploaded {
	t.Helper()
	in, err := s.Reopen(t.Context(), up, storage.Announce(int64(len(data))), length)
	if err != nil {
		t.Fatalf("Reopen after %d bytes: %v", length, err)
	}
	if _, err := in.Write(t.Context(), data[length:]); err != nil {
		t.Fatalf("Write: %v", err)
	}
	if err := in.Complete(t.Context()); err != nil {
		t.Fatalf("Complete: %v", err)
	}
	return reopened(t, s, up, in)
}

// An incoming file goes on where it was, or before that, as often as one likes, and is
// committed as any.
func testReopen(t *testing.T, s storage.Files) {
	data := content(7, 3<<20)
	up := begun(t, s, "a", data[:1<<20], 3<<20)
	wantPart(t, s, up, data[:1<<20])
	up = reopen(t, s, up, 3<<20, 1<<20, nil)
	wantPart(t, s, up, data[:1<<20])
	up = reopen(t, s, up, 3<<20, 1<<20, []byte("other content, which goes"))
	up = reopen(t, s, up, 3<<20, 1<<20-17, data[1<<20-17:2<<20])
	wantPart(t, s, up, data[:2<<20])
	up = reopen(t, s, up, 3<<20, 0, data[:5])
	wantPart(t, s, up, data[:5])
	up = complete(t, s, up, 5, data)
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
	wantContent(t, s, stored(up.Key, 1, "a"), data)
}

// Who still has content of a sealed store open that another one has reopened changes nothing of what
// that one has. So a server that lost a file does no harm to the one that has it.
func testReopenShutsOut(t *testing.T, s storage.Files) {
	if !s.Keeping().Sealed {
		return
	}
	data, other := content(1, 40_000), content(2, 60_000)
	for _, late := range []string{"writes and completes", "completes", "closes", "completes when it is reopened again", "completes last"} {
		in, err := s.Create(t.Context(), place(1, late), storage.Announce(60_000))
		if err != nil {
			t.Fatal(err)
		}
		up := uploaded(in.Key(), 1, late)
		if _, err := in.Write(t.Context(), data[:10_000]); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(t.Context(), up, 10_000); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(t.Context(), other[10_000:]); err != nil { // not flushed
			t.Fatal(err)
		}
		next, err := s.Reopen(t.Context(), up, storage.Announce(40_000), 10_000)
		if err != nil {
			t.Fatal(err)
		}
		mine := reopened(t, s, up, next)
		if _, err := next.Write(t.Context(), data[10_000:20_000]); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(t.Context(), mine, 20_000); err != nil {
			t.Fatalf("%s: Flush of the one that has it: %v", late, err)
		}
		again := func() {
			t.Helper()
			if err := next.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if next, err = s.Reopen(t.Context(), mine, storage.Announce(40_000), 20_000); err != nil {
				t.Fatal(err)
			}
			mine = reopened(t, s, mine, next)
		}
		// Whether it is told that it is late is the store's business.
		switch late {
		case "closes":
			_ = in.Close(t.Context())
		case "writes and completes":
			_, _ = in.Write(t.Context(), other)
			_ = in.Complete(t.Context())
		case "completes when it is reopened again":
			again()
			_ = in.Complete(t.Context())
		case "completes":
			_ = in.Complete(t.Context())
			again()
		}
		if _, err := next.Write(t.Context(), data[20_000:]); err != nil {
			t.Errorf("%s: Write of the one that has it: %v", late, err)
		}
		if err := next.Complete(t.Context()); err != nil {
			t.Errorf("%s: Complete of the one that has it: %v", late, err)
		}
		if late == "completes last" {
			_ = in.Complete(t.Context())
		}
		commit(t, s, waiting(mine.Key, 1, late, data))
		wantContent(t, s, stored(mine.Key, 1, late), data)
	}
}

// What is complete and not verified goes on from before its end: the client said that its
// checksum is wrong.
func testReopenWhatIsWhole(t *testing.T, s storage.Files) {
	data := content(3, 70_000)
	wrong := append(slices.Clone(data[:30_000]), content(4, 40_000)...)
	up := uploaded(receive(t, s, 1, "a", wrong, storage.Announce(70_000), 9_000), 1, "a")
	for _, from := range []int64{30_000, 29_999, 0} {
		up = complete(t, s, up, from, data)
		wantContent(t, s, up, data)
	}
	up = reopen(t, s, up, 70_000, 100, data[100:30_000])
	up = complete(t, s, up, 30_000, data)
	commit(t, s, waiting(up.Key, 1, "a", data))
	wantContent(t, s, stored(up.Key, 1, "a"), data)
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
	if s.Keeping().Sealed { // what is complete is flushed no more
		close(written)
		flushing.Wait()
	}
	if err := in.Complete(t.Context()); err != nil {
		t.Errorf("Complete: %v", err)
	}
	if !s.Keeping().Sealed {
		close(written)
		flushing.Wait()
	}
	wantContent(t, s, up, data)
}
