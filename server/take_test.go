package server

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sealift/storage"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// Verified files come to their places, with the mode and the very blocks that they had, and
// their rows say so. What is not meant, or not verified, stays.
func TestTake(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "one")
	d.store(anna, "docs/b.csv", "two")
	d.store(anna, ".taking/x", "three")
	d.store(otto, "a", "four")
	d.store(otto, otto.String()+"/a", "five")
	d.upload(otto, "waits", "six", false)
	before, err := os.Stat(d.stored(anna, "docs/b.csv"))
	if err != nil {
		t.Fatal(err)
	}
	k := d.taker(t.TempDir())
	k.DryRun = true
	k.takes(".taking/x", otto.String()+"/a", "a", "a", "docs/b.csv")
	k.wants(map[string]string{})
	k.DryRun = false

	k.Pattern, k.Clients = "**/*.csv", []Who{{Name: "anna"}}
	k.takes("docs/b.csv")
	k.Clients = []Who{{ID: otto.String()}}
	k.takes()
	k.Pattern, k.Clients = "**", nil
	k.takes(".taking/x", otto.String()+"/a", "a", "a")
	k.takes()
	k.wants(map[string]string{
		anna.String() + "/a": "one", anna.String() + "/docs/b.csv": "two", anna.String() + "/.taking/x": "three",
		otto.String() + "/a": "four", otto.String() + "/" + otto.String() + "/a": "five",
	})
	after, err := os.Stat(k.at(anna, "docs/b.csv"))
	if err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
		t.Errorf("%v, %v: not the file that it was", after, err)
	}
	if _, err := os.Stat(d.stored(anna, "docs/b.csv")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no server runs, and the store has a file that was taken: %v", err)
	}
	if v := d.row(anna, "docs/b.csv"); v == nil || v.Taken.IsZero() || !v.Missing {
		t.Errorf("on record is %+v", v)
	}
	k.Clients = []Who{{Name: "Anna"}}
	if err := k.run(); !errors.Is(err, ErrNoClient) || Hint(err) == "" {
		t.Errorf("of nobody: %v", err)
	}
}

// Where there can be no link, the file is copied, with its mode and its time.
func TestTakeByCopy(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", strings.Repeat("content ", 100_000))
	if err := os.Chmod(d.stored(anna, "a"), 0o640); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(d.stored(anna, "a"), old, old); err != nil {
		t.Fatal(err)
	}
	k := d.taker(t.TempDir())
	k.noLinks = true
	k.takes("a")
	info, err := os.Stat(k.at(anna, "a"))
	if err != nil || info.Mode().Perm() != 0o640 || !info.ModTime().Equal(old) || info.Size() != 800_000 {
		t.Errorf("%v, %v", info, err)
	}
}

// A Take that is killed at any step, and run again, into the same folder or another one
// first, hands out each version of a file once. Somebody carries files away meanwhile, and
// newer versions come.
func TestTakeKilled(t *testing.T) {
	for s := range steps {
		for _, n := range []int{1, 2, 3} {
			for _, elsewhere := range []bool{false, true} {
				for _, newer := range []bool{false, true} {
					t.Run(fmt.Sprint(s, n, elsewhere, newer), func(t *testing.T) {
						d := newDepot(t)
						for i := range 3 {
							d.store(anna, fmt.Sprint("folder/", i), fmt.Sprint("content ", i))
						}
						k, other := d.taker(t.TempDir()), d.taker(t.TempDir())
						other.noLinks = n == 2
						if !k.killed(s, n) && (s == stepFetched || s == stepPublished || n == 1) {
							t.Fatal("it was not killed")
						}
						came := make(map[string]int)
						k.carry(came)
						if elsewhere {
							if err := other.run(); err != nil {
								t.Fatal(err)
							}
						}
						if newer {
							for i := range 3 {
								d.store(anna, fmt.Sprint("folder/", i), fmt.Sprint("newer ", i))
							}
						}
						for range 3 {
							if err := k.run(); err != nil {
								t.Fatal(err)
							}
							k.carry(came)
							other.carry(came)
						}
						if len(k.told) > 0 {
							t.Errorf("there is more: %q", k.told)
						}
						for i := range 3 {
							old := came[fmt.Sprint("content ", i)]
							if old > 1 || old == 0 && (!newer || elsewhere) {
								t.Errorf("file %d came %d times", i, old)
							}
							if now := came[fmt.Sprint("newer ", i)]; newer != (now == 1) {
								t.Errorf("the newer version of file %d came %d times", i, now)
							}
						}
					})
				}
			}
		}
	}
}

