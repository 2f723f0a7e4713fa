package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sealift/codec"
	"sealift/storage"
	"sealift/storage/audit"
)

func (w *world) take(path string) {
	w.t.Helper()
	w.apply(&storage.TakeFile{ID: alice, Path: path, Incoming: w.get(path).Verified.Incoming, Taken: now})
}

func (w *world) delete(path string) {
	w.t.Helper()
	w.apply(&storage.DeleteFile{ID: alice, Path: path, Incoming: w.get(path).Verified.Incoming, Verified: true})
}

func (w *world) deleteWaiting(path string) {
	w.t.Helper()
	w.apply(&storage.DeleteFile{ID: alice, Path: path, Incoming: w.get(path).Unverified.Incoming})
}

// lapse has another version of path come and go without being verified.
func (w *world) lapse(path string) {
	w.t.Helper()
	key := w.receive("lapses")
	w.put(key, path, "lapses")
	w.apply(&storage.DropFile{ID: alice, Path: path, Incoming: key})
	if err := w.Discard(w.t.Context(), storage.Uploaded{Key: key}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) clear(want audit.Report) {
	w.t.Helper()
	got, err := audit.Clear(w.t.Context(), w.reg, w.Store, w.options())
	if err != nil || !maps.Equal(got, want) {
		w.t.Errorf("report %v, %v, want %v", got, err, want)
	}
}

// wantTaken checks that path is on record as taken, and that nothing is in its place.
func (w *world) wantTaken(path string) {
	w.t.Helper()
	f := w.get(path).Verified
	if f == nil || f.Taken.IsZero() || !f.Missing {
		w.t.Errorf("%s: row %+v, want it taken, and marked as missing", path, f)
	}
	if _, err := w.Size(w.t.Context(), storage.Stored{Place: storage.Place{ID: alice, Path: path}}); !errors.Is(err, storage.ErrNotStored) {
		w.t.Errorf("%s: its content is there: %v", path, err)
	}
}

// Each state in which a crash may leave a place with a file that leaves, and what Clear
// and Recover make of it.
func TestClear(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(w *world)
		report audit.Report
		after  func(w *world)
	}{
		{"taken", func(w *world) { w.take(path) }, audit.Report{audit.Taken: 1}, func(w *world) { w.wantTaken(path) }},
		{"taken, and removed, and the mark was not written", func(w *world) {
			w.take(path)
			if err := w.Remove(w.t.Context(), w.get(path).Verified.Stored()); err != nil {
				w.t.Fatal(err)
			}
		}, audit.Report{audit.Taken: 1}, func(w *world) { w.wantTaken(path) }},
		{"taken, and another version waits", func(w *world) {
			w.take(path)
			w.put(w.receive(newContent), path, newContent)
		}, audit.Report{audit.Taken: 1}, func(w *world) {
			w.wantTaken(path)
			f := w.get(path).Unverified
			w.commit(f.Incoming, path)
			w.verify(f.Incoming, path)
			w.wantFile(path, newContent, "")
		}},
		{"taken, and another version is in its place", func(w *world) {
			w.take(path)
			key := w.receive(newContent)
			w.put(key, path, newContent)
			w.commit(key, path)
		}, audit.Report{audit.Finished: 1}, func(w *world) { w.wantFile(path, newContent, "") }},
		{"taken, and the content of another version is gone", func(w *world) {
			w.take(path)
			key := w.receive(newContent)
			w.put(key, path, newContent)
			if err := w.Discard(w.t.Context(), storage.Uploaded{Key: key}); err != nil {
				w.t.Fatal(err)
			}
		}, audit.Report{audit.Spoilt: 1, audit.Taken: 1}, func(w *world) {
			w.wantTaken(path)
			if !w.get(path).Lapsed() {
				w.t.Error("nothing tells that a version has lapsed")
			}
		}},
		{"taken, and deleted after that", func(w *world) { w.take(path); w.delete(path) },
			audit.Report{audit.Deleted: 1}, func(w *world) { w.wantFile(path, "", "") }},
		{"deleted", func(w *world) { w.delete(path) }, audit.Report{audit.Deleted: 1}, func(w *world) { w.wantFile(path, "", "") }},
		{"deleted, and the content is gone", func(w *world) {
			w.delete(path)
			if err := os.RemoveAll(filepath.Dir(w.storedFile(path))); err != nil {
				w.t.Fatal(err)
			}
		}, audit.Report{audit.Deleted: 1}, func(w *world) { w.wantFile(path, "", "") }},
		{"deleted, and it is damaged", func(w *world) {
			w.delete(path)
			if err := os.Truncate(w.storedFile(path), 1); err != nil {
				w.t.Fatal(err)
			}
		}, audit.Report{audit.Deleted: 1}, func(w *world) { w.wantFile(path, "", "") }},
		{"deleted, and another version is in its place", func(w *world) {
			w.delete(path)
			key := w.receive(newContent)
			w.put(key, path, newContent)
			w.commit(key, path)
		}, audit.Report{audit.Finished: 1}, func(w *world) { w.wantFile(path, newContent, "") }},
		{"deleted with another version, which is in its place", func(w *world) {
			key := w.receive(newContent)
			w.put(key, path, newContent)
			w.delete(path)
			w.deleteWaiting(path)
			w.commit(key, path)
		}, audit.Report{audit.Finished: 1}, func(w *world) { w.wantFile(path, newContent, "") }},
		{"deleted while it waits", func(w *world) {
			w.put(w.receive(newContent), path, newContent)
			w.deleteWaiting(path)
		}, audit.Report{audit.Deleted: 1}, func(w *world) {
			w.wantFile(path, oldContent, "")
			if !w.get(path).Lapsed() {
				w.t.Error("nothing tells that a version has lapsed")
			}
		}},
		{"deleted with the version that waits", func(w *world) {
			w.put(w.receive(newContent), path, newContent)
			w.deleteWaiting(path)
			w.delete(path)
		}, audit.Report{audit.Deleted: 2}, func(w *world) { w.wantFile(path, "", "") }},
		{"deleted, and another version waits", func(w *world) {
			w.lapse(path)
			w.delete(path)
			w.put(w.receive(newContent), path, newContent)
		}, audit.Report{audit.Deleted: 1}, func(w *world) {
			w.wantFile(path, "", newContent)
			if !w.get(path).Lapsed() {
				w.t.Error("the mark that a version has lapsed went")
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, recover := range []bool{false, true} {
				w := newWorld(t)
				w.store("stays", oldContent)
				w.store(path, oldContent)
				tc.before(w)
				if recover {
					w.recover(tc.report)
				} else {
					w.clear(tc.report)
				}
				tc.after(w)
				w.wantFile("stays", oldContent, "")
				waits := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: alice, Path: path}
				if err := w.reg.Apply(t.Context(), []storage.Operation{waits}); err != nil {
					t.Fatal(err)
				}
				if waits.Unverified == nil {
					w.wantIncoming(0)
				}
				w.clear(nil)
				w.recover(audit.Report{})
			}
		})
	}
}

