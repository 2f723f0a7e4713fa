package audit_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
)

// A file that is gone is marked, and not forgotten. Where it comes back as it
// was the mark goes, and nowhere else.
func TestRecoverMarksWhatIsGone(t *testing.T) {
	for _, tc := range []struct {
		name    string
		comes   func(place string) error
		report  audit.Report
		missing bool
	}{
		{"not at all", func(string) error { return nil }, audit.Report{audit.Missing: 1}, true},
		{"as it was", func(p string) error { return os.WriteFile(p, []byte(oldContent), 0o600) }, audit.Report{audit.Returned: 1}, false},
		{"shorter", func(p string) error { return os.WriteFile(p, []byte("short"), 0o600) }, audit.Report{audit.Damaged: 1}, true},
		{"of the same size, with other content", func(p string) error { return os.WriteFile(p, []byte("T"+oldContent[1:]), 0o600) }, audit.Report{audit.Damaged: 1}, true},
		{"as a folder", func(p string) error { return os.Mkdir(p, 0o700) }, audit.Report{audit.Failed: 1}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.store("kept", newContent)
			w.store(path, oldContent)
			folder := filepath.Dir(w.storedFile(path))
			if err := os.RemoveAll(folder); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				w.recover(audit.Report{audit.Missing: 1})
				w.wantMissing(path, true)
			}
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tc.comes(w.storedFile(path)); err != nil {
				t.Fatal(err)
			}
			w.recover(tc.report)
			w.wantMissing(path, tc.missing)
			if !tc.missing {
				w.wantFile(path, oldContent, "")
				w.recover(audit.Report{})
			}
			w.wantFile("kept", newContent, "")
			w.wantIncoming(0)
		})
	}
}

// What comes back may never have reached the disk, and syncing it again would
// not tell: it is written anew.
func TestRecoverWritesAnewWhatComesBack(t *testing.T) {
	w := newWorld(t)
	key := w.receive(oldContent)
	w.put(key, path, oldContent)
	w.commit(key, path)
	w.apply(&storage.VerifyFile{ID: alice, Path: path, Incoming: key, Missing: true}) // its folder could not be synced
	before, err := os.Stat(w.storedFile(path))
	if err != nil {
		t.Fatal(err)
	}
	w.recover(audit.Report{audit.Returned: 1})
	w.wantFile(path, oldContent, "")
	w.wantMissing(path, false)
	after, err := os.Stat(w.storedFile(path))
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(before, after) {
		t.Error("the file that could not be synced is still the one that is stored")
	}
}