// carry takes everything out of the outlet, and counts how often each content came.
func (k *taker) carry(came map[string]int) {
	k.d.t.Helper()
	for p, content := range filesIn(k.d.t, k.To) {
		if strings.HasPrefix(p, takingFolder+"/") {
			continue
		}
		came[content]++
		if err := os.Remove(filepath.Join(k.To, filepath.FromSlash(p))); err != nil {
			k.d.t.Fatal(err)
		}
	}
}

// A version that is verified while the one before is taken is not lost: one of the two is
// handed out, and then the other.
func TestTakeBesideAnUpload(t *testing.T) {
	for s := range steps {
		d := newDepot(t)
		d.store(anna, "a", "old")
		k := d.taker(t.TempDir())
		k.after = func(did step) {
			if did == s {
				d.store(anna, "a", "new")
			}
		}
		if s < stepApplied {
			k.takes()
			k.after = nil
			k.wants(map[string]string{})
		} else {
			k.takes("a")
			k.after = nil
			k.wants(map[string]string{anna.String() + "/a": "old"})
			k.takes("a: " + k.at(anna, "a") + " is in the way")
			if err := os.Remove(k.at(anna, "a")); err != nil {
				t.Fatal(err)
			}
		}
		k.takes("a")
		k.wants(map[string]string{anna.String() + "/a": "new"})
	}
}

// What a killed Take was about to record is finished by the next one, wherever that takes files
// to. If the folder is gone, a person has to say so.
func TestTakeFinishesAnother(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "content")
	k, other := d.taker(filepath.Join(t.TempDir(), "out")), d.taker(t.TempDir())
	if err := os.Mkdir(k.To, 0o700); err != nil {
		t.Fatal(err)
	}
	if !k.killed(stepApplied, 1) {
		t.Fatal("it was not killed")
	}
	other.takes("a")
	k.wants(map[string]string{anna.String() + "/a": "content"})
	other.wants(map[string]string{})

	d.store(anna, "b", "more")
	if !k.killed(stepComplete, 1) {
		t.Fatal("it was not killed")
	}
	moved := k.To + " moved"
	if err := os.Rename(k.To, moved); err != nil {
		t.Fatal(err)
	}
	err := other.run()
	if err == nil || !strings.Contains(err.Error(), "has to be finished first") || !strings.Contains(Hint(err), underwayName) {
		t.Errorf("%v (%s)", err, Hint(err))
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Rename(moved, k.To), os.Symlink(k.To, link)); err != nil {
		t.Fatal(err)
	}
	d.taker(link).takes("b")
}

// A killed Take whose file is not on record any more when the next one comes: it may have been
// recorded as taken, so it is handed out.
func TestTakeFinishesWhatIsForgotten(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "old")
	k := d.taker(t.TempDir())
	if !k.killed(stepRecorded, 1) {
		t.Fatal("it was not killed")
	}
	d.store(anna, "a", "new") // takes the row
	k.takes("a", "a: "+k.at(anna, "a")+" is in the way")
	k.wants(map[string]string{anna.String() + "/a": "old"})
}

// What cannot be handed out is told of, and stays where it is, and the others are not kept
// back.
func TestTakeLeaves(t *testing.T) {
	d := newDepot(t)
	for _, path := range []string{"damaged", "good", "grown", "in the way", "in/the/way", "link/x", "marked", "missing"} {
		d.store(anna, path, "content")
	}
	put := func(path, content string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	put(d.stored(anna, "damaged"), "c0ntent")
	put(d.stored(anna, "grown"), "content, and more")
	d.open(func(reg *sqlite.Registry, _ *files.Store) {
		get, err := getFile(t.Context(), reg, &File{ID: anna, Path: "marked"})
		if err != nil {
			t.Fatal(err)
		}
		d.apply(reg, &storage.MarkFile{ID: anna, Path: "marked", Incoming: get.Verified.Incoming, Missing: true})
	})
	if err := os.Remove(d.stored(anna, "missing")); err != nil {
		t.Fatal(err)
	}
	k := d.taker(t.TempDir())
	outside := t.TempDir()
	put(k.at(anna, "in the way"), "an earlier version")
	put(k.at(anna, "in"), "a file where a folder should be")
	if err := os.Symlink(outside, k.at(anna, "link")); err != nil {
		t.Skip(err)
	}
	want := []string{
		"damaged: damaged: its checksum is", "good", "grown: damaged: it has not the 7 bytes",
		"in the way: " + k.at(anna, "in the way") + " is in the way", "in/the/way: " + k.at(anna, "in") + " is in the way",
		"link/x: " + k.at(anna, "link") + " is in the way", "marked: marked as missing", "missing: the file is missing",
	}
	k.DryRun = true
	if err := k.run(); err != nil || len(k.told) != 8 {
		t.Errorf("%v, %q", err, k.told)
	}
	k.DryRun = false
	for range 2 {
		k.takes(want...)
		want = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "good" })
	}
	if got := filesIn(t, outside); len(got) > 0 {
		t.Errorf("behind the link is %q", got)
	}
	if b, err := os.ReadFile(d.stored(anna, "in the way")); string(b) != "content" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	for _, path := range []string{"in the way", "in", "link"} {
		if err := os.Remove(k.at(anna, path)); err != nil {
			t.Fatal(err)
		}
	}
	k.takes("damaged: damaged", "grown: damaged", "in the way", "in/the/way", "link/x", "marked: marked", "missing: the file is")
	if _, err := os.Stat(filepath.Join(k.To, takingFolder, "lock")); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Join(k.To, takingFolder)); len(entries) != 1 || err != nil {
		t.Errorf("%s has %v, %v", takingFolder, entries, err)
	}
}

