package audit_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/files"
	"sealift/storage/memory"
	"sealift/storage/sqlite"
)

var (
	alice = codec.ClientID{0xa1, 0xce}
	now   = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

const (
	path       = "docs/a.txt"
	oldContent = "the file that was there before"
	newContent = "the file that was being sent when it happened"
)

// world is a registry and a store, and the steps of a server by hand.
type world struct {
	t   testing.TB
	dir string
	reg storage.Registry
	*files.Store
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	s, err := files.Open(dir, files.Options{Fsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	w := &world{t: t, dir: dir, reg: memory.New(), Store: s}
	// Pinned, so that what recovery and maintenance do for themselves shows as such.
	w.apply(&storage.AddClient{ID: alice, Name: "alice", TLSKey: bytes.Repeat([]byte{7}, 32)})
	return w
}

func (w *world) apply(op storage.Operation) {
	w.t.Helper()
	op.Result().By = storage.Server
	if err := w.reg.Apply(w.t.Context(), []storage.Operation{op}); err != nil {
		w.t.Fatal(err)
	}
	if err := op.Result().Err; err != nil {
		w.t.Fatalf("%T: %v", op, err)
	}
}

func (w *world) receive(content string) (key string) {
	w.t.Helper()
	in, err := w.Create(w.t.Context(), storage.Place{ID: alice, Path: "new"}, storage.Announce(int64(len(content))))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := in.Write(w.t.Context(), []byte(content)); err != nil {
		w.t.Fatal(err)
	}
	if err := in.Close(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return in.Key()
}

func (w *world) put(key, path, content string) (replaced *storage.File) {
	w.t.Helper()
	op := &storage.PutFile{File: storage.File{
		ID: alice, FileName: path, Path: path, Incoming: key,
		Size: int64(len(content)), Cksum: cksum.Checksum([]byte(content)), Received: now,
	}}
	w.apply(op)
	return op.Replaced
}

// commit puts the unverified file at path into its place.
func (w *world) commit(key, path string) {
	w.t.Helper()
	f := w.get(path).Unverified
	if f == nil || f.Incoming != key {
		w.t.Fatalf("%+v waits, not %q", f, key)
	}
	if err := w.Commit(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(path string) *storage.GetFile {
	w.t.Helper()
	get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: alice, Path: path}
	w.apply(get)
	return get
}

func (w *world) wantMissing(path string, want bool) {
	w.t.Helper()
	if f := w.get(path).Verified; f == nil || f.Missing != want {
		w.t.Errorf("%s: row %+v, want it marked as missing: %t", path, f, want)
	}
}

func (w *world) verify(key, path string) {
	w.t.Helper()
	w.apply(&storage.VerifyFile{ID: alice, Path: path, Incoming: key})
}

func (w *world) store(path, content string) {
	w.t.Helper()
	key := w.receive(content)
	w.put(key, path, content)
	w.commit(key, path)
	w.verify(key, path)
}

func (w *world) incomingFile(key string) string {
	return filepath.Join(w.dir, "files", ".incoming", key[:2], key)
}

func (w *world) storedFile(path string) string {
	return filepath.Join(w.dir, "files", alice.String(), path)
}

func (w *world) options() audit.Options {
	return audit.Options{UnverifiedTTL: time.Hour, Now: now.Add(time.Minute), Log: func(f audit.Finding) {
		w.t.Logf("%s: %q %q %v", f.Event, f.File.Path, f.File.Incoming, f.Err)
	}}
}

func (w *world) recover(want audit.Report) {
	w.t.Helper()
	got, err := audit.Recover(w.t.Context(), w.reg, w.Store, w.options())
	if err != nil {
		w.t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		w.t.Errorf("report %v, want %v", got, want)
	}
}

// wantFile checks the rows at path against the content of the verified and of
// the unverified file ("" for none), and the files themselves.
func (w *world) wantFile(path, verified, unverified string) {
	w.t.Helper()
	get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: alice, Path: path}
	if err := w.reg.Apply(w.t.Context(), []storage.Operation{get}); err != nil {
		w.t.Fatal(err)
	}
	check := func(what string, f *storage.File, ref func(*storage.File) storage.Ref, want string) {
		w.t.Helper()
		if (f != nil) != (want != "") {
			w.t.Errorf("%s row %+v, want one: %t", what, f, want != "")
		}
		if f == nil {
			return
		}
		if f.Size != int64(len(want)) || f.Cksum != cksum.Checksum([]byte(want)) {
			w.t.Errorf("%s row is not about %q: %+v", what, want, f)
		}
		r, err := w.Open(w.t.Context(), ref(f))
		if err != nil {
			w.t.Errorf("%s file: %v", what, err)
			return
		}
		defer r.Close()
		if got, err := io.ReadAll(r); string(got) != want || err != nil {
			w.t.Errorf("%s file: %q, %v, want %q", what, got, err, want)
		}
	}
	check("verified", get.Verified, func(f *storage.File) storage.Ref { return f.Stored() }, verified)
	check("unverified", get.Unverified, func(f *storage.File) storage.Ref { return f.Uploaded() }, unverified)
}

func (w *world) wantIncoming(n int) {
	w.t.Helper()
	got := 0
	if err := w.EachIncoming(w.t.Context(), func(storage.Uploaded) error { got++; return nil }); err != nil {
		w.t.Fatal(err)
	}
	if got != n {
		w.t.Errorf("%d incoming files, want %d", got, n)
	}
}

// Each crash point of an upload, in an empty place and over an old file.
func TestRecoverFromACrash(t *testing.T) {
	points := []struct {
		name   string
		crash  func(w *world) // what was done before it
		report audit.Report
		// Afterwards, "" for what was in the place before.
		verified, unverified string
	}{
		{
			name:   "before PutFile",
			crash:  func(w *world) { w.receive(newContent) },
			report: audit.Report{audit.Orphan: 1},
		},
		{
			name:       "after PutFile, content whole",
			crash:      func(w *world) { w.put(w.receive(newContent), path, newContent) },
			report:     audit.Report{},
			unverified: newContent,
		},
		{
			name: "after PutFile, power cut: content short",
			crash: func(w *world) {
				key := w.receive(newContent)
				w.put(key, path, newContent)
				if err := os.Truncate(w.incomingFile(key), 10); err != nil {
					w.t.Fatal(err)
				}
			},
			report: audit.Report{audit.Spoilt: 1},
		},
		{
			name: "after PutFile, power cut: content zeros",
			crash: func(w *world) {
				key := w.receive(newContent)
				w.put(key, path, newContent)
				if err := os.WriteFile(w.incomingFile(key), make([]byte, len(newContent)), 0o600); err != nil {
					w.t.Fatal(err)
				}
			},
			report: audit.Report{audit.Spoilt: 1},
		},
		{
			name: "after PutFile, power cut: the file is gone",
			crash: func(w *world) {
				key := w.receive(newContent)
				w.put(key, path, newContent)
				if err := os.Remove(w.incomingFile(key)); err != nil {
					w.t.Fatal(err)
				}
			},
			report: audit.Report{audit.Spoilt: 1},
		},
		{
			name: "after the second PutFile of the path, before Discard of the first",
			crash: func(w *world) {
				first := w.receive("first try")
				w.put(first, path, "first try")
				if replaced := w.put(w.receive(newContent), path, newContent); replaced == nil || replaced.Incoming != first {
					w.t.Fatalf("replaced %+v", replaced)
				}
			},
			report:     audit.Report{audit.Orphan: 1},
			unverified: newContent,
		},
		{
			name: "after rename, before VerifyFile",
			crash: func(w *world) {
				key := w.receive(newContent)
				w.put(key, path, newContent)
				w.commit(key, path)
			},
			report:   audit.Report{audit.Finished: 1},
			verified: newContent,
		},
		{
			name:     "after VerifyFile",
			crash:    func(w *world) { w.store(path, newContent) },
			report:   audit.Report{},
			verified: newContent,
		},
		{
			name: "after DropFile, before Discard",
			crash: func(w *world) {
				key := w.receive(newContent)
				w.put(key, path, newContent)
				w.apply(&storage.DropFile{ID: alice, Path: path, Incoming: key})
			},
			report: audit.Report{audit.Orphan: 1},
		},
	}
	for _, p := range points {
		for _, before := range []string{"", oldContent} {
			t.Run(fmt.Sprintf("%s/%t", p.name, before != ""), func(t *testing.T) {
				w := newWorld(t)
				w.store("other", "stays as it is")
				if before != "" {
					w.store(path, before)
				}
				p.crash(w)
				w.recover(p.report)
				verified := before
				if p.verified != "" {
					verified = p.verified
				}
				w.wantFile(path, verified, p.unverified)
				w.wantFile("other", "stays as it is", "")
				n := 0
				if p.unverified != "" {
					n = 1
				}
				w.wantIncoming(n)
				w.recover(audit.Report{}) // nothing is left to do

				if p.unverified != "" { // its 1029 still comes
					get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: alice, Path: path}
					w.apply(get)
					w.commit(get.Unverified.Incoming, path)
					w.verify(get.Unverified.Incoming, path)
					w.wantFile(path, p.unverified, "")
				}
			})
		}
	}
}

func TestRecoverTellsOfDamage(t *testing.T) {
	w := newWorld(t)
	w.store(path, oldContent)
	if err := os.WriteFile(w.storedFile(path), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.recover(audit.Report{audit.Damaged: 1})
	get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: alice, Path: path}
	if w.apply(get); get.Verified == nil {
		t.Error("the row of a damaged file is gone")
	}
}

func TestRecoverLeavesStraysAlone(t *testing.T) {
	w := newWorld(t)
	w.store(path, oldContent)
	var want []string
	for i := range 600 { // more than one batch
		want = append(want, fmt.Sprintf("docs/stray%d", i))
		if err := os.WriteFile(w.storedFile(want[i]), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.recover(audit.Report{audit.Stray: len(want)})
	for _, path := range want {
		if _, err := os.Stat(w.storedFile(path)); err != nil {
			t.Error(err)
		}
	}
}

func TestRecoverOfManyWaiting(t *testing.T) {
	w := newWorld(t)
	const n = 600
	for i := range n {
		key := w.receive(newContent)
		w.put(key, fmt.Sprint("f", i), newContent)
		if i%2 == 0 {
			w.commit(key, fmt.Sprint("f", i))
		}
	}
	w.recover(audit.Report{audit.Finished: n / 2})
	w.wantIncoming(n / 2)
	w.wantFile("f0", newContent, "")
	w.wantFile("f1", "", newContent)
}

// A symbolic link in the place of a stored file is not followed, and is no
// reason to forget the file either.
func TestRecoverBesideAPlantedSymlink(t *testing.T) {
	w := newWorld(t)
	w.store(path, oldContent)
	target := filepath.Join(w.dir, "outside")
	if err := os.Rename(w.storedFile(path), target); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, w.storedFile(path)); err != nil {
		t.Fatal(err)
	}
	w.recover(audit.Report{audit.Failed: 1})
}

func TestExpire(t *testing.T) {
	w := newWorld(t)
	w.store(path, oldContent)
	w.put(w.receive(newContent), path, newContent)
	moved := w.receive(newContent)
	w.put(moved, "moved", newContent)
	w.commit(moved, "moved") // its VerifyFile failed, and the client did not come back
	o := w.options()
	if got, err := audit.Expire(t.Context(), w.reg, w.Store, o); err != nil || len(got) != 0 {
		t.Errorf("too early: %v, %v", got, err)
	}
	o.Now = now.Add(time.Hour + time.Second)

	// While the server has the path, the file gets its 1029.
	late := o
	late.Exclusive = func(id codec.ClientID, p string, do func()) {
		if p == path {
			get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: alice, Path: path}
			if w.apply(get); get.Unverified != nil {
				w.commit(get.Unverified.Incoming, path)
				w.verify(get.Unverified.Incoming, path)
			}
		}
		do()
	}
	var finished []string
	late.Finished = func(f *storage.File) {
		finished = append(finished, f.Path)
		if w.get(f.Path).Verified == nil {
			t.Errorf("told of %s when it was not recorded yet", f.Path)
		}
	}
	got, err := audit.Expire(t.Context(), w.reg, w.Store, late)
	if want := (audit.Report{audit.Finished: 1}); err != nil || !maps.Equal(got, want) {
		t.Errorf("report %v, %v, want %v", got, err, want)
	}
	if !slices.Equal(finished, []string{"moved"}) {
		t.Errorf("told of %q", finished)
	}
	w.wantFile(path, newContent, "")
	w.wantFile("moved", newContent, "")

	w.put(w.receive("never confirmed"), path, "never confirmed")
	w.put(w.receive("never confirmed"), "alone", "never confirmed")
	marked := map[string]bool{}
	o.Dropped = func(f *storage.File, m bool) {
		marked[f.Path] = m
		if _, err := w.Size(t.Context(), f.Uploaded()); err != nil {
			t.Errorf("told of %s when its content was gone already: %v", f.Path, err)
		}
	}
	got, err = audit.Expire(t.Context(), w.reg, w.Store, o)
	if want := map[string]bool{path: true, "alone": false}; !maps.Equal(marked, want) {
		t.Errorf("told of %v, want %v", marked, want)
	}
	if !w.get(path).Lapsed() {
		t.Error("the verified file has no mark that another version went")
	}
	if want := (audit.Report{audit.Expired: 2}); err != nil || !maps.Equal(got, want) {
		t.Errorf("report %v, %v, want %v", got, err, want)
	}
	w.wantFile(path, newContent, "")
	w.wantIncoming(0)

	w.put(w.receive("never confirmed"), path, "never confirmed")
	o.UnverifiedTTL = 0
	if got, err := audit.Expire(t.Context(), w.reg, w.Store, o); err != nil || len(got) != 0 {
		t.Errorf("without a limit: %v, %v", got, err)
	}
}

// One row that nobody understands costs no other file its recovery, and no
// incoming file that the row may be about is removed.
func TestRecoverBesideBadRows(t *testing.T) {
	w := newWorld(t)
	database := filepath.Join(w.dir, "defensive.db")
	reg, err := sqlite.Open(t.Context(), database, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	w.reg = reg
	// Pinned, so that what recovery and maintenance do for themselves shows as such.
	w.apply(&storage.AddClient{ID: alice, Name: "alice", TLSKey: bytes.Repeat([]byte{7}, 32)})
	bad := w.receive("the row of this one")
	w.put(bad, "bad", "the row of this one")
	moved := w.receive(newContent)
	w.put(moved, path, newContent)
	w.commit(moved, path)
	w.store("gone", oldContent)
	if err := os.Remove(w.storedFile("gone")); err != nil {
		t.Fatal(err)
	}
	if err := reg.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "UPDATE files SET Size = 'large', Incoming = '?' WHERE FileName = 'bad'"); err != nil {
		t.Fatal(err)
	}
	reg, err = sqlite.Open(t.Context(), database, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	w.reg = reg
	w.recover(audit.Report{audit.BadRows: 1, audit.Finished: 1, audit.Missing: 1})
	w.wantFile(path, newContent, "")
	w.wantMissing("gone", true)
	w.wantIncoming(1)
	o := w.options()
	o.Now = now.Add(2 * time.Hour)
	w.put(w.receive("late"), "late", "late")
	if got, err := audit.Expire(t.Context(), w.reg, w.Store, o); err != nil || !maps.Equal(got, audit.Report{audit.Expired: 1}) {
		t.Errorf("Expire: %v, %v", got, err)
	}
	checked := 0
	err = audit.Verify(t.Context(), w.reg, w.Store, func(storage.File, error) { checked++ })
	if !errors.Is(err, storage.ErrBadRows) || checked != 2 {
		t.Errorf("Verify: %d files, %v", checked, err)
	}
}

func TestVerify(t *testing.T) {
	w := newWorld(t)
	big := strings.Repeat("0123456789abcdef", 100_000)
	spoil := map[string]struct {
		spoil func(path string) error
		want  error
	}{
		"empty":   {want: nil},
		"good":    {want: nil},
		"missing": {os.Remove, audit.ErrMissing},
		"short":   {func(p string) error { return os.Truncate(p, int64(len(big))-1) }, audit.ErrSize},
		"long":    {func(p string) error { return os.Truncate(p, int64(len(big))+1) }, audit.ErrSize},
		"flipped": {func(p string) error { return os.WriteFile(p, []byte("!"+big[1:]), 0o600) }, audit.ErrCksum},
		"link":    {func(p string) error { return errors.Join(os.Remove(p), os.Symlink("good", p)) }, files.ErrObstructed},
	}
	for name, s := range spoil {
		content := big
		if name == "empty" {
			content = ""
		}
		w.store(name, content)
		if s.spoil != nil {
			if err := s.spoil(w.storedFile(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.store("marked", "it is there, and not believed")
	w.apply(&storage.MarkFile{ID: alice, Path: "marked", Incoming: w.get("marked").Verified.Incoming, Missing: true})
	spoil["marked"] = struct {
		spoil func(path string) error
		want  error
	}{nil, audit.ErrMissing}
	w.put(w.receive("waits"), "unverified", "waits")
	got := make(map[string]error)
	err := audit.Verify(t.Context(), w.reg, w.Store, func(f storage.File, err error) {
		if _, twice := got[f.Path]; twice {
			t.Errorf("%q twice", f.Path)
		}
		got[f.Path] = err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range spoil {
		if err, told := got[name]; !told || !errors.Is(err, s.want) {
			t.Errorf("%s: %v (told: %t), want %v", name, err, told, s.want)
		}
	}
	if len(got) != len(spoil) {
		t.Errorf("told of %d files, want %d", len(got), len(spoil))
	}
}

// A file that a running server replaces meanwhile is not called wrong.
func TestVerifyBesideAServer(t *testing.T) {
	w := newWorld(t)
	w.store(path, oldContent)
	replacing := &replaceWhileOpen{world: w}
	var told []error
	err := audit.Verify(t.Context(), w.reg, replacing, func(f storage.File, err error) {
		told = append(told, err)
		if f.Size != int64(len(newContent)) {
			t.Errorf("told of the row that was: %+v", f)
		}
	})
	if err != nil || len(told) != 1 || told[0] != nil {
		t.Errorf("told %v, %v, want one success", told, err)
	}
}

// replaceWhileOpen replaces the file when it is first opened.
type replaceWhileOpen struct {
	*world
	done bool
}

func (r *replaceWhileOpen) Open(ctx context.Context, ref storage.Ref) (io.ReadCloser, error) {
	if !r.done {
		r.done = true
		r.store(ref.(storage.Stored).Path, newContent)
	}
	return r.world.Open(ctx, ref)
}