// What the hooks are told, and when.
func TestClearTells(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	inside := ""
	o.Exclusive = func(id codec.ClientID, p string, do func()) {
		inside = p
		do()
		inside = ""
	}
	var told []string
	tell := func(what string) func(*storage.File) {
		return func(f *storage.File) {
			told = append(told, what+" "+f.Path)
			if inside != f.Path {
				t.Errorf("told that %s is %s, inside of Exclusive for %q", f.Path, what, inside)
			}
		}
	}
	o.Forgotten, o.Finished = tell("forgotten"), tell("finished")
	o.Dropped = func(f *storage.File, marked bool) { tell(fmt.Sprint("dropped ", marked))(f) }
	for _, path := range []string{"a", "b", "c"} { // b and c have a mark that a version lapsed
		w.store(path, oldContent)
		if path != "a" {
			w.lapse(path)
		}
		w.delete(path)
	}
	w.put(w.receive(newContent), "c", newContent) // takes the mark over
	for _, path := range []string{"d", "e"} {
		key := w.receive(newContent)
		w.put(key, path, newContent)
		if path == "e" {
			w.commit(key, path)
		}
		w.deleteWaiting(path)
	}
	if _, err := audit.Clear(t.Context(), w.reg, w.Store, o); err != nil {
		t.Fatal(err)
	}
	if want := []string{"forgotten b", "dropped false d", "finished e"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// What cannot be removed is told of, and tried again; others are not kept back.
func TestClearFails(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"a", "b/f", "c", "d"} {
		w.store(path, oldContent)
	}
	for _, path := range []string{"a", "b/f", "c"} {
		w.take(path)
	}
	w.delete("d")
	at := w.storedFile("a")
	if err := errors.Join(os.Remove(at), os.Mkdir(at, 0o700), // something else is in the place
		os.RemoveAll(filepath.Dir(w.storedFile("b/f"))), os.Symlink("elsewhere", filepath.Dir(w.storedFile("b/f"))), // and on the way
		os.WriteFile(w.storedFile("c"), []byte("somebody else's"), 0o600)); err != nil {
		t.Fatal(err)
	}
	w.clear(audit.Report{audit.Failed: 2, audit.Damaged: 1, audit.Taken: 1, audit.Deleted: 1})
	if got, err := os.ReadFile(w.storedFile("c")); string(got) != "somebody else's" {
		t.Errorf("what somebody put where a taken file was is %q, %v", got, err)
	}
	w.clear(audit.Report{audit.Failed: 2})
	if err := errors.Join(os.Remove(at), os.Remove(filepath.Dir(w.storedFile("b/f")))); err != nil {
		t.Fatal(err)
	}
	w.clear(audit.Report{audit.Taken: 2})
	w.wantTaken("a")
	w.wantTaken("b/f")
	w.wantFile("d", "", "")
}

// A version that a 1029 verifies while Clear gets to it stays, whichever was to go.
func TestClearBesideAServer(t *testing.T) {
	for name, mark := range map[string]func(w *world){
		"taken":               func(w *world) { w.take(path) },
		"deleted":             func(w *world) { w.delete(path) },
		"deleted while waits": func(w *world) { w.deleteWaiting(path) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store(path, oldContent)
			key := w.receive(newContent)
			w.put(key, path, newContent)
			mark(w)
			o := w.options()
			o.Exclusive = func(_ codec.ClientID, _ string, do func()) {
				w.commit(key, path)
				w.verify(key, path)
				do()
			}
			got, err := audit.Clear(t.Context(), w.reg, w.Store, o)
			if err != nil || len(got) != 0 {
				t.Errorf("report %v, %v", got, err)
			}
			w.wantFile(path, newContent, "")
		})
	}
}