// Folders that are no place for files are refused, and nothing is changed.
func TestTakeRefusesFolders(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "content")
	file, link := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(filepath.Join(d.dir, "files", anna.String()), link)); err != nil {
		t.Skip(err)
	}
	planted := t.TempDir()
	if err := os.Symlink(t.TempDir(), filepath.Join(planted, takingFolder)); err != nil {
		t.Fatal(err)
	}
	open := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(open, takingFolder), 0o700), os.Chmod(filepath.Join(open, takingFolder), 0o777)); err != nil {
		t.Fatal(err)
	}
	another := newDepot(t)
	for _, tt := range []struct{ to, want string }{
		{"", "--to is not set"},
		{filepath.Join(t.TempDir(), "none"), "does not exist"},
		{file, "want a folder, this is a file"},
		{d.dir, "is the server's directory"},
		{filepath.Join(d.dir, "files"), "is where a server keeps its files"},
		{filepath.Join(d.dir, "files", anna.String()), "would take it for its own"},
		{link, "would take it for its own"},
		{filepath.Join(another.dir, "files"), "is where a server keeps its files"},
		{planted, "want a folder, this is a link"},
		{open, "others may write to it"},
	} {
		k := d.taker(tt.to)
		if err := k.run(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("--to %s: %v, want %q", tt.to, err, tt.want)
		}
	}
	if v := d.row(anna, "a"); v == nil || !v.Taken.IsZero() {
		t.Errorf("on record is %+v", v)
	}
	inside := filepath.Join(d.dir, "out")
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	d.taker(inside).takes("a")
}

// Several at once, into one folder and into others, hand out each file once.
func TestTakeAtOnce(t *testing.T) {
	d := newDepot(t)
	const n = 100
	d.open(func(*sqlite.Registry, *files.Store) {})
	for i := range n {
		d.store(anna, fmt.Sprint(i), fmt.Sprint("content ", i))
	}
	outs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			k := d.taker(outs[i%len(outs)])
			if err := k.run(); err != nil && !strings.Contains(err.Error(), "another command takes files there") {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen := make(map[string]int)
	for _, out := range outs {
		d.taker(out).takes()
		for p := range filesIn(t, out) {
			seen[p]++
		}
	}
	for i := range n {
		if c := seen[fmt.Sprint(anna, "/", i)]; c != 1 {
			t.Errorf("file %d was handed out %d times", i, c)
		}
	}
}

// Where the outlet cannot be written to, Take says so, and the file stays in the store.
func TestTakeEnds(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "content")
	k := d.taker(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	k.after = func(step) { cancel() }
	d.store(anna, "b", "content")
	err := Take(ctx, Stores{Dir: d.dir}, k.TakeOptions)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	k.wants(map[string]string{})
	k.after = nil
	k.takes("a", "b")
}

// A version that takes the place of one that was listed, before that is read, is taken.
func TestTakeOfTheVersionThatIsThere(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "content")
	d.store(anna, "b", "old")
	k := d.taker(t.TempDir())
	var once sync.Once
	k.after = func(step) { once.Do(func() { d.store(anna, "b", "newer") }) }
	k.takes("a", "b")
	k.wants(map[string]string{anna.String() + "/a": "content", anna.String() + "/b": "newer"})
}

