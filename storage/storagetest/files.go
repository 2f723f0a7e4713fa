package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
)

// TestFiles runs the tests of a Files. open returns an empty one; what it needs
// closed is its own business.
func TestFiles(t *testing.T, open func(t *testing.T) storage.Files) {
	tests := []struct {
		name string
		test func(t *testing.T, s storage.Files)
	}{
		{"WriteCommitOpen", testWriteCommitOpen},
		{"CommitReplaces", testCommitReplaces},
		{"CommitAgain", testCommitAgain},
		{"CommitNothing", testCommitNothing},
		{"CommitOfAnotherSize", testCommitOfAnotherSize},
		{"CommitIsOfThisContent", testCommitIsOfThisContent},
		{"Discard", testDiscard},
		{"IncomingIsReadable", testIncomingIsReadable},
		{"Has", testHas},
		{"ClientsAreApart", testClientsAreApart},
		{"PathsAreChecked", testPathsAreChecked},
		{"FileWhereFolderShouldBe", testFileWhereFolderShouldBe},
		{"CommitsOfOnePathAtOnce", testCommitsOfOnePathAtOnce},
		{"CommitsOfOneFileAtOnce", testCommitsOfOneFileAtOnce},
		{"ManyUnderWay", testManyUnderWay},
		{"Scratch", testScratch},
		{"EndedContext", testFilesEndedContext},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, open(t)) })
	}
}

// content is size bytes that depend on seed.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = r.Read(b)
	return b
}

// receive makes an incoming file of data, in writes of at most chunk bytes, and
// returns its key.
func receive(t testing.TB, s storage.Files, data []byte, size int64, chunk int) string {
	t.Helper()
	in, err := s.Create(t.Context(), clientID(1), "new", size)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	for rest := data; len(rest) > 0; {
		n, err := in.Write(rest[:min(chunk, len(rest))])
		if err != nil {
			t.Fatalf("Write: %v", err)
		}
		rest = rest[n:]
	}
	if err := in.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return in.Key()
}