// A row of a file that was taken goes after a day, if the content went before.
func TestExpireTaken(t *testing.T) {
	w := newWorld(t)
	w.store(path, oldContent)
	w.store("not cleared", oldContent)
	w.take(path)
	w.clear(audit.Report{audit.Taken: 1})
	w.take("not cleared")
	expire := func(after time.Duration, want audit.Report) {
		t.Helper()
		o := w.options()
		o.Now = now.Add(after)
		if got, err := audit.Expire(t.Context(), w.reg, w.Store, o); err != nil || !maps.Equal(got, want) {
			t.Errorf("after %v: %v, %v, want %v", after, got, err, want)
		}
	}
	expire(24*time.Hour, audit.Report{})
	w.wantTaken(path)
	expire(24*time.Hour+time.Second, audit.Report{audit.Handed: 1})
	w.wantFile(path, "", "")
	w.wantFile("not cleared", oldContent, "")
}

// Files that leave are passed over, by all that looks for what is missing or unknown.
func TestWhatLeavesIsPassedOver(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"taken", "removed", "deleted", "stays"} {
		w.store(path, oldContent)
	}
	w.take("removed")
	w.clear(audit.Report{audit.Taken: 1})
	w.take("taken")
	w.delete("deleted")
	for _, path := range []string{"taken", "deleted", "removed"} { // as a person might
		if err := os.WriteFile(w.storedFile(path), []byte("something else"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	see := func(f storage.File, err error) { seen = append(seen, fmt.Sprintf("%s %v", f.Path, err)) }
	err := errors.Join(
		audit.Verify(t.Context(), w.reg, w.Store, see),
		audit.ForgetMissing(t.Context(), w.reg, w.Store, false, func(f storage.File) { see(f, nil) }),
		audit.TakeStrays(t.Context(), w.reg, w.Store, now, false, see),
	)
	if want := []string{"stays <nil>"}; err != nil || !slices.Equal(seen, want) {
		t.Errorf("seen %q, %v, want %q", seen, err, want)
	}
	for _, path := range []string{"taken", "deleted", "removed"} {
		if err := os.Remove(w.storedFile(path)); err != nil {
			t.Fatal(err)
		}
	}
	seen = nil
	err = errors.Join(
		audit.Verify(t.Context(), w.reg, w.Store, see),
		audit.ForgetMissing(t.Context(), w.reg, w.Store, false, func(f storage.File) { see(f, nil) }),
	)
	if want := []string{"stays <nil>"}; err != nil || !slices.Equal(seen, want) {
		t.Errorf("without their content: seen %q, %v, want %q", seen, err, want)
	}
}

// A file that is taken while Verify, or who forgets what is missing, gets to it is
// neither wrong nor missing.
func TestTakenMeanwhile(t *testing.T) {
	for name, run := range map[string]func(w *world, files audit.Files, see func(storage.File, error)) error{
		"verify": func(w *world, files audit.Files, see func(storage.File, error)) error {
			return audit.Verify(w.t.Context(), w.reg, files, see)
		},
		"forget": func(w *world, files audit.Files, see func(storage.File, error)) error {
			return audit.ForgetMissing(w.t.Context(), w.reg, files, false, func(f storage.File) { see(f, nil) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store("first", oldContent)
			w.store(path, oldContent)
			taken := false
			take := func() {
				if !taken {
					taken = true
					w.take(path)
					w.take("first")
					w.clear(audit.Report{audit.Taken: 2})
				}
			}
			files := &hooked{Files: w.Store, before: take}
			if err := run(w, files, func(f storage.File, err error) { t.Errorf("%s: %v", f.Path, err) }); err != nil {
				t.Fatal(err)
			}
			w.wantTaken(path)
			w.wantTaken("first")
		})
	}
}

// hooked calls before before it looks at a file.
type hooked struct {
	audit.Files
	before func()
}

func (h *hooked) Size(ctx context.Context, ref storage.Ref) (int64, error) {
	h.before()
	return h.Files.Size(ctx, ref)
}

func (h *hooked) Open(ctx context.Context, ref storage.Ref) (io.ReadCloser, error) {
	h.before()
	return h.Files.Open(ctx, ref)
}

// A registry whose files were all taken, or deleted, is no disk that is not mounted.
func TestRecoverWhereAllWasTaken(t *testing.T) {
	for _, gone := range []bool{false, true} {
		w := newWorld(t)
		for i := range 24 {
			path := fmt.Sprint("f", i)
			w.store(path, oldContent)
			if i%2 == 0 {
				w.take(path)
			} else {
				w.delete(path)
			}
		}
		if gone {
			if err := os.RemoveAll(w.storedFile("")); err != nil {
				t.Fatal(err)
			}
		}
		w.recover(audit.Report{audit.Taken: 12, audit.Deleted: 12})
		w.recover(audit.Report{})
		w.wantTaken("f0")
	}

	// Beside files that stay, and are gone, it is.
	w := newWorld(t)
	for i := range 20 {
		path := fmt.Sprint("f", i)
		w.store(path, oldContent)
		if i >= 10 {
			w.take(path)
		}
	}
	w.clear(audit.Report{audit.Taken: 10})
	if err := os.RemoveAll(w.storedFile("")); err != nil {
		t.Fatal(err)
	}
	var lost *audit.FilesGoneError
	_, err := audit.Recover(t.Context(), w.reg, w.Store, w.options())
	if !errors.As(err, &lost) || lost.Recorded != 10 {
		t.Errorf("Recover: %v, want that none of 10 files was found", err)
	}
}

// On a disk that does not tell case apart, the place of a file that was taken is free
// once its content is gone, and what comes there stays.
func TestTakenAlike(t *testing.T) {
	w := newWorld(t)
	w.store("Docs/A", oldContent)
	w.folding()
	w.take("Docs/A")
	w.clear(audit.Report{audit.Taken: 1})
	w.store("docs/a", newContent)
	w.recover(audit.Report{})
	w.delete("Docs/A")
	got, err := audit.Clear(t.Context(), w.reg, &unremovable{w.Store}, w.options())
	if want := (audit.Report{audit.Deleted: 1}); err != nil || !maps.Equal(got, want) {
		t.Errorf("report %v, %v, want %v", got, err, want)
	}
	w.wantFile("Docs/A", "", "")
	w.wantFile("docs/a", newContent, "")
	w.recover(audit.Report{})
}

// unremovable are files of which none can be removed.
type unremovable struct{ audit.Files }

func (*unremovable) Remove(_ context.Context, f storage.Stored) error {
	return fmt.Errorf("%s was to be removed", f.Path)
}

// A copy has what was taken on record, without content, and a server on it answers as
// this one does. What was deleted it does not have.
func TestBackupOfWhatLeaves(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(w *world) // the snapshot
		during func(w *world)
		want   string // "taken", "", or the content
	}{
		{"taken", func(w *world) { w.take(path) }, nil, "taken"},
		{"taken and removed", func(w *world) { w.take(path); w.clear(audit.Report{audit.Taken: 1}) }, nil, "taken"},
		{"deleted", func(w *world) { w.delete(path) }, nil, ""},
		{"taken meanwhile", nil, func(w *world) { w.take(path); w.clear(audit.Report{audit.Taken: 1}) }, "taken"},
		{"deleted meanwhile", nil, func(w *world) { w.delete(path); w.clear(audit.Report{audit.Deleted: 1}) }, ""},
		{"deleted meanwhile, and still there on record", nil, func(w *world) {
			w.delete(path)
			if err := w.Remove(w.t.Context(), w.get(path).Verified.Stored()); err != nil {
				w.t.Fatal(err)
			}
		}, ""},
		{"another version taken meanwhile", nil, func(w *world) {
			w.store(path, newContent)
			w.take(path)
			w.clear(audit.Report{audit.Taken: 1})
		}, "taken"},
		{"taken, and another version since", func(w *world) { w.take(path) }, func(w *world) { w.store(path, newContent) }, newContent},
		{"found missing, and taken meanwhile", func(w *world) {
			w.apply(&storage.MarkFile{ID: alice, Path: path, Incoming: w.get(path).Verified.Incoming, Missing: true})
		}, func(w *world) {
			w.apply(&storage.MarkFile{ID: alice, Path: path, Incoming: w.get(path).Verified.Incoming})
			w.take(path)
			w.clear(audit.Report{audit.Taken: 1})
		}, "taken"},
	} {
		for _, waits := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", tc.name, waits), func(t *testing.T) {
				w, to := newWorld(t), newWorld(t)
				w.store("a", oldContent)
				w.store(path, oldContent)
				if tc.before != nil {
					tc.before(w)
				}
				if waits {
					w.put(w.receive("waits"), path, "waits")
				}
				to.reg = w.snapshot()
				server := &between{Files: w.Store}
				server.onOpen = func(string) {
					server.onOpen = nil
					if tc.during != nil {
						tc.during(w)
					}
				}
				err := audit.Backup(t.Context(), w.reg, server, to.reg, to.Store, func(int64) {}, func(f storage.File, err error) {
					t.Errorf("%s is wrong: %v", f.Path, err)
				})
				if err != nil {
					t.Fatal(err)
				}
				for range 2 { // as it is, and as a server finds it
					if tc.want == "taken" {
						to.wantTaken(path)
						if f := to.get(path); f.Unverified != nil {
							t.Errorf("%+v waits", f.Unverified)
						}
					} else {
						to.wantFile(path, tc.want, "")
					}
					to.wantFile("a", oldContent, "")
					to.wantIncoming(0)
					to.recover(audit.Report{})
				}
			})
		}
	}
}
