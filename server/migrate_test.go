package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/internal/testservices"
	"sealift/storage"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// mixedDepot is a depot with files and clients of several kinds.
func mixedDepot(t *testing.T) *depot {
	d := newDepot(t)
	d.store(anna, "a", "one")
	d.store(anna, "docs/b.csv", strings.Repeat("two", 100_000))
	d.store(otto, "a", "four")
	d.store(anna, "taken", "it was handed out")
	d.store(anna, "missing", "it is not there")
	if err := errors.Join(os.Remove(d.stored(anna, "taken")), os.Remove(d.stored(anna, "missing"))); err != nil {
		t.Fatal(err)
	}
	d.upload(anna, "a", "newer", false)
	d.upload(otto, "waits", "six", false)
	d.open(func(reg *sqlite.Registry, _ *files.Store) {
		if err := reg.SetTargets(t.Context(), []string{"command"}); err != nil {
			t.Fatal(err)
		}
		d.apply(reg, &storage.PinClient{ID: otto, TLSKey: make([]byte, 32)}, &storage.DisableClient{ID: otto, Disabled: true})
		size, files := int64(1<<40), int64(storage.Unlimited)
		d.apply(reg,
			&storage.SetQuota{ID: otto, Bytes: &size, Files: &files}, &storage.SetKeepFor{ID: anna, KeepFor: storage.Unlimited},
			&storage.SetKeepFor{ID: otto, KeepFor: 1000 * time.Hour}, &storage.SetExpires{ID: anna, Expires: time.Now().Add(time.Hour)},
			&storage.Seen{Outcome: storage.Outcome{At: time.Now()}, ID: anna})
		for _, path := range []string{"taken", "missing"} {
			f := d.verified(reg, anna, path)
			if path == "taken" {
				d.apply(reg, &storage.TakeFile{ID: anna, Path: path, Incoming: f.Incoming, Taken: time.Now()})
			}
			d.apply(reg, &storage.MarkFile{ID: anna, Path: path, Incoming: f.Incoming, Missing: true})
		}
		for i := range 20 {
			d.apply(reg, &storage.AddName{Name: fmt.Sprint("added ", i)})
		}
	})
	d.store(otto, "told", "an event waits for it")
	return d
}

// verified returns what is on record of a verified file.
func (d *depot) verified(reg storage.Registry, id codec.ClientID, path string) File {
	d.t.Helper()
	get, err := getFile(d.t.Context(), reg, &File{ID: id, Path: path})
	if err != nil || get.Verified == nil {
		d.t.Fatalf("%+v, %v", get, err)
	}
	return *get.Verified
}

