package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/storage"
)

// However deep the folders are, and however much is in them, a walk holds one
// descriptor while it reports, and reports each file once.
func TestWalkHoldsOneDescriptor(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	client := filepath.Join(dir, filepath.FromSlash(aliceFolder))
	want := make(map[string]bool)
	put := func(path string) {
		t.Helper()
		at := filepath.Join(client, filepath.FromSlash(path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		want[path] = true
	}
	put(strings.Repeat("d/", 126) + "f")
	put(strings.Repeat("d/", 100) + "e/f")
	for i := range 2*readDir + 1 {
		put(fmt.Sprint("wide/", i))
		put(fmt.Sprint("wider/", i, "/f"))
	}
	for i := range readDir {
		put(fmt.Sprint("chunk/", i))
	}
	before := openDescriptors(t)
	err := s.EachStored(t.Context(), func(id codec.ClientID, path string) error {
		if id != alice || !want[path] {
			t.Errorf("%s %q is reported again, or was never there", id, path)
		}
		delete(want, path)
		if n := openDescriptors(t) - before; n > 1 {
			t.Errorf("%q: %d descriptors", path, n)
		}
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%v, missed %d", err, len(want))
	}
	key := receive(t, s, "")
	err = s.EachIncoming(t.Context(), func(got storage.Uploaded) error {
		if n := openDescriptors(t) - before; n > 1 || got.Key != key {
			t.Errorf("%q: %d descriptors", got.Key, n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if n := openDescriptors(t) - before; n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
}

// What the caller's function answers ends the walk, whatever it is; what went
// meanwhile does not.
func TestWalkWhileThingsChange(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	client := filepath.Join(dir, filepath.FromSlash(aliceFolder))
	for _, folder := range []string{"a", "b", "c"} {
		if err := os.MkdirAll(filepath.Join(client, folder, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{folder + "/f", folder + "/x/f"} {
			if err := os.WriteFile(filepath.Join(client, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, want := range []error{fs.ErrNotExist, ErrObstructed, errDisk} {
		if err := s.EachStored(t.Context(), func(codec.ClientID, string) error { return want }); err != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	n := 0
	err := s.EachStored(t.Context(), func(codec.ClientID, string) error {
		n++
		return os.RemoveAll(client)
	})
	if err != nil || n == 0 || n > 2 {
		t.Errorf("%d files, %v", n, err)
	}
}

// Empty folders go, the client's own too, and nothing else does.
func TestRemoveEmptyFolders(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Fsync: true})
	commit(t, s, waiting(receive(t, s, "x"), "kept/deep/f", "x"))
	root := filepath.Join(dir, "files")
	for _, folder := range []string{
		aliceFolder[6:] + "/kept/empty/deeper", aliceFolder[6:] + "/empty/" + strings.Repeat("d/", 120), "b0b00000000000000000000000000000/x/y",
		"lost+found", "b0b10000000000000000000000000000/link",
	} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(root, "lost+found"), filepath.Join(root, "b0b10000000000000000000000000000/link/to")); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveEmptyFolders(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(root, path); e.IsDir() && !strings.HasPrefix(rel, ".incoming") {
			left = append(left, filepath.ToSlash(rel))
		}
		return err
	})
	want := []string{
		".", "a1ce0000000000000000000000000000", "a1ce0000000000000000000000000000/kept", "a1ce0000000000000000000000000000/kept/deep",
		"b0b10000000000000000000000000000", "b0b10000000000000000000000000000/link", "lost+found",
	}
	if strings.Join(left, "\n") != strings.Join(want, "\n") || err != nil {
		t.Errorf("%v, left %q,\nwant %q", err, left, want)
	}
	wantFile(t, dir, "kept/deep/f", "x")
	if got := leftIncoming(t, dir); len(got) != 0 {
		t.Errorf("incoming %v", got)
	}
	// What is made again is durable again.
	commit(t, s, waiting(receive(t, s, "y"), "empty/f", "y"))
	wantFile(t, dir, "empty/f", "y")
}
