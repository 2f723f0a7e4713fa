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
		{"Remove", testRemove},
		{"IncomingIsReadable", testIncomingIsReadable},
		{"RefsAreApart", testRefsAreApart},
		{"Has", testHas},
		{"ClientsAreApart", testClientsAreApart},
		{"PathsAreChecked", testPathsAreChecked},
		{"FileWhereFolderShouldBe", testFileWhereFolderShouldBe},
		{"CommitsOfOnePathAtOnce", testCommitsOfOnePathAtOnce},
		{"CommitsOfOneFileAtOnce", testCommitsOfOneFileAtOnce},
		{"ManyUnderWay", testManyUnderWay},
		{"Scratch", testScratch},
		{"Reopen", testReopen},
		{"ReopenWhatIsNotThere", testReopenWhatIsNotThere},
		{"ReopenShutsOut", testReopenShutsOut},
		{"ReopenWhatIsWhole", testReopenWhatIsWhole},
		{"FlushBesideWrites", testFlushBesideWrites},
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

// place is where client n's file at path is.
func place(n int, path string) storage.Place { return storage.Place{ID: clientID(n), Path: path} }

// stored is client n's file at path, in its place. A store that keeps one version of a file
// does not look at the key.
func stored(key string, n int, path string) storage.Stored {
	return storage.Stored{Place: place(n, path), Key: key}
}

func uploaded(key string, n int, path string) storage.Uploaded {
	return storage.Uploaded{Place: place(n, path), Key: key}
}

// unknown is the size of a file of which the client does not say how large it is.
var unknown storage.Announced

// receive makes an incoming file of data for client n and path, in writes of at
// most chunk bytes, and returns its key.
func receive(t testing.TB, s storage.Files, n int, path string, data []byte, size storage.Announced, chunk int) string {
	t.Helper()
	in, err := s.Create(t.Context(), place(n, path), size)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	for rest := data; len(rest) > 0; {
		n, err := in.Write(t.Context(), rest[:min(chunk, len(rest))])
		if err != nil {
			t.Fatalf("Write: %v", err)
		}
		rest = rest[n:]
	}
	if err := in.Complete(t.Context()); err != nil {
		t.Fatalf("Complete: %v", err)
	}
	return in.Key()
}

// store makes data the verified file of client n at path.
func store(t testing.TB, s storage.Files, n int, path string, data []byte) storage.Stored {
	t.Helper()
	f := waiting(receive(t, s, n, path, data, unknown, 5000), n, path, data)
	commit(t, s, f)
	return f.Stored()
}

func wantContent(t testing.TB, s storage.Files, ref storage.Ref, want []byte) {
	t.Helper()
	got, err := read(t.Context(), s, ref)
	if err != nil {
		t.Errorf("reading %+v: %v", ref, err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%+v: %d bytes that are not the %d written", ref, len(got), len(want))
	}
}

func wantNotStored(t testing.TB, s storage.Files, ref storage.Ref) {
	t.Helper()
	if _, err := read(t.Context(), s, ref); !errors.Is(err, storage.ErrNotStored) {
		t.Errorf("opening %+v: %v, want ErrNotStored", ref, err)
	}
}

func read(ctx context.Context, s storage.Files, ref storage.Ref) ([]byte, error) {
	f, err := s.Open(ctx, ref)
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
		for _, announced := range []storage.Announced{unknown, storage.Announce(int64(size))} {
			for _, chunk := range []int{1 << 30, 65_537} {
				path := fmt.Sprintf("a/b/%d %v %d.bin", size, announced, chunk)
				data := content(uint64(size), size)
				key := receive(t, s, 1, path, data, announced, chunk)
				if moves := !s.Keeping().Versions; moves {
					wantNotStored(t, s, stored(key, 1, path))
				}
				commit(t, s, waiting(key, 1, path, data))
				wantContent(t, s, stored(key, 1, path), data)
				if moves := !s.Keeping().Versions; moves {
					wantNotStored(t, s, uploaded(key, 1, path))
				}
			}
		}
	}
}