// lists are what the commands list of a server, each line as JSON.
func lists(t *testing.T, at Stores) (all []string) {
	t.Helper()
	r, err := OpenReadOnly(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	add := func(row any) error {
		b, err := json.Marshal(row)
		all = append(all, string(b))
		return err
	}
	err = errors.Join(
		r.ClientRows(t.Context(), func(c ClientRow) error { return add(c) }),
		r.FileRows(t.Context(), func(f FileRow) error { return add(f) }),
		r.EventRows(t.Context(), func(e EventRow) error { return add(e) }),
	)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// migrate moves the depot, and tells what is wrong.
func (d *depot) migrate(at Stores, verify bool) (Migrated, []string, error) {
	d.t.Helper()
	var wrong []string
	none := func(int64, int64) {}
	done, err := Migrate(d.t.Context(), d.dir, at, MigrateOptions{
		Verify: verify, Moved: none, Verified: none,
		Wrong: func(f File, err error) { wrong = append(wrong, f.Path+": "+err.Error()) },
		Left:  func(p Partial, err error) { wrong = append(wrong, p.Path+": "+err.Error()) },
	})
	return done, wrong, err
}

// A server's directory is moved whole, and what is left of it is not taken for the server's any
// more.
func TestMigrate(t *testing.T) {
	for _, to := range []struct {
		name             string
		registry, bucket bool
	}{{"both", true, true}, {"records", true, false}, {"files", false, true}} {
		t.Run(to.name, func(t *testing.T) {
			d := mixedDepot(t)
			before := lists(t, Stores{Dir: d.dir})
			at := Stores{Dir: d.dir}
			if to.registry {
				at.Registry = testservices.SharedPostgres(t)
			}
			if to.bucket {
				at.Files = bucket(t)
			}
			done, wrong, err := d.migrate(at, true)
			if err != nil || len(wrong) > 0 {
				t.Fatalf("%v, hint %q, %q", err, Hint(err), wrong)
			}
			if done.Clients != 2 || done.Names != 20 || done.Verified != 6 || done.Waiting != 2 || done.Events == 0 {
				t.Errorf("%+v", done)
			}
			if to.registry && to.bucket {
				at.Dir = "/nowhere"
			}
			after := lists(t, at)
			if got, want := strings.Join(after, "\n"), strings.Join(before, "\n"); got != want {
				t.Errorf("after:\n%s\nbefore:\n%s", got, want)
			}
			if again, _, err := d.migrate(Stores{Registry: at.Registry, Files: at.Files}, false); err != nil || !again.Before {
				t.Errorf("once more: %+v, %v", again, err)
			}

			// The old data are refused, with what to do; the new ones are served.
			if s, err := Open(t.Context(), options(d.dir)); err == nil || !strings.Contains(err.Error(), "was moved to") || !strings.Contains(Hint(err), "Go on with --") {
				t.Errorf("a server on what is left: %v, hint %q", err, Hint(err))
				if err == nil {
					_ = s.Close()
				}
			}
			if _, err := Disable(t.Context(), Stores{Dir: d.dir}, Who{Name: "anna"}); err == nil || Hint(err) == "" {
				t.Errorf("a command on what is left: %v", err)
			}
			o := options(d.dir)
			o.Storage = Storage{Registry: at.Registry, Files: at.Files, UnverifiedTTL: time.Hour}
			s := open(t, o)
			stop := run(t, s)
			stop()
			d.checkVerify(at, 4, "missing")
		})
	}
}

// checkVerify verifies all files but some that are missing.
func (d *depot) checkVerify(at Stores, want int, missing ...string) {
	d.t.Helper()
	r, err := OpenReadOnly(d.t.Context(), at)
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Close()
	n := 0
	if err := r.Verify(d.t.Context(), func(f File, err error) {
		if slices.Contains(missing, f.Path) {
			return
		}
		if err != nil {
			d.t.Errorf("%s: %v", f.Path, err)
		}
		n++
	}); err != nil || n != want {
		d.t.Errorf("%d files were verified, want %d: %v", n, want, err)
	}
}

// A move needs a server that does not run, and stores that are empty.
func TestMigrateRefused(t *testing.T) {
	d := mixedDepot(t)
	at := Stores{Registry: testservices.SharedPostgres(t), Files: bucket(t)}
	s := open(t, options(d.dir))
	if _, _, err := d.migrate(at, false); !errors.Is(err, files.ErrLocked) || Hint(err) == "" {
		t.Errorf("beside a server: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.migrate(Stores{}, false); err == nil {
		t.Error("moved to nowhere")
	}
	nowhere := filepath.Join(d.dir, "nowhere")
	if _, err := Migrate(t.Context(), nowhere, at, MigrateOptions{}); err == nil || err.Error() != "--from "+nowhere+" does not exist" || strings.Contains(Hint(err), "mkdir") {
		t.Errorf("from nowhere: %v, %s", err, Hint(err))
	}
	if _, _, err := d.migrate(at, false); err != nil {
		t.Fatal(err)
	}
	other := mixedDepot(t)
	if _, _, err := other.migrate(at, false); err == nil || !strings.Contains(err.Error(), "has records") {
		t.Errorf("into a registry that is not empty: %v", err)
	}
	if _, _, err := other.migrate(Stores{Files: at.Files}, false); err == nil || !strings.Contains(err.Error(), "has files") {
		t.Errorf("into a bucket that is not empty: %v", err)
	}
	if _, err := os.Stat(filepath.Join(other.dir, movedName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that was not moved is marked: %v", err)
	}
	if s, err := Open(t.Context(), options(other.dir)); err != nil {
		t.Errorf("and cannot be served: %v", err)
	} else if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A command that takes files while they are moved hands none out any more: in the new stores
// they are not recorded as taken.
func TestTakeWhileItIsMoved(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "content")
	at := Stores{Registry: testservices.SharedPostgres(t), Files: bucket(t)}
	k := d.taker(t.TempDir())
	k.after = func(did step) {
		if did != stepFetched {
			return
		}
		if _, _, err := d.migrate(at, false); err != nil {
			t.Error(err)
		}
	}
	if err := k.run(); err == nil || !strings.Contains(err.Error(), "was moved to") {
		t.Errorf("%v", err)
	}
	for path := range filesIn(t, k.To) {
		if !strings.HasPrefix(path, takingFolder+"/") {
			t.Errorf("%s was handed out", path)
		}
	}
	k.after, d.shared = nil, &at
	k.takes("a")
	k.wants(map[string]string{anna.String() + "/a": "content"})
}

// A move of files alone that is killed while the new database takes the place of the old one is
// finished by the next.
func TestMigrateKilledWhileItSwaps(t *testing.T) {
	path := func(d *depot, name string) string { return filepath.Join(d.dir, name) }
	for name, undo := range map[string]func(d *depot) error{
		"before": func(d *depot) error {
			return errors.Join(os.Rename(path(d, DatabaseName), path(d, newDatabase)), os.Rename(path(d, oldDatabase), path(d, DatabaseName)))
		},
		"between": func(d *depot) error { return os.Rename(path(d, DatabaseName), path(d, newDatabase)) },
		"after":   func(*depot) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			d := mixedDepot(t)
			before := lists(t, Stores{Dir: d.dir})
			at := Stores{Files: bucket(t)}
			if _, _, err := d.migrate(at, false); err != nil {
				t.Fatal(err)
			}
			m, err := readMoved(d.dir)
			if err != nil {
				t.Fatal(err)
			}
			m.State = moveSwaps
			if err := errors.Join(undo(d), m.write(d.dir)); err != nil {
				t.Fatal(err)
			}
			o := options(d.dir)
			o.Storage = Storage{Files: at.Files}
			if s, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "has not come to its end") {
				t.Errorf("a server starts: %v", err)
				if err == nil {
					_ = s.Close()
				}
			}
			if _, _, err := d.migrate(at, false); err != nil {
				t.Fatal(err)
			}
			at.Dir = d.dir
			if got, want := strings.Join(lists(t, at), "\n"), strings.Join(before, "\n"); got != want {
				t.Errorf("after:\n%s\nbefore:\n%s", got, want)
			}
			open(t, o)
		})
	}
}