func wantContent(t testing.TB, s storage.Files, key string, id codec.ClientID, path string, want []byte) {
	t.Helper()
	got, err := read(t.Context(), s, key, id, path)
	if err != nil {
		t.Errorf("reading %q %s %q: %v", key, id, path, err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%q %s %q: %d bytes that are not the %d written", key, id, path, len(got), len(want))
	}
}

func wantNotStored(t testing.TB, s storage.Files, key string, id codec.ClientID, path string) {
	t.Helper()
	if _, err := read(t.Context(), s, key, id, path); !errors.Is(err, storage.ErrNotStored) {
		t.Errorf("opening %q %s %q: %v, want ErrNotStored", key, id, path, err)
	}
}

func read(ctx context.Context, s storage.Files, key string, id codec.ClientID, path string) ([]byte, error) {
	f, err := s.Open(ctx, key, id, path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

// waiting is client n's file at path, complete in the incoming file key.
func waiting(key string, n int, path string, data []byte) *storage.File {
	return &storage.File{
		ID: clientID(n), FileName: path, Path: path, Incoming: key,
		Size: int64(len(data)), Cksum: cksum.Checksum(data),
	}
}

func commit(t testing.TB, s storage.Files, f *storage.File) {
	t.Helper()
	if err := s.Commit(t.Context(), f); err != nil {
		t.Fatalf("Commit of %q: %v", f.Path, err)
	}
}

// wantCommit checks what Commit says of f.
func wantCommit(t testing.TB, s storage.Files, f *storage.File, want error) {
	t.Helper()
	if err := s.Commit(t.Context(), f); !errors.Is(err, want) {
		t.Errorf("Commit of %q to %q: %v, want %v", f.Incoming, f.Path, err, want)
	}
}

func testWriteCommitOpen(t *testing.T, s storage.Files) {
	for _, size := range []int{0, 1, 15, 4096, 256 << 10, 1<<20 + 1} {
		for _, announced := range []int64{-1, int64(size)} {
			for _, chunk := range []int{1 << 30, 65_537} {
				path := fmt.Sprintf("a/b/%d %d %d.bin", size, announced, chunk)
				data := content(uint64(size), size)
				key := receive(t, s, data, announced, chunk)
				wantNotStored(t, s, "", clientID(1), path)
				commit(t, s, waiting(key, 1, path, data))
				wantContent(t, s, "", clientID(1), path, data)
				wantNotStored(t, s, key, clientID(1), path)
			}
		}
	}
}

func testCommitReplaces(t *testing.T, s storage.Files) {
	older, newer := content(1, 5000), content(2, 100)
	first, second := receive(t, s, older, 5000, 5000), receive(t, s, newer, -1, 5000)
	commit(t, s, waiting(first, 1, "a", older))
	wantContent(t, s, "", clientID(1), "a", older)
	commit(t, s, waiting(second, 1, "a", newer))
	wantContent(t, s, "", clientID(1), "a", newer)
}

func testCommitAgain(t *testing.T, s storage.Files) {
	data := content(1, 5000)
	key := receive(t, s, data, -1, 5000)
	for range 3 {
		commit(t, s, waiting(key, 1, "dir/a", data))
		wantContent(t, s, "", clientID(1), "dir/a", data)
	}
}

func testCommitNothing(t *testing.T, s storage.Files) {
	dropped := receive(t, s, content(1, 10), -1, 10)
	if err := s.Discard(t.Context(), dropped); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{dropped, "", "no key", "../" + dropped, ".", strings.Repeat("0", 32)} {
		wantCommit(t, s, waiting(key, 1, "a", content(1, 10)), storage.ErrNotStored)
	}
	wantNotStored(t, s, "", clientID(1), "a")
}

// An incoming file that has lost its end is not committed.
func testCommitOfAnotherSize(t *testing.T, s storage.Files) {
	was, data := content(1, 5000), content(2, 5000)
	commit(t, s, waiting(receive(t, s, was, -1, 5000), 1, "a", was))
	for _, has := range []int{0, 4999, 5001} {
		key := receive(t, s, content(2, has), -1, 5000)
		wantCommit(t, s, waiting(key, 1, "a", data), storage.ErrNotStored)
		wantContent(t, s, "", clientID(1), "a", was)
	}
}

// With the incoming file gone, what is in the place is this content, or there was
// no Commit.
func testCommitIsOfThisContent(t *testing.T, s storage.Files) {
	data := content(2, 5000)
	for name, place := range map[string][]byte{
		"smaller": data[:4999], "larger": append(data[:5000:5000], 0), "empty": {}, "other": content(3, 5000),
		"a bit": append([]byte{data[0] ^ 1}, data[1:]...),
	} {
		commit(t, s, waiting(receive(t, s, place, -1, 5000), 1, name+"/a", place))
		key := receive(t, s, data, -1, 5000)
		if err := s.Discard(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		wantCommit(t, s, waiting(key, 1, name+"/a", data), storage.ErrNotStored)
		wantContent(t, s, "", clientID(1), name+"/a", place)
		wantCommit(t, s, waiting(key, 1, name, data), storage.ErrNotStored)        // the place is a folder
		wantCommit(t, s, waiting(key, 1, name+"/a/b", data), storage.ErrNotStored) // or below a file
		wantNotStored(t, s, "", clientID(1), name+"/b")
	}
}

func testDiscard(t *testing.T, s storage.Files) {
	data := content(1, 10)
	keep := receive(t, s, data, -1, 10)
	for _, size := range []int64{-1, 0, 10, 1 << 20} {
		// Unfinished, and never written.
		in, err := s.Create(t.Context(), clientID(1), "new", size)
		if err != nil {
			t.Fatal(err)
		}
		if size == 10 {
			if _, err := in.Write(data[:5]); err != nil {
				t.Fatal(err)
			}
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.Discard(t.Context(), in.Key()); err != nil {
				t.Errorf("Discard: %v", err)
			}
		}
		wantNotStored(t, s, in.Key(), clientID(1), "a")
	}
	commit(t, s, waiting(keep, 1, "a", data))
	for _, key := range []string{keep, "", "no key", "../" + clientID(1).String() + "/a"} {
		if err := s.Discard(t.Context(), key); err != nil {
			t.Errorf("Discard of %q: %v", key, err)
		}
	}
	wantContent(t, s, "", clientID(1), "a", data)
}

func testIncomingIsReadable(t *testing.T, s storage.Files) {
	data := content(1, 300_000)
	key := receive(t, s, data, 300_000, 1000)
	wantContent(t, s, key, codec.ClientID{}, "", data)
	if n, err := s.Size(t.Context(), key, codec.ClientID{}, ""); n != 300_000 || err != nil {
		t.Errorf("Size: %d, %v", n, err)
	}
	wantNotStored(t, s, "../"+key, codec.ClientID{}, "")
	if err := s.Discard(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{key, "../" + key} {
		if n, err := s.Size(t.Context(), key, codec.ClientID{}, ""); n != 0 || !errors.Is(err, storage.ErrNotStored) {
			t.Errorf("Size of %q: %d, %v, want ErrNotStored", key, n, err)
		}
	}
}

// A client has something stored, or it has not: what it only began does not count.
func testHas(t *testing.T, s storage.Files) {
	data := content(1, 10)
	has := func(n int, want bool) {
		t.Helper()
		if got, err := s.Has(t.Context(), clientID(n)); got != want || err != nil {
			t.Errorf("client %d has something: %v, %v, want %v", n, got, err, want)
		}
	}
	key := receive(t, s, data, -1, 10)
	has(1, false)
	commit(t, s, waiting(key, 1, "dir/a", data))
	has(1, true)
	has(2, false)
}

func testClientsAreApart(t *testing.T, s storage.Files) {
	one, two := content(1, 10), content(2, 20)
	commit(t, s, waiting(receive(t, s, one, -1, 100), 1, "a", one))
	wantNotStored(t, s, "", clientID(2), "a")
	commit(t, s, waiting(receive(t, s, two, -1, 100), 2, "a", two))
	wantContent(t, s, "", clientID(1), "a", one)
	wantContent(t, s, "", clientID(2), "a", two)
}

// What CleanPath would not have made is refused, whoever asks.
func testPathsAreChecked(t *testing.T, s storage.Files) {
	data := content(1, 10)
	key := receive(t, s, data, -1, 100)
	paths := []string{
		"", ".", "..", "../a", "a/..", "a/../b", "/a", "a/", "a//b", "./a", `a\b`, "a\x00b", "a\nb", "\xe4", "a\u202eb",
		"../" + clientID(2).String() + "/a", "../../defensive.db",
	}
	for _, path := range paths {
		wantCommit(t, s, waiting(key, 1, path, data), storage.ErrPath)
		if _, err := read(t.Context(), s, "", clientID(1), path); !errors.Is(err, storage.ErrPath) {
			t.Errorf("Open of %q: %v, want ErrPath", path, err)
		}
	}
	for _, path := range []string{".lock", ".incoming/a", "defensive.db", "...", "a b", "-rf", strings.Repeat("n", 254),
		strings.Repeat("d/", 126) + "d", "ä", "a\u0308", "r\u00e9sum\u00e9/\u5c65\u6b74\u66f8 \U0001f600", strings.Repeat("\u00e4", 127)} {
		commit(t, s, waiting(key, 1, path, data))
		wantContent(t, s, "", clientID(1), path, data)
		key = receive(t, s, data, -1, 100)
	}
}

func testFileWhereFolderShouldBe(t *testing.T, s storage.Files) {
	file, below := content(1, 10), content(2, 20)
	commit(t, s, waiting(receive(t, s, file, -1, 100), 1, "a", file))
	key := receive(t, s, below, -1, 100)
	wantCommit(t, s, waiting(key, 1, "a/b", below), storage.ErrObstructed)
	wantContent(t, s, "", clientID(1), "a", file)
	wantContent(t, s, key, clientID(1), "", below) // an error leaves the incoming file
	commit(t, s, waiting(key, 1, "c/b", below))

	key = receive(t, s, file, -1, 100)
	wantCommit(t, s, waiting(key, 1, "c", file), storage.ErrObstructed)
	wantContent(t, s, "", clientID(1), "c/b", below)
	wantContent(t, s, key, clientID(1), "", file)
	if _, err := read(t.Context(), s, "", clientID(1), "c"); err == nil {
		t.Error("a folder can be opened as a file")
	}
}

// Whichever of several files for one place comes last is there whole.
func testCommitsOfOnePathAtOnce(t *testing.T, s storage.Files) {
	const sides, rounds = 6, 10
	var wg sync.WaitGroup
	for side := range sides {
		wg.Go(func() {
			for round := range rounds {
				data := content(uint64(side), 20_000)
				f := waiting(receive(t, s, data, -1, 7000), 1, fmt.Sprintf("dir%d/a", round), data)
				if err := s.Commit(t.Context(), f); err != nil {
					t.Errorf("Commit: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for round := range rounds {
		got, err := read(t.Context(), s, "", clientID(1), fmt.Sprintf("dir%d/a", round))
		if err != nil {
			t.Fatal(err)
		}
		whole := false
		for side := range sides {
			whole = whole || bytes.Equal(got, content(uint64(side), 20_000))
		}
		if !whole {
			t.Errorf("round %d: what is stored is none of what was sent", round)
		}
	}
}

// Commits of one file at the same time all succeed.
func testCommitsOfOneFileAtOnce(t *testing.T, s storage.Files) {
	for round := range 10 {
		data := content(uint64(round), 20_000)
		f := waiting(receive(t, s, data, -1, 7000), 1, fmt.Sprintf("dir%d/a", round), data)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := s.Commit(t.Context(), f); err != nil {
					t.Errorf("Commit: %v", err)
				}
			})
		}
		wg.Wait()
		wantContent(t, s, "", clientID(1), f.Path, data)
	}
}

// Many files under way, each getting a little at a time.
func testManyUnderWay(t *testing.T, s storage.Files) {
	const n = 300
	type upload struct {
		in      storage.Incoming
		scratch storage.Scratch
	}
	uploads := make([]upload, n)
	for i := range uploads {
		var err error
		if uploads[i].in, err = s.Create(t.Context(), clientID(1), "new", 300_000); err != nil {
			t.Fatal(err)
		}
		if uploads[i].scratch, err = s.Scratch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 3 {
		for i, u := range uploads {
			part := content(uint64(i), 300)[round*100:][:100]
			if _, err := u.in.Write(part); err != nil {
				t.Fatalf("upload %d: %v", i, err)
			}
			if _, err := u.scratch.WriteAt(part, int64(round)*100); err != nil {
				t.Fatalf("scratch %d: %v", i, err)
			}
		}
	}
	for i, u := range uploads {
		got := make([]byte, 300)
		if _, err := u.scratch.ReadAt(got, 0); err != nil || !bytes.Equal(got, content(uint64(i), 300)) {
			t.Fatalf("scratch %d: %v, or not what was written", i, err)
		}
		if err := errors.Join(u.in.Close(), u.scratch.Close()); err != nil {
			t.Fatal(err)
		}
		wantContent(t, s, u.in.Key(), clientID(1), "", content(uint64(i), 300))
	}
}

func testScratch(t *testing.T, s storage.Files) {
	a, err := s.Scratch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Scratch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, err := a.ReadAt(buf, 0); n != 0 || err != io.EOF {
		t.Errorf("reading nothing: %d, %v, want 0, EOF", n, err)
	}
	for _, off := range []int64{5 << 20, 0, 100} {
		if _, err := a.WriteAt(content(uint64(off), 10), off); err != nil {
			t.Fatal(err)
		}
		if _, err := b.WriteAt(content(uint64(off+1), 10), off); err != nil {
			t.Fatal(err)
		}
	}
	for _, off := range []int64{0, 100, 5 << 20} {
		if _, err := a.ReadAt(buf, off); err != nil || !bytes.Equal(buf, content(uint64(off), 10)) {
			t.Errorf("at %d: %x, %v, want %x", off, buf, err, content(uint64(off), 10))
		}
	}
	if err := a.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := b.ReadAt(buf, 100); err != nil || !bytes.Equal(buf, content(101, 10)) {
		t.Errorf("after another was closed: %x, %v", buf, err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func testFilesEndedContext(t *testing.T, s storage.Files) {
	data := content(1, 10)
	key := receive(t, s, data, -1, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Create(ctx, clientID(1), "new", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Create: %v, want context.Canceled", err)
	}
	if err := s.Commit(ctx, waiting(key, 1, "a", data)); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit: %v, want context.Canceled", err)
	}
	if err := s.Discard(ctx, key); !errors.Is(err, context.Canceled) {
		t.Errorf("Discard: %v, want context.Canceled", err)
	}
	if has, err := s.Has(ctx, clientID(1)); has || !errors.Is(err, context.Canceled) {
		t.Errorf("Has: %v, %v, want context.Canceled", has, err)
	}
	wantContent(t, s, key, clientID(1), "", data)
}