func testCommitReplaces(t *testing.T, s storage.Files) {
	older, newer := content(1, 5000), content(2, 100)
	first, second := receive(t, s, 1, "a", older, storage.Announce(5000), 5000), receive(t, s, 1, "a", newer, unknown, 5000)
	commit(t, s, waiting(first, 1, "a", older))
	wantContent(t, s, stored(first, 1, "a"), older)
	commit(t, s, waiting(second, 1, "a", newer))
	wantContent(t, s, stored(second, 1, "a"), newer)
	if !s.Keeping().Versions {
		return
	}
	wantContent(t, s, stored(first, 1, "a"), older)
	if err := s.Remove(t.Context(), stored(first, 1, "a")); err != nil {
		t.Errorf("Remove of the version that was: %v", err)
	}
	wantNotStored(t, s, stored(first, 1, "a"))
	wantContent(t, s, stored(second, 1, "a"), newer)
}

func testCommitAgain(t *testing.T, s storage.Files) {
	data := content(1, 5000)
	key := receive(t, s, 1, "dir/a", data, unknown, 5000)
	for range 3 {
		commit(t, s, waiting(key, 1, "dir/a", data))
		wantContent(t, s, stored(key, 1, "dir/a"), data)
	}
}

func testCommitNothing(t *testing.T, s storage.Files) {
	dropped := receive(t, s, 1, "a", content(1, 10), unknown, 10)
	if err := s.Discard(t.Context(), uploaded(dropped, 1, "a")); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{dropped, "", "no key", "../" + dropped, ".", strings.Repeat("0", 32)} {
		wantCommit(t, s, waiting(key, 1, "a", content(1, 10)), storage.ErrNotStored)
	}
	wantNotStored(t, s, stored(dropped, 1, "a"))
}

// Remove takes away what is in the place, and nothing else.
func testRemove(t *testing.T, s storage.Files) {
	remove := func(f storage.Stored) {
		t.Helper()
		if err := s.Remove(t.Context(), f); err != nil {
			t.Errorf("Remove of %+v: %v", f, err)
		}
	}
	remove(stored("", 1, "a/b/c")) // no error where there is none, nor a folder
	data, newer := content(1, 5000), content(2, 6000)
	paths := []string{"a/b/c", "a/b/d", "a/e"}
	var of [3]map[string]storage.Stored // by client
	for n := 1; n <= 2; n++ {
		of[n] = make(map[string]storage.Stored)
		for _, path := range paths {
			of[n][path] = store(t, s, n, path, data)
		}
	}
	key := receive(t, s, 1, "a/b/c", newer, unknown, 6000)
	for range 2 {
		remove(of[1]["a/b/c"])
		wantNotStored(t, s, of[1]["a/b/c"])
	}
	wantContent(t, s, of[1]["a/b/d"], data)
	commit(t, s, waiting(key, 1, "a/b/c", newer))
	of[1]["a/b/c"] = stored(key, 1, "a/b/c")
	wantContent(t, s, of[1]["a/b/c"], newer)
	for _, path := range paths {
		if has, err := s.Has(t.Context(), clientID(1)); !has || err != nil {
			t.Errorf("before %q goes: Has: %v, %v", path, has, err)
		}
		remove(of[1][path])
		wantContent(t, s, of[2][path], data)
	}
	if has, err := s.Has(t.Context(), clientID(1)); has || err != nil {
		t.Errorf("Has: %v, %v after everything is gone", has, err)
	}
	wantContent(t, s, store(t, s, 1, "a/b/c", data), data)
}

// An incoming file that has lost its end is not committed.
func testCommitOfAnotherSize(t *testing.T, s storage.Files) {
	was, data := content(1, 5000), content(2, 5000)
	there := store(t, s, 1, "a", was)
	for _, has := range []int{0, 4999, 5001} {
		key := receive(t, s, 1, "a", content(2, has), unknown, 5000)
		wantCommit(t, s, waiting(key, 1, "a", data), storage.ErrNotStored)
		wantContent(t, s, there, was)
	}
}

