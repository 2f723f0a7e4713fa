package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/storage"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// rows are all files on record, each as path, state and content's size.
func (d *depot) rows() (all []string) {
	d.t.Helper()
	r, err := OpenReadOnly(d.t.Context(), Stores{Dir: d.dir})
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Close()
	if err := r.Files(d.t.Context(), func(f File) error {
		all = append(all, fmt.Sprintf("%s/%s %t", f.ID.String()[:2], f.Path, f.Verified))
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
	return all
}

func (d *depot) deletes(o DeleteOptions, want ...string) {
	d.t.Helper()
	var told []string
	o.Removed = func(int64, int64) {}
	o.Each = func(f File, err error) {
		if err != nil {
			told = append(told, fmt.Sprintf("%s: %v", f.Path, err))
		} else {
			told = append(told, f.Path)
		}
	}
	if err := DeleteFiles(d.t.Context(), Stores{Dir: d.dir}, o); err != nil {
		d.t.Fatalf("DeleteFiles: %v", err)
	}
	if !slices.Equal(told, want) {
		d.t.Errorf("DeleteFiles told of %q, want %q", told, want)
	}
}

// What is meant is deleted with its content, and the rest stays.
func TestDeleteFiles(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "one")
	d.store(anna, "docs/b", "two")
	d.store(otto, "a", "three")
	d.upload(anna, "a", "four", false)
	d.upload(anna, "waits", "five", false)
	k := d.taker(t.TempDir())
	d.store(otto, "taken", "six")
	k.Pattern = "taken"
	k.takes("taken")
	all := d.rows()

	d.deletes(DeleteOptions{Pattern: "**", DryRun: true}, "a", "a", "docs/b")
	d.deletes(DeleteOptions{Pattern: "none"})
	if got := d.rows(); !slices.Equal(got, all) {
		t.Errorf("%q, want %q", got, all)
	}
	d.deletes(DeleteOptions{Pattern: "*", Unverified: true, Clients: []Who{{Name: "anna"}}}, "a", "waits")
	if want, got := slices.DeleteFunc(all, func(s string) bool { return strings.HasSuffix(s, " false") }), d.rows(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	d.deletes(DeleteOptions{Pattern: "**", Clients: []Who{{ID: anna.String()}}}, "a", "docs/b")
	if want, got := []string{"07/a true", "07/taken true"}, d.rows(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, gone := range []string{d.stored(anna, "a"), d.stored(anna, "docs/b")} {
		if _, err := os.Lstat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", gone, err)
		}
	}
	if b, err := os.ReadFile(d.stored(otto, "a")); string(b) != "three" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func (d *depot) deleteClient(who Who, withFiles bool) (Deleted, error) {
	return DeleteClient(d.t.Context(), Stores{Dir: d.dir}, who, DeleteClientOptions{WithFiles: withFiles, Removed: func(int64, int64) {}})
}

func (d *depot) clients() (names []string) {
	d.t.Helper()
	r, err := OpenReadOnly(d.t.Context(), Stores{Dir: d.dir})
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Close()
	if err := r.Clients(d.t.Context(), func(c Client) error {
		name := c.Name
		if c.Disabled {
			name += " disabled"
		}
		names = append(names, name)
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
	return names
}

// A client with files is left as it is, unless they may go. Files that were taken are no
// files of its.
func TestDeleteClient(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "one")
	d.upload(anna, "waits", "two", false)
	d.store(otto, "taken", "three")
	if _, err := d.deleteClient(Who{Name: "anna"}, false); err == nil || err.Error() != `"anna" has 2 files on record, and was not deleted` || Hint(err) == "" {
		t.Errorf("%v", err)
	}
	if got := d.clients(); !slices.Equal(got, []string{"anna", "otto"}) || len(d.rows()) != 3 {
		t.Errorf("%q, %q", got, d.rows())
	}
	k := d.taker(t.TempDir())
	k.Clients = []Who{{Name: "otto"}}
	k.takes("taken")
	if got, err := d.deleteClient(Who{ID: otto.String()}, false); err != nil || got.Name != "otto" || got.Files != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := d.deleteClient(Who{Name: "anna"}, true); err != nil || got.Files != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if got := d.clients(); len(got) > 0 || len(d.rows()) > 0 {
		t.Errorf("%q, %q", got, d.rows())
	}
	if _, err := os.Lstat(d.stored(anna, "a")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := d.deleteClient(Who{Name: "anna"}, true); !errors.Is(err, ErrNoClient) {
		t.Error(err)
	}
}

// While another process has the directory, a command waits until that has removed the files,
// and gives up when nothing happens. What it has marked stays so.
func TestDeleteWaitsForTheServer(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "one")
	s := open(t, options(d.dir))
	patience := departPatience
	departPatience = 0
	defer func() { departPatience = patience }()
	_, err := d.deleteClient(Who{Name: "anna"}, true)
	if err == nil || err.Error() != "the server has not removed 1 file, which it is told to remove" || !strings.Contains(Hint(err), "running this again is safe") {
		t.Errorf("%v (%s)", err, Hint(err))
	}
	if got := d.clients(); !slices.Equal(got, []string{"anna disabled", "otto"}) {
		t.Errorf("%q", got)
	}
	departPatience = patience
	stop := run(t, s)
	if _, err := d.deleteClient(Who{Name: "anna"}, true); err != nil {
		t.Error(err)
	}
	stop()
}

// Names are added, and taken back, and what is disabled is enabled.
func TestSteer(t *testing.T) {
	d := newDepot(t)
	if err := errors.Join(Add(t.Context(), Stores{Dir: d.dir}, "new"), Add(t.Context(), Stores{Dir: d.dir}, "new")); err != nil {
		t.Error(err)
	}
	if err := Add(t.Context(), Stores{Dir: d.dir}, "anna"); err == nil || !strings.Contains(err.Error(), "has registered") {
		t.Error(err)
	}
	if err := Add(t.Context(), Stores{Dir: d.dir}, "a\nb"); err == nil {
		t.Error("a name that no client can have is added")
	}
	if got, err := d.deleteClient(Who{Name: "new"}, false); err != nil || !got.OnlyAdded {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := d.deleteClient(Who{Name: "new"}, false); !errors.Is(err, ErrNoClient) {
		t.Error(err)
	}
	for _, who := range []Who{{Name: "anna"}, {ID: strings.ToUpper(anna.String())}} {
		if c, err := Disable(t.Context(), Stores{Dir: d.dir}, who); err != nil || c.ID != anna {
			t.Errorf("%+v, %v", c, err)
		}
		if got := d.clients(); got[0] != "anna disabled" {
			t.Errorf("%q", got)
		}
		if _, err := Enable(t.Context(), Stores{Dir: d.dir}, who); err != nil {
			t.Error(err)
		}
		if got := d.clients(); got[0] != "anna" {
			t.Errorf("%q", got)
		}
	}
	for _, who := range []Who{{Name: "Anna"}, {}, {ID: "ff"}, {ID: strings.Repeat("0", 32)}} {
		if _, err := Disable(t.Context(), Stores{Dir: d.dir}, who); err == nil {
			t.Errorf("%+v is a client", who)
		}
	}
}

// A client with a record that cannot be understood is not deleted, and is told of: that
// file may be one that nobody has taken.
func TestDeleteClientWithABadRow(t *testing.T) {
	for _, with := range []bool{false, true} {
		d := newDepot(t)
		d.store(anna, "a", "one")
		d.store(anna, "b", "two")
		if !with {
			d.deletes(DeleteOptions{Pattern: "b"}, "b")
		}
		db, err := sql.Open("sqlite", filepath.Join(d.dir, DatabaseName))
		if err == nil {
			_, err = db.Exec("UPDATE files SET Size = -1 WHERE PathName LIKE '%/a'")
			err = errors.Join(err, db.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err = DeleteClient(ctx, Stores{Dir: d.dir}, Who{Name: "anna"}, DeleteClientOptions{WithFiles: with, Removed: func(int64, int64) {}})
		cancel()
		if !errors.Is(err, storage.ErrBadRows) || !strings.Contains(Hint(err), "sealiftd files") {
			t.Errorf("with files %t: %v with hint %q", with, err, Hint(err))
		}
		if _, err := os.Lstat(d.stored(anna, "a")); err != nil {
			t.Errorf("with files %t: %v", with, err)
		}
	}
}

// After the last client is deleted a server starts beside a file that somebody else has put
// into that client's folder, which nobody touches; but not where its database is gone.
func TestStartAfterTheLastClient(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "one")
	for _, name := range []string{"anna", "otto"} {
		if _, err := DeleteClient(t.Context(), Stores{Dir: d.dir}, Who{Name: name}, DeleteClientOptions{WithFiles: true, Removed: func(int64, int64) {}}); err != nil {
			t.Fatal(err)
		}
	}
	stray := "files/" + anna.String() + "/stray"
	write(t, d.dir, stray, "x")
	for range 2 {
		s, err := Open(t.Context(), options(d.dir))
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(d.dir, stray)); string(b) != "x" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	remove(t, d.dir, DatabaseName)
	write(t, d.dir, DatabaseName, "")
	if s, err := Open(t.Context(), options(d.dir)); !errors.Is(err, ErrNoRecords) {
		t.Errorf("%v, %v, want ErrNoRecords", s, err)
	}
}

// A server that is started while a command without one removes many files has the directory
// before that is over, and removes the rest.
func TestStartWhileFilesAreRemoved(t *testing.T) {
	d := newDepot(t)
	for i := range 5 {
		d.store(anna, fmt.Sprint(i), "content")
	}
	turn, wait := clearTurn, clearPause
	defer func() { clearTurn, clearPause = turn, wait }()
	clearTurn = -1
	var s *Server
	clearPause = func(context.Context) error {
		gone := 0
		for i := range 5 {
			if _, err := os.Lstat(d.stored(anna, fmt.Sprint(i))); errors.Is(err, os.ErrNotExist) {
				gone++
			}
		}
		if gone != 1 || s != nil {
			t.Errorf("%d files are gone", gone)
		}
		s = open(t, options(d.dir))
		return nil
	}
	d.deletes(DeleteOptions{Pattern: "*"}, "0", "1", "2", "3", "4")
	if s == nil {
		t.Error("there was no moment for a server")
	}
	if rows := d.rows(); len(rows) > 0 {
		t.Errorf("%q", rows)
	}
}

// A start does not wait until all content that is to be removed is: the rest goes while the
// server serves.
func TestStartBeforeFilesAreRemoved(t *testing.T) {
	d := newDepot(t)
	for i := range 5 {
		d.store(anna, fmt.Sprint(i), "content")
		d.open(func(reg *sqlite.Registry, _ *files.Store) {
			d.apply(reg, &storage.DeleteFile{ID: anna, Path: fmt.Sprint(i), Incoming: d.key(reg, fmt.Sprint(i)), Verified: true})
		})
	}
	turn := recoverTurn
	defer func() { recoverTurn = turn }()
	recoverTurn = -1
	s := open(t, options(d.dir))
	if rows := d.rows(); len(rows) != 4 {
		t.Errorf("after the start there is %q on record, want four files", rows)
	}
	stop := run(t, s)
	for len(d.rows()) > 0 {
		if err := pause(t.Context(), departEvery); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	for i := range 5 {
		if _, err := os.Lstat(d.stored(anna, fmt.Sprint(i))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("file %d: %v", i, err)
		}
	}
}

// key returns the key of a verified file of anna's.
func (d *depot) key(reg storage.Registry, path string) string {
	d.t.Helper()
	get, err := getFile(d.t.Context(), reg, &File{ID: anna, Path: path})
	if err != nil {
		d.t.Fatal(err)
	}
	return get.Verified.Incoming
}
