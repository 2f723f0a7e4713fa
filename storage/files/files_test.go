package files

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/storage/storagetest"
)

var alice = codec.ClientID{0xa1, 0xce}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// waiting is alice's file at path, complete in the incoming file key.
func waiting(key, path, data string) *storage.File {
	return &storage.File{
		ID: alice, FileName: path, Path: path, Incoming: key,
		Size: int64(len(data)), Cksum: cksum.Checksum([]byte(data)),
	}
}

// placeOf is the place of alice's file at path, and storedAt names what is in it.
func placeOf(path string) storage.Place   { return storage.Place{ID: alice, Path: path} }
func storedAt(path string) storage.Stored { return storage.Stored{Place: placeOf(path)} }

// receive makes an incoming file and returns its key.
func receive(t testing.TB, s *Store, data string) string {
	t.Helper()
	in, err := s.Create(t.Context(), placeOf("new"), storage.Announce(int64(len(data))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(t.Context(), []byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return in.Key()
}

func TestFiles(t *testing.T) {
	for name, o := range map[string]Options{
		"default":  {Fsync: true},
		"few open": {Fsync: true, MaxOpen: 2},
		"unsynced": {MaxOpen: -1},
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.TestFiles(t, func(t *testing.T) storage.Files { return open(t, t.TempDir(), o) })
		})
	}
}

func TestLayout(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Fsync: true})
	key := receive(t, s, "content")
	if got, err := os.ReadFile(filepath.Join(dir, "files", ".incoming", key[:2], key)); string(got) != "content" {
		t.Errorf("incoming file: %q, %v", got, err)
	}
	if err := s.Commit(t.Context(), waiting(key, "docs/a.txt", "content")); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(dir, "files", "a1ce0000000000000000000000000000", "docs", "a.txt")
	if got, err := os.ReadFile(want); string(got) != "content" {
		t.Errorf("stored file: %q, %v", got, err)
	}
	if size, err := s.Size(t.Context(), storedAt("docs/a.txt")); size != 7 || err != nil {
		t.Errorf("Size: %d, %v", size, err)
	}
}

// A client in whose folder nothing is has nothing stored.
func TestHasNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if err := os.Mkdir(filepath.Join(dir, "files", alice.String()), 0o700); err != nil {
		t.Fatal(err)
	}
	if has, err := s.Has(t.Context(), alice); has || err != nil {
		t.Errorf("Has: %v, %v", has, err)
	}
}

func TestOneStoreAtATime(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second Open: %v, want ErrLocked", err)
	}
	reading, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatalf("OpenReadOnly beside it: %v", err)
	}
	if err := reading.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenReadOnly(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a directory: %v, want ErrNotExist", err)
	}
	s := open(t, dir, Options{})
	key := receive(t, s, "content")
	if err := s.Commit(t.Context(), waiting(receive(t, s, "stored"), "a", "stored")); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f, err := r.Open(t.Context(), storedAt("a"))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(f); string(got) != "stored" {
		t.Errorf("got %q", got)
	}
	_ = f.Close()
	_, create := r.Create(t.Context(), placeOf("new"), storage.Announce(1))
	_, scratch := r.Scratch(t.Context())
	for i, err := range []error{create, scratch, r.Commit(t.Context(), waiting(key, "b", "content")), r.Discard(t.Context(), storage.Uploaded{Key: key}),
		r.Remove(t.Context(), storedAt("a"))} {
		if err == nil {
			t.Errorf("change %d succeeded", i)
		}
	}
}