// With the incoming file gone, what is in the place is this content, or there was
// no Commit.
func testCommitIsOfThisContent(t *testing.T, s storage.Files) {
	data := content(2, 5000)
	for name, there := range map[string][]byte{
		"smaller": data[:4999], "larger": append(data[:5000:5000], 0), "empty": {}, "other": content(3, 5000),
		"a bit": append([]byte{data[0] ^ 1}, data[1:]...),
	} {
		at := store(t, s, 1, name+"/a", there)
		key := receive(t, s, 1, name+"/a", data, unknown, 5000)
		if err := s.Discard(t.Context(), uploaded(key, 1, name+"/a")); err != nil {
			t.Fatal(err)
		}
		wantCommit(t, s, waiting(key, 1, name+"/a", data), storage.ErrNotStored)
		wantContent(t, s, at, there)
		wantCommit(t, s, waiting(key, 1, name, data), storage.ErrNotStored)        // the place is a folder
		wantCommit(t, s, waiting(key, 1, name+"/a/b", data), storage.ErrNotStored) // or below a file
		wantNotStored(t, s, stored(key, 1, name+"/b"))
	}
}

func testDiscard(t *testing.T, s storage.Files) {
	data := content(1, 10)
	keep := receive(t, s, 1, "a", data, unknown, 10)
	for i, size := range []storage.Announced{unknown, storage.Announce(0), storage.Announce(10), storage.Announce(1 << 20)} {
		// Unfinished, and never written.
		in, err := s.Create(t.Context(), place(1, "a"), size)
		if err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			if _, err := in.Write(t.Context(), data[:5]); err != nil {
				t.Fatal(err)
			}
		}
		if err := in.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.Discard(t.Context(), uploaded(in.Key(), 1, "a")); err != nil {
				t.Errorf("Discard: %v", err)
			}
		}
		wantNotStored(t, s, uploaded(in.Key(), 1, "a"))
	}
	commit(t, s, waiting(keep, 1, "a", data))
	none := []string{"", "no key", "../" + clientID(1).String() + "/a"}
	if moved := !s.Keeping().Versions; moved {
		none = append(none, keep)
	}
	for _, key := range none {
		if err := s.Discard(t.Context(), uploaded(key, 1, "a")); err != nil {
			t.Errorf("Discard of %q: %v", key, err)
		}
	}
	wantContent(t, s, stored(keep, 1, "a"), data)
}

