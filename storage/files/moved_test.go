package files

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sealift/storage"
)

// While the directory is not where it was opened, nothing is acknowledged; once it
// is back, what waited is committed.
func TestMovedStore(t *testing.T) {
	elsewhere := func(what ...string) (away, back func(dir string) error) {
		at := func(dir string) string { return filepath.Join(append([]string{dir}, what...)...) }
		return func(dir string) error { return os.Rename(at(dir), at(dir)+" away") },
			func(dir string) error { return errors.Join(os.RemoveAll(at(dir)), os.Rename(at(dir)+" away", at(dir))) }
	}
	for _, what := range [][]string{{}, {"files"}, {"files", ".incoming"}} {
		for _, replaced := range []bool{false, true} {
			dir := filepath.Join(t.TempDir(), "dir")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir, Options{Fsync: true})
			before := waiting(receive(t, s, newer), "a", newer)
			stored := waiting(receive(t, s, newer), "stored", newer)
			commit(t, s, stored)
			in, err := s.Create(t.Context(), placeOf("new"), storage.Announced{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := in.Write(t.Context(), []byte(newer)); err != nil {
				t.Fatal(err)
			}

			away, back := elsewhere(what...)
			if err := away(dir); err != nil {
				t.Fatal(err)
			}
			if replaced {
				if err := os.MkdirAll(filepath.Join(dir, "files", ".incoming"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := in.Close(t.Context()); !errors.Is(err, ErrMoved) {
				t.Errorf("%v, replaced %v: Close: %v, want ErrMoved", what, replaced, err)
			}
			wantCommit(t, s, before, ErrMoved)
			if _, err := s.Size(t.Context(), stored.Stored()); !errors.Is(err, ErrMoved) {
				t.Errorf("%v, replaced %v: Size: %v, want ErrMoved", what, replaced, err)
			}
			if err := s.Remove(t.Context(), stored.Stored()); !errors.Is(err, ErrMoved) {
				t.Errorf("%v, replaced %v: Remove: %v, want ErrMoved", what, replaced, err)
			}
			if err := back(dir); err != nil {
				t.Fatal(err)
			}
			wantFile(t, dir, "stored", newer)
			wantIncoming(t, s, before.Incoming, in.Key())
			commit(t, s, before)
			commit(t, s, waiting(in.Key(), "b", newer))
			wantFile(t, dir, "a", newer)
		}
	}
}

// While a file stands where the folder above the store was, nothing is acknowledged.
func TestFileWhereTheStoreWas(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, Options{Fsync: true})
	f := waiting(receive(t, s, newer), "a", newer)
	if err := errors.Join(os.Rename(dir, dir+" away"), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), f); err == nil || errors.Is(err, storage.ErrNotStored) {
		t.Errorf("Commit: %v, want an error after which Commit may be called again", err)
	}
	if err := errors.Join(os.Remove(dir), os.Rename(dir+" away", dir)); err != nil {
		t.Fatal(err)
	}
	commit(t, s, f)
}

// The directory goes while a Commit is at work: it is not acknowledged, and can be
// called again when the directory is back.
func TestStoreMovesDuringACommit(t *testing.T) {
	s, d, dir := faulty(t, Options{})
	f := waiting(receive(t, s, newer), "docs/a", newer)
	at := filepath.Join(dir, "files")
	d.before(func(step Step) error {
		if step.Op == SyncFolder {
			return os.Rename(at, at+" away")
		}
		return nil
	})
	wantCommit(t, s, f, ErrMoved)
	d.repair()
	wantCommit(t, s, f, ErrMoved)
	if err := os.Rename(at+" away", at); err != nil {
		t.Fatal(err)
	}
	commit(t, s, f)
	wantFile(t, dir, "docs/a", newer)
}

// The folder of a file, or one above it, is removed or renamed, and perhaps
// replaced, at any step of a Commit: then the file is in its place afterwards, or
// Commit does not say so.
//
// Where a link to it stands in its stead, the file can be in its place no more.
func TestFolderMovesDuringACommit(t *testing.T) {
	for what, disturb := range map[string]func(folder string) error{
		"removed": os.RemoveAll,
		"renamed": func(folder string) error { return os.Rename(folder, folder+" away") },
		"replaced": func(folder string) error {
			return errors.Join(os.Rename(folder, folder+" away"), os.MkdirAll(filepath.Join(folder, "sub"), 0o700))
		},
		"linked": func(folder string) error {
			return errors.Join(os.Rename(folder, folder+" away"), os.Symlink(folder+" away", folder))
		},
	} {
		for _, folder := range []string{"", "docs", "docs/sub"} {
			for step, more := 0, true; more; step++ {
				s, d, dir := faulty(t, Options{})
				f := waiting(receive(t, s, newer), "docs/sub/a", newer)
				taken := 0
				more = false
				moved := false // the file had been moved already, and went with the folder
				d.before(func(now Step) error {
					if taken++; taken-1 != step {
						return nil
					}
					more = true
					moved = now.Op == SyncFolder && now.Path == aliceFolder+"/docs/sub"
					at := filepath.Join(dir, filepath.FromSlash(aliceFolder), folder)
					if _, err := os.Stat(at); err != nil {
						return nil
					}
					return disturb(at)
				})
				err := s.Commit(t.Context(), f)
				d.repair()
				got, readErr := read(s, storedAt("docs/sub/a"))
				if err == nil && got != newer && !moved {
					t.Errorf("%q %s before step %d: Commit says nil, but there is %q, %v", folder, what, step, got, readErr)
				}
				if err != nil && (what != "linked" || !errors.Is(err, ErrObstructed)) {
					t.Errorf("%q %s before step %d: %v", folder, what, step, err)
				}
			}
		}
	}
}

func read(s *Store, ref storage.Ref) (string, error) {
	f, err := s.open(ref)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

// Who takes a folder away while a Commit waits for the disk has the files that were in it:
// none of them is replaced.
func TestFolderIsTakenDuringTheSync(t *testing.T) {
	for _, folder := range []string{"", "docs"} {
		s, d, dir := faulty(t, Options{})
		f := waiting(receive(t, s, newer), "docs/a", newer)
		at := filepath.Join(dir, filepath.FromSlash(aliceFolder), folder)
		d.before(func(step Step) error {
			if step.Op != SyncFile {
				return nil
			}
			return os.Rename(at, at+" away")
		})
		commit(t, s, f)
		wantFile(t, dir, "docs/a", newer)
		taken := filepath.Join(at+" away", "a")
		if folder == "" {
			taken = filepath.Join(at+" away", "docs", "a")
		}
		if got, err := os.ReadFile(taken); string(got) != older || err != nil {
			t.Errorf("%q, %v, want %q", got, err, older)
		}
	}
}

// A folder is replaced just before the file is moved into it: the file ends in the
// new one, and that one's entry and the file's are synced.
func TestFolderIsReplacedBeforeTheMove(t *testing.T) {
	s, d, dir := faulty(t, Options{})
	f := waiting(receive(t, s, newer), "docs/a", newer)
	at := filepath.Join(dir, filepath.FromSlash(aliceFolder), "docs")
	done := false
	d.before(func(step Step) error {
		if step.Op != Rename || done {
			return nil
		}
		done = true
		return errors.Join(os.Rename(at, at+" away"), os.Mkdir(at, 0o700))
	})
	d.taken()
	commit(t, s, f)
	wantFile(t, dir, "docs/a", newer)
	got := d.taken()
	want := []string{"sync folder files", "sync folder " + aliceFolder, "sync folder " + aliceFolder + "/docs"}
	got = slices.DeleteFunc(got, func(s string) bool { return !slices.Contains(want, s) })
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