// Whatever symbolic link somebody plants, no file of another client and none
// outside changes or can be read.
func TestPlantedSymlinks(t *testing.T) {
	bob := codec.ClientID{0xb0, 0xb0}
	plant := map[string]func(dir string) error{
		"the client's folder is another's": func(dir string) error {
			return os.Symlink(bob.String(), filepath.Join(dir, "files", alice.String()))
		},
		"the client's folder is outside": func(dir string) error {
			return os.Symlink(filepath.Join(dir, "outside"), filepath.Join(dir, "files", alice.String()))
		},
		"a folder is another client's": func(dir string) error {
			return os.Symlink("../"+bob.String()+"/sub", filepath.Join(dir, "files", alice.String(), "sub"))
		},
		"a folder is outside": func(dir string) error {
			return os.Symlink("../../outside/sub", filepath.Join(dir, "files", alice.String(), "sub"))
		},
		"the file is another client's": func(dir string) error {
			return os.Symlink("../../"+bob.String()+"/sub/f", filepath.Join(dir, "files", alice.String(), "sub", "f"))
		},
		"the file is outside": func(dir string) error {
			return os.Symlink(filepath.Join(dir, "outside", "sub", "f"), filepath.Join(dir, "files", alice.String(), "sub", "f"))
		},
		"the file dangles": func(dir string) error {
			return os.Symlink("nowhere", filepath.Join(dir, "files", alice.String(), "sub", "f"))
		},
	}
	for name, plant := range plant {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{Fsync: true})
			victims := []string{
				filepath.Join(dir, "files", bob.String(), "sub", "f"), filepath.Join(dir, "outside", "sub", "f"),
			}
			for _, v := range victims {
				if err := os.MkdirAll(filepath.Dir(v), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(v, []byte("not yours"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			// The folders that lead to the link, and no more.
			own := filepath.Join(dir, "files", alice.String())
			switch {
			case strings.HasPrefix(name, "the file"):
				own = filepath.Join(own, "sub")
				fallthrough
			case strings.HasPrefix(name, "a folder"):
				if err := os.MkdirAll(own, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			key := receive(t, s, "mine") // before the link is there: later no file begins
			if err := plant(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Create(t.Context(), placeOf("sub/f"), storage.Announce(4)); !errors.Is(err, ErrObstructed) {
				t.Errorf("Create: %v, want ErrObstructed", err)
			}
			if err := s.Commit(t.Context(), waiting(key, "sub/f", "mine")); !errors.Is(err, ErrObstructed) {
				t.Errorf("Commit: %v, want ErrObstructed", err)
			}
			if f, err := s.Open(t.Context(), storedAt("sub/f")); !errors.Is(err, ErrObstructed) {
				t.Errorf("Open: %v, %v, want ErrObstructed", f, err)
			}
			if _, err := s.Size(t.Context(), storedAt("sub/f")); !errors.Is(err, ErrObstructed) {
				t.Errorf("Size: %v, want ErrObstructed", err)
			}
			if err := s.Remove(t.Context(), storedAt("sub/f")); !errors.Is(err, ErrObstructed) {
				t.Errorf("Remove: %v, want ErrObstructed", err)
			}
			if has, err := s.Has(t.Context(), alice); strings.HasPrefix(name, "the client's folder") != errors.Is(err, ErrObstructed) {
				t.Errorf("Has: %v, %v", has, err)
			}
			err := s.EachStored(t.Context(), func(id codec.ClientID, path string) error {
				if id == alice {
					t.Errorf("EachStored follows the link to %q", path)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			for _, v := range victims {
				if got, err := os.ReadFile(v); string(got) != "not yours" || err != nil {
					t.Errorf("%s: %q, %v", v, got, err)
				}
			}
			if _, err := s.Size(t.Context(), storage.Uploaded{Key: key}); err != nil {
				t.Errorf("the incoming file is gone: %v", err)
			}
		})
	}
}

func TestIncomingFolderMustNotBeALink(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"files", "files/elsewhere"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("elsewhere", filepath.Join(dir, "files", ".incoming")); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(dir, Options{}); !errors.Is(err, ErrObstructed) {
		t.Errorf("Open: %v, %v, want ErrObstructed", s, err)
	}
}

// A folder that an operator removed comes back with the next file.
func TestRemovedFolderComesBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Fsync: true})
	for range 2 {
		if err := s.Commit(t.Context(), waiting(receive(t, s, "x"), "a/b/c", "x")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "files", alice.String())); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(t.Context(), storedAt("a/b/c")); !errors.Is(err, storage.ErrNotStored) {
			t.Errorf("Open: %v, want ErrNotStored", err)
		}
	}
}

func TestScratchOfAKilledProcessIsSwept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	early, err := s.Scratch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := early.WriteAt([]byte("early"), 1000); err != nil {
		t.Fatal(err)
	}
	keep := receive(t, s, "waits for its 1029")
	// What the end of a process does: descriptors are closed, and no more.
	if err := errors.Join(early.(*scratch).release(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	wantIncoming(t, s, keep)
	if left := leftIncoming(t, dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func TestClosedScratchLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	scratch, err := s.Scratch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := scratch.WriteAt([]byte("early"), 1000); err != nil {
		t.Fatal(err)
	}
	if err := scratch.Close(); err != nil {
		t.Fatal(err)
	}
	if left := leftIncoming(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// leftIncoming lists what lies below .incoming, but for the folders.
func leftIncoming(t testing.TB, dir string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "files", ".incoming", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func wantIncoming(t testing.TB, s *Store, want ...string) {
	t.Helper()
	var got []string
	if err := s.EachIncoming(t.Context(), func(up storage.Uploaded) error { got = append(got, up.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("incoming %q, want %q", got, want)
	}
}

func TestEachStored(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	want := map[string]bool{"a": true, "d/a": true, "d/e/f": true, ".incoming": true}
	for path := range want {
		if err := s.Commit(t.Context(), waiting(receive(t, s, path), path, path)); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, s, "not stored yet")
	for _, d := range []string{"lost+found", strings.ToUpper(alice.String()), "a1ce"} {
		if err := os.Mkdir(filepath.Join(dir, "files", d), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "files", d, "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := s.EachStored(t.Context(), func(id codec.ClientID, path string) error {
		if id != alice || !want[path] {
			t.Errorf("unexpected %s %q", id, path)
		}
		delete(want, path)
		return nil
	})
	if err != nil || len(want) != 0 {
		t.Errorf("%v; missed %v", err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.EachStored(ctx, func(codec.ClientID, string) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// After a failed Write the rest is refused, since nobody knows what is in the
// file.
func TestNoWriteAfterAFailure(t *testing.T) {
	s := open(t, t.TempDir(), Options{MaxOpen: -1})
	in, err := s.Create(t.Context(), placeOf("new"), storage.Announced{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(t.Context(), []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := s.Discard(t.Context(), storage.Uploaded{Key: in.Key()}); err != nil { // so that opening it again fails
		t.Fatal(err)
	}
	if _, err := in.Write(t.Context(), []byte("two")); err == nil {
		t.Fatal("Write into a file that is gone succeeded")
	}
	if _, err := in.Write(t.Context(), []byte("three")); err == nil {
		t.Error("the next Write succeeded")
	}
	if err := in.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	wantIncoming(t, s)
}

func BenchmarkSmallFile(b *testing.B) {
	for name, fsync := range map[string]bool{"fsync": true, "unsynced": false} {
		b.Run(name, func(b *testing.B) {
			s := open(b, b.TempDir(), Options{Fsync: fsync})
			data := bytes.Repeat([]byte("x"), 4096)
			f := waiting("", "a", string(data))
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				in, err := s.Create(b.Context(), placeOf("new"), storage.Announce(int64(len(data))))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := in.Write(b.Context(), data); err != nil {
					b.Fatal(err)
				}
				if err := in.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
				f.Incoming = in.Key()
				if err := s.Commit(b.Context(), f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLargeFile receives 256 MiB in buffers of 256 KiB, of announced size or
// not, and commits them.
func BenchmarkLargeFile(b *testing.B) {
	const size, buffer = 256 << 20, 256 << 10
	for name, announced := range map[string]storage.Announced{"announced": storage.Announce(size), "unannounced": {}} {
		b.Run(name, func(b *testing.B) {
			s := open(b, b.TempDir(), Options{Fsync: true})
			data := bytes.Repeat([]byte("x"), buffer)
			f := waiting("", "a", strings.Repeat("x", size))
			b.SetBytes(size)
			for b.Loop() {
				in, err := s.Create(b.Context(), placeOf("new"), announced)
				if err != nil {
					b.Fatal(err)
				}
				for range size / buffer {
					if _, err := in.Write(b.Context(), data); err != nil {
						b.Fatal(err)
					}
				}
				if err := in.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
				f.Incoming = in.Key()
				if err := s.Commit(b.Context(), f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