// A database of an earlier schema is left as it is, whoever may have it open.
func TestSteerLeavesOlderSchema(t *testing.T) {
	d := newDepot(t)
	d.store(anna, "a", "content")
	db, err := sql.Open("sqlite", filepath.Join(d.dir, DatabaseName))
	if err == nil {
		_, err = db.ExecContext(t.Context(), "PRAGMA user_version = 3")
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(d.dir, DatabaseName))
	if err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"add":     func() error { return Add(t.Context(), Stores{Dir: d.dir}, "otto2") },
		"disable": func() error { _, err := Disable(t.Context(), Stores{Dir: d.dir}, Who{Name: "anna"}); return err },
		"delete": func() error {
			_, err := DeleteClient(t.Context(), Stores{Dir: d.dir}, Who{Name: "anna"}, DeleteClientOptions{WithFiles: true, Removed: func(int64, int64) {}})
			return err
		},
		"pin":            func() error { _, err := Unpin(t.Context(), Stores{Dir: d.dir}, Who{Name: "anna"}); return err },
		"take":           func() error { return d.taker(t.TempDir()).run() },
		"files":          func() error { return DeleteFiles(t.Context(), Stores{Dir: d.dir}, DeleteOptions{Pattern: "**"}) },
		"forget-missing": func() error { return ForgetMissing(t.Context(), Stores{Dir: d.dir}, false, func(File) {}) },
	} {
		if err := do(); !errors.Is(err, sqlite.ErrOlder) || !strings.Contains(Hint(err), "Nothing was changed") {
			t.Errorf("%s: %v (%s)", name, err, Hint(err))
		}
	}
	running, err := files.Open(d.dir, files.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// take-strays needs the server stopped, and then may bring the database up to date.
	if err := TakeStrays(t.Context(), Stores{Dir: d.dir}, false, func(File, error) {}); !errors.Is(err, files.ErrLocked) {
		t.Errorf("take-strays beside a server: %v", err)
	}
	if err := running.Close(); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(d.dir, DatabaseName))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the database has changed, %v", err)
	}
}

// Two servers' files may be taken to one folder. What a Take that was killed has left there
// is for the server whose it is: another one cannot know what is recorded.
func TestTakeKilledBesideAnotherServer(t *testing.T) {
	for s := range steps {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			d, e := newDepot(t), newDepot(t)
			d.store(anna, "a", "one")
			k := d.taker(t.TempDir())
			if !k.killed(s, 1) {
				t.Fatal("it was not killed")
			}
			came := make(map[string]int)
			other := e.taker(k.To)
			if err := other.run(); err != nil {
				t.Fatal(err)
			}
			k.carry(came)
			moved := filepath.Join(t.TempDir(), "moved")
			if err := os.Rename(d.dir, moved); err != nil {
				t.Fatal(err)
			}
			d.dir = moved
			for range 2 {
				if err := k.run(); err != nil {
					t.Fatal(err)
				}
				k.carry(came)
			}
			if len(came) != 1 || came["one"] != 1 {
				t.Errorf("came %v", came)
			}
			if left := filesIn(t, k.To); len(left) > 0 {
				t.Errorf("left is %q", left)
			}
		})
	}
}

// Each folder on the way to a file is made durable, also one that is there: a command that
// was killed may have made it a moment ago.
func TestPublishSyncsTheWay(t *testing.T) {
	d := newDepot(t)
	out, err := openOutlet(d.dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer out.close()
	for _, made := range []bool{false, true} {
		to := map[bool]string{false: "new/sub/f", true: "old/sub/f"}[made]
		if made {
			if err := out.root.MkdirAll("old/sub", 0o700); err != nil {
				t.Fatal(err)
			}
		}
		write(t, out.path, takingFolder+"/f", "x")
		var synced []string
		if err := out.publish("f", to, func(folder string) { synced = append(synced, folder) }); err != nil {
			t.Fatal(err)
		}
		top := strings.TrimSuffix(to, "/sub/f")
		if want := []string{".", top, top + "/sub"}; !slices.Equal(synced, want) {
			t.Errorf("%s: to be synced are %q, want %q", to, synced, want)
		}
	}
}

// Where the folder is moved, replaced or removed before its files are recorded as taken, they
// stay in the store.
func TestTakeToAFolderThatGoes(t *testing.T) {
	for name, goes := range map[string]func(to string) error{
		"moved":    func(to string) error { return os.Rename(to, to+".moved") },
		"replaced": func(to string) error { return errors.Join(os.Rename(to, to+".moved"), os.Mkdir(to, 0o700)) },
		"removed":  os.RemoveAll,
	} {
		d := newDepot(t)
		d.store(anna, "a", "content")
		to := filepath.Join(t.TempDir(), "to")
		if err := os.Mkdir(to, 0o700); err != nil {
			t.Fatal(err)
		}
		k := d.taker(to)
		k.after = func(did step) {
			if did == stepFetched {
				if err := goes(to); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := k.run(); err == nil || len(k.told) > 0 {
			t.Errorf("%s: %v, told of %q", name, err, k.told)
		}
		if v := d.row(anna, "a"); v == nil || !v.Stays() {
			t.Errorf("%s: on record is %+v", name, v)
		}
		k.after = nil
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		k.takes("a")
		k.wants(map[string]string{anna.String() + "/a": "content"})
	}
}