// Where the rename of a file could not be synced, a power cut may undo it: then
// the content is an incoming file again, and an older version is in the place.
func TestRecoverAfterAnUndoneRename(t *testing.T) {
	for _, older := range []string{"", oldContent, strings.Repeat("o", len(newContent))} {
		for _, marked := range []bool{true, false} { // the mark may not have been recorded
			if !marked && len(older) == len(newContent) {
				continue // nothing but its content tells, and recovery looks at the size
			}
			t.Run(fmt.Sprintf("over %d bytes, marked %t", len(older), marked), func(t *testing.T) {
				w := newWorld(t)
				key := w.receive(newContent)
				w.put(key, path, newContent)
				w.apply(&storage.VerifyFile{ID: alice, Path: path, Incoming: key, Missing: marked})
				if older != "" {
					if err := os.MkdirAll(filepath.Dir(w.storedFile(path)), 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(w.storedFile(path), []byte(older), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				disk := &cannotCommit{w.Store, errors.New("the disk does not answer")}
				got, err := audit.Recover(t.Context(), w.reg, disk, w.options())
				if want := (audit.Report{audit.Failed: 1}); err != nil || !maps.Equal(got, want) {
					t.Errorf("report %v, %v, want %v", got, err, want)
				}
				w.wantMissing(path, true)
				w.wantIncoming(1)
				w.recover(audit.Report{audit.Returned: 1})
				w.wantFile(path, newContent, "")
				w.wantMissing(path, false)
				w.wantIncoming(0)
			})
		}
	}
}

// A disk that is too full to write a file anew is no reason to forget it.
func TestRecoverWithoutRoomForWhatComesBack(t *testing.T) {
	w := newWorld(t)
	w.store(path, oldContent)
	w.apply(&storage.MarkFile{ID: alice, Path: path, Incoming: w.get(path).Verified.Incoming, Missing: true})
	got, err := audit.Recover(t.Context(), w.reg, &full{w.Store}, w.options())
	if want := (audit.Report{audit.Failed: 1}); err != nil || !maps.Equal(got, want) {
		t.Errorf("report %v, %v, want %v", got, err, want)
	}
	w.wantMissing(path, true)
	w.wantFile(path, oldContent, "")
	w.recover(audit.Report{audit.Returned: 1})
}

// full is a store on a full disk.
type full struct{ *files.Store }

func (*full) Create(context.Context, storage.Place, storage.Announced) (storage.Incoming, error) {
	return nil, storage.ErrFull
}

// What a Commit says that recovery repeats, and what becomes of the row.
func TestRecoverWhereCommitFails(t *testing.T) {
	for _, tc := range []struct {
		err      error
		report   audit.Report
		verified bool
		waits    bool
	}{
		{storage.ErrPlaceNotDurable, audit.Report{audit.Missing: 1}, true, false},
		{storage.ErrNotDurable, audit.Report{audit.Spoilt: 1}, false, false},
		{storage.ErrNotStored, audit.Report{audit.Spoilt: 1}, false, false},
		{errors.New("the disk does not answer"), audit.Report{audit.Failed: 1}, false, true},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			w := newWorld(t)
			w.store("other", "stays")
			key := w.receive(newContent)
			w.put(key, path, newContent)
			w.commit(key, path)
			waiting := 0
			o := w.options()
			o.Waiting = func(*storage.File) { waiting++ }
			got, err := audit.Recover(t.Context(), w.reg, &cannotCommit{w.Store, tc.err}, o)
			delete(got, audit.Stray) // the content, where its row went
			if err != nil || !maps.Equal(got, tc.report) {
				t.Errorf("report %v, %v, want %v", got, err, tc.report)
			}
			get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: alice, Path: path}
			if err := w.reg.Apply(t.Context(), []storage.Operation{get}); err != nil {
				t.Fatal(err)
			}
			if (get.Verified != nil) != tc.verified || tc.verified && !get.Verified.Missing {
				t.Errorf("verified row %+v", get.Verified)
			}
			if (get.Unverified != nil) != tc.waits || (waiting == 1) != tc.waits {
				t.Errorf("unverified row %+v, told of %d", get.Unverified, waiting)
			}
		})
	}
}

type cannotCommit struct {
	*files.Store
	err error
}

func (c *cannotCommit) Commit(context.Context, *storage.File) error { return c.err }

// An empty mount point does not cost the registry its files.
func TestRecoverFromADiskNotMounted(t *testing.T) {
	w := newWorld(t)
	for i := range 10 {
		w.store(fmt.Sprint("f", i), oldContent)
	}
	key := w.receive(newContent)
	w.put(key, path, newContent)
	away := w.storedFile("") + "away"
	for _, move := range [][2]string{{w.storedFile(""), away}, {w.incomingFile(key), filepath.Join(w.dir, key)}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
	var gone *audit.FilesGoneError
	_, err := audit.Recover(t.Context(), w.reg, w.Store, w.options())
	if !errors.As(err, &gone) || err.Error() != "none of the 10 recorded files was found" {
		t.Fatalf("Recover: %v", err)
	}
	w.wantMissing("f0", false)
	for _, move := range [][2]string{{away, w.storedFile("")}, {filepath.Join(w.dir, key), w.incomingFile(key)}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
	w.recover(audit.Report{})
	w.wantFile("f0", oldContent, "")
	w.wantFile(path, "", newContent)
}

// With a file that is there, the others may have been removed on purpose.
func TestRecoverWithoutMostFiles(t *testing.T) {
	w := newWorld(t)
	for i := range 12 {
		w.store(fmt.Sprint("f", i), oldContent)
	}
	for i := range 11 {
		if err := os.Remove(w.storedFile(fmt.Sprint("f", i))); err != nil {
			t.Fatal(err)
		}
	}
	w.recover(audit.Report{audit.Missing: 11})
	w.wantMissing("f0", true)
	w.wantMissing("f11", false)
}
