package sqlite

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"sealift/storage"
)

// A copy has what was committed, also where its path looks like SQL or a URI, and
// is a database of its own.
func TestCopyTo(t *testing.T) {
	dir := t.TempDir()
	r := open(t, filepath.Join(dir, "defensive.db"))
	f := storage.File{ID: add(1, "anna").ID, FileName: "a", Path: "a", Incoming: "00ff", Received: moment}
	apply(t, r, add(1, "anna"), &storage.PutFile{File: f}, &storage.VerifyFile{ID: f.ID, Path: "a", Incoming: "00ff"})
	writing := other(t, filepath.Join(dir, "defensive.db"))
	run(t, writing, "BEGIN IMMEDIATE")
	run(t, writing, "DELETE FROM files") // not committed, and does not hold the copy up
	path := filepath.Join(dir, "it's a copy?mode=memory#.db")
	if err := r.CopyTo(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	run(t, writing, "ROLLBACK")
	reading := <-r.reader
	r.reader <- reading
	if reading == nil {
		t.Error("the copy cost a connection that works")
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.CopyTo(t.Context(), path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second copy: %v, want ErrExist", err)
	}
	if got, err := os.ReadFile(path); !bytes.Equal(got, whole) || err != nil {
		t.Errorf("a second copy wrote over the first: %d bytes, %d before, %v", len(got), len(whole), err)
	}
	c := open(t, path)
	apply(t, c, add(2, "ben"))
	list := func(r *Registry) (names []string, files []storage.File) {
		_ = r.Clients(t.Context(), func(c storage.Client) error { names = append(names, c.Name); return nil })
		_ = r.Files(t.Context(), func(f storage.File) error { files = append(files, f); return nil })
		return names, files
	}
	names, files := list(r)
	copied, sameFiles := list(c)
	if !reflect.DeepEqual(names, []string{"anna"}) || !reflect.DeepEqual(copied, []string{"anna", "ben"}) || !reflect.DeepEqual(files, sameFiles) || len(files) != 1 {
		t.Errorf("%v with %v, and in the copy %v with %v", names, files, copied, sameFiles)
	}
}

// A copy that was not made leaves nothing, so that the next try can be made.
func TestCopyToFails(t *testing.T) {
	dir := t.TempDir()
	r := open(t, filepath.Join(dir, "defensive.db"))
	apply(t, r, add(1, "anna"))
	ended, end := context.WithCancel(t.Context())
	end()
	path := filepath.Join(dir, "copy.db")
	if err := r.CopyTo(ended, path); !errors.Is(err, context.Canceled) {
		t.Errorf("CopyTo: %v, want context.Canceled", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is left of the copy: %v", err)
	}
	if err := r.CopyTo(t.Context(), path); err != nil {
		t.Errorf("the next try: %v", err)
	}
}