func testIncomingIsReadable(t *testing.T, s storage.Files) {
	data := content(1, 300_000)
	key := receive(t, s, 1, "a", data, storage.Announce(300_000), 1000)
	up, other := uploaded(key, 1, "a"), uploaded("../"+key, 1, "a")
	wantContent(t, s, up, data)
	if n, err := s.Size(t.Context(), up); n != 300_000 || err != nil {
		t.Errorf("Size: %d, %v", n, err)
	}
	wantNotStored(t, s, other)
	if err := s.Discard(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []storage.Ref{up, other, stored(key, 1, "a")} {
		if n, err := s.Size(t.Context(), ref); n != 0 || !errors.Is(err, storage.ErrNotStored) {
			t.Errorf("Size of %+v: %d, %v, want ErrNotStored", ref, n, err)
		}
	}
}

// What is in the place is not what came in for it: each is found by its own kind of
// reference, or, in a store of versions, by its key.
func testRefsAreApart(t *testing.T, s storage.Files) {
	there, came := content(1, 10), content(2, 20)
	in := store(t, s, 1, "a", there)
	up := uploaded(receive(t, s, 1, "a", came, unknown, 100), 1, "a")
	if !s.Keeping().Versions {
		in.Key = up.Key
	}
	wantContent(t, s, up, came)
	wantContent(t, s, in, there)
	for ref, want := range map[storage.Ref]int64{up: 20, in: 10} {
		if n, err := s.Size(t.Context(), ref); n != want || err != nil {
			t.Errorf("Size of %+v: %d, %v, want %d", ref, n, err, want)
		}
	}
	wantNotStored(t, s, uploaded("", 1, "a"))
}

// A client has something stored, or it has not. What it only began does not count, and what
// is complete only in a store of versions.
func testHas(t *testing.T, s storage.Files) {
	data := content(1, 10)
	has := func(n int, want bool) {
		t.Helper()
		if got, err := s.Has(t.Context(), clientID(n)); got != want || err != nil {
			t.Errorf("client %d has something: %v, %v, want %v", n, got, err, want)
		}
	}
	in, err := s.Create(t.Context(), place(1, "dir/b"), unknown)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	has(1, false)
	if err := in.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	has(1, false)
	key := receive(t, s, 1, "dir/a", data, unknown, 10)
	has(1, s.Keeping().Versions)
	commit(t, s, waiting(key, 1, "dir/a", data))
	has(1, true)
	has(2, false)
}

func testClientsAreApart(t *testing.T, s storage.Files) {
	one, two := content(1, 10), content(2, 20)
	first := store(t, s, 1, "a", one)
	wantNotStored(t, s, stored(first.Key, 2, "a"))
	second := store(t, s, 2, "a", two)
	wantContent(t, s, first, one)
	wantContent(t, s, second, two)
}

// What CleanPath would not have made is refused, whoever asks.
func testPathsAreChecked(t *testing.T, s storage.Files) {
	data := content(1, 10)
	key := receive(t, s, 1, "new", data, unknown, 100)
	paths := []string{
		"", ".", "..", "../a", "a/..", "a/../b", "/a", "a/", "a//b", "./a", `a\b`, "a\x00b", "a\nb", "\xe4", "a\u202eb",
		"../" + clientID(2).String() + "/a", "../../defensive.db",
	}
	for _, path := range paths {
		wantCommit(t, s, waiting(key, 1, path, data), storage.ErrPath)
		if _, err := read(t.Context(), s, stored(key, 1, path)); !errors.Is(err, storage.ErrPath) {
			t.Errorf("Open of %q: %v, want ErrPath", path, err)
		}
		if err := s.Remove(t.Context(), stored(key, 1, path)); !errors.Is(err, storage.ErrPath) {
			t.Errorf("Remove of %q: %v, want ErrPath", path, err)
		}
	}
	for _, path := range []string{".lock", ".incoming/a", "defensive.db", "...", "a b", "-rf", strings.Repeat("n", 254),
		strings.Repeat("d/", 126) + "d", "ä", "a\u0308", "r\u00e9sum\u00e9/\u5c65\u6b74\u66f8 \U0001f600", strings.Repeat("\u00e4", 127)} {
		wantContent(t, s, store(t, s, 1, path, data), data)
	}
}

func testFileWhereFolderShouldBe(t *testing.T, s storage.Files) {
	file, below := content(1, 10), content(2, 20)
	a := store(t, s, 1, "a", file)
	if s.Keeping().Versions { // each has a name of its own
		b := store(t, s, 1, "a/b", below)
		wantContent(t, s, a, file)
		wantContent(t, s, b, below)
		return
	}
	key := receive(t, s, 1, "new", below, unknown, 100)
	wantCommit(t, s, waiting(key, 1, "a/b", below), storage.ErrObstructed)
	wantContent(t, s, a, file)
	wantContent(t, s, uploaded(key, 1, "new"), below) // an error leaves the incoming file
	commit(t, s, waiting(key, 1, "c/b", below))

	c := stored(key, 1, "c/b")
	key = receive(t, s, 1, "new", file, unknown, 100)
	wantCommit(t, s, waiting(key, 1, "c", file), storage.ErrObstructed)
	wantContent(t, s, c, below)
	wantContent(t, s, uploaded(key, 1, "new"), file)
	if _, err := read(t.Context(), s, stored(key, 1, "c")); err == nil {
		t.Error("a folder can be opened as a file")
	}
}

// Whichever of several files for one place comes last is there whole; in a store of
// versions, each is.
func testCommitsOfOnePathAtOnce(t *testing.T, s storage.Files) {
	const sides, rounds = 6, 10
	var wg sync.WaitGroup
	var keys [sides][rounds]string
	for side := range sides {
		wg.Go(func() {
			for round := range rounds {
				data := content(uint64(side), 20_000)
				path := fmt.Sprintf("dir%d/a", round)
				f := waiting(receive(t, s, 1, path, data, unknown, 7000), 1, path, data)
				if err := s.Commit(t.Context(), f); err != nil {
					t.Errorf("Commit: %v", err)
				}
				keys[side][round] = f.Incoming
			}
		})
	}
	wg.Wait()
	for round := range rounds {
		path, whole := fmt.Sprintf("dir%d/a", round), 0
		for side := range sides {
			got, err := read(t.Context(), s, stored(keys[side][round], 1, path))
			if err != nil {
				t.Fatal(err)
			}
			for of := range sides {
				same := bytes.Equal(got, content(uint64(of), 20_000))
				if s.Keeping().Versions && same != (of == side) {
					t.Errorf("round %d: the version of side %d is not what it sent", round, side)
				}
				if same {
					whole++
				}
			}
		}
		if whole != sides {
			t.Errorf("round %d: what is stored is none of what was sent", round)
		}
	}
}

// Commits of one file at the same time all succeed.
func testCommitsOfOneFileAtOnce(t *testing.T, s storage.Files) {
	for round := range 10 {
		data := content(uint64(round), 20_000)
		path := fmt.Sprintf("dir%d/a", round)
		f := waiting(receive(t, s, 1, path, data, unknown, 7000), 1, path, data)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := s.Commit(t.Context(), f); err != nil {
					t.Errorf("Commit: %v", err)
				}
			})
		}
		wg.Wait()
		wantContent(t, s, f.Stored(), data)
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
		if uploads[i].in, err = s.Create(t.Context(), place(1, "new"), storage.Announce(300_000)); err != nil {
			t.Fatal(err)
		}
		if uploads[i].scratch, err = s.Scratch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 3 {
		for i, u := range uploads {
			part := content(uint64(i), 300)[round*100:][:100]
			if _, err := u.in.Write(t.Context(), part); err != nil {
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
		if err := errors.Join(u.in.Complete(t.Context()), u.scratch.Close()); err != nil {
			t.Fatal(err)
		}
		wantContent(t, s, uploaded(u.in.Key(), 1, "new"), content(uint64(i), 300))
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
	key := receive(t, s, 1, "a", data, unknown, 10)
	in, err := s.Create(t.Context(), place(1, "b"), unknown)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Create(ctx, place(1, "new"), storage.Announce(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Create: %v, want context.Canceled", err)
	}
	if err := s.Commit(ctx, waiting(key, 1, "a", data)); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit: %v, want context.Canceled", err)
	}
	if err := s.Discard(ctx, uploaded(key, 1, "a")); !errors.Is(err, context.Canceled) {
		t.Errorf("Discard: %v, want context.Canceled", err)
	}
	if has, err := s.Has(ctx, clientID(1)); has || !errors.Is(err, context.Canceled) {
		t.Errorf("Has: %v, %v, want context.Canceled", has, err)
	}
	if err := s.Remove(ctx, stored(key, 1, "a")); !errors.Is(err, context.Canceled) {
		t.Errorf("Remove: %v, want context.Canceled", err)
	}
	for _, ref := range []storage.Ref{uploaded(key, 1, "a"), stored(key, 1, "a")} {
		if _, err := s.Size(ctx, ref); !errors.Is(err, context.Canceled) {
			t.Errorf("Size of %+v: %v, want context.Canceled", ref, err)
		}
		if _, err := s.Open(ctx, ref); !errors.Is(err, context.Canceled) {
			t.Errorf("Open of %+v: %v, want context.Canceled", ref, err)
		}
	}
	wantContent(t, s, uploaded(key, 1, "a"), data)

	if n, err := in.Write(ctx, data); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("Write: %d, %v, want 0, context.Canceled", n, err)
	}
	if _, err := in.Write(t.Context(), data); err != nil {
		t.Errorf("Write after one that came too late: %v", err)
	}
	_ = in.Close(ctx) // and in holds nothing any more
	if err := s.Discard(t.Context(), uploaded(in.Key(), 1, "b")); err != nil {
		t.Errorf("Discard of a file that was closed too late: %v", err)
	}
}
