package audit_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"sealift/codec"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
)

// folding opens the store again, as if its disk did not tell upper from lower case.
func (w *world) folding() {
	w.t.Helper()
	if err := w.Store.Close(); err != nil {
		w.t.Fatal(err)
	}
	s, err := files.Open(w.dir, files.Options{Fsync: true, Folding: &files.Folding{Case: true}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Close() })
	w.Store = s
}

// Files that a disk takes for one are told of before anything is changed, and no
// copy is made where they would be one.
func TestAlikeOnRecord(t *testing.T) {
	w := newWorld(t)
	w.store("Docs/A", oldContent)
	w.store("docs/b", newContent) // another file of the same folder
	w.folding()
	w.recover(audit.Report{})

	w.store("docs/a", newContent)
	w.put(w.receive(newContent), "DOCS/B", newContent)
	if err := os.Remove(w.storedFile("docs/b")); err != nil {
		t.Fatal(err)
	}
	_, err := audit.Recover(t.Context(), w.reg, w.Store, w.options())
	var alike *audit.AlikeError
	if !errors.As(err, &alike) || alike.Count != 2 || alike.Client != alice || alike.Path != "Docs/A" || alike.Like != "docs/a" {
		t.Errorf("Recover: %v", err)
	}
	w.wantMissing("docs/b", false)
	w.wantIncoming(1)

	to := newWorld(t)
	to.store("Docs/A", oldContent)
	to.store("docs/a", newContent)
	to.folding()
	if err := os.RemoveAll(filepath.Dir(to.storedFile("x"))); err != nil {
		t.Fatal(err)
	}
	err = audit.Backup(t.Context(), w.reg, w.Store, to.reg, to.Store, func(int64) {}, func(f storage.File, err error) {
		t.Errorf("%s: %v", f.Path, err)
	})
	if !errors.As(err, &alike) || alike.Count != 1 {
		t.Errorf("Backup: %v", err)
	}
	if err := to.EachStored(t.Context(), func(_ codec.ClientID, path string) error {
		t.Errorf("%s was copied", path)
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// On a disk that does not tell upper from lower case, a file on record is no stray
// where its folder is spelt otherwise, and none is taken for another's place.
func TestAlikeStrays(t *testing.T) {
	w := newWorld(t)
	w.store("Docs/A", oldContent)
	w.folding()
	for _, path := range []string{"docs/A", "docs/stray"} {
		if err := os.MkdirAll(filepath.Dir(w.storedFile(path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.storedFile(path), []byte(newContent), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.recover(audit.Report{audit.Stray: 1})
	take := func() (taken, left []string) {
		err := audit.TakeStrays(t.Context(), w.reg, w.Store, now, false, func(f storage.File, err error) {
			switch {
			case err == nil:
				taken = append(taken, f.Path)
			case errors.Is(err, storage.ErrAlike):
				left = append(left, f.Path)
			default:
				t.Errorf("%s: %v", f.Path, err)
			}
		})
		if err != nil {
			t.Error(err)
		}
		return taken, left
	}
	if taken, left := take(); len(taken) != 1 || taken[0] != "docs/stray" || len(left) != 0 {
		t.Errorf("taken %q, left %q", taken, left)
	}
	w.apply(&storage.MarkFile{ID: alice, Path: "Docs/A", Incoming: w.get("Docs/A").Verified.Incoming, Missing: true})
	if taken, left := take(); len(taken) != 1 || taken[0] != "Docs/A" || len(left) != 1 || left[0] != "docs/A" {
		t.Errorf("with the record marked as missing: taken %q, left %q", taken, left)
	}
}
