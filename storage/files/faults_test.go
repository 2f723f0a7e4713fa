package files

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sealift/storage"
)

var errDisk = errors.New("the disk failed")

// disk is a Faults that takes steps down and makes some fail.
type disk struct {
	mu    sync.Mutex
	steps []Step
	fails func(Step) error // before the step is taken
	after func(Step) bool  // after it was taken
}

func (d *disk) faults() *Faults {
	return &Faults{
		Before: func(s Step) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.steps = append(d.steps, s)
			if d.fails != nil {
				return d.fails(s)
			}
			return nil
		},
		After: func(s Step, err error) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.after != nil && d.after(s) {
				return errors.Join(err, errDisk)
			}
			return err
		},
	}
}

// fail makes the steps of these kinds fail, at paths that end in path.
func (d *disk) fail(path string, ops ...Op) {
	d.before(func(s Step) error {
		if slices.Contains(ops, s.Op) && strings.HasSuffix(s.Path, path) {
			return errDisk
		}
		return nil
	})
}

// before has do called before each step.
func (d *disk) before(do func(Step) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = do
}

func (d *disk) failAfter(path string, ops ...Op) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.after = func(s Step) bool { return slices.Contains(ops, s.Op) && strings.HasSuffix(s.Path, path) }
}

func (d *disk) repair() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails, d.after = nil, nil
}

// taken returns the steps since the last call, but for some that are of no
// interest, as "op path".
func (d *disk) taken(but ...Op) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for _, s := range d.steps {
		if !slices.Contains(but, s.Op) {
			all = append(all, fmt.Sprint(s.Op, " ", s.Path))
		}
	}
	d.steps = nil
	return all
}

const (
	aliceFolder = "files/a1ce0000000000000000000000000000"
	older       = "the file that was"
	newer       = "the file that comes"
)

// faulty is a store on a disk that a test can make fail. It has alice's file
// docs/a, older.
func faulty(t *testing.T, o Options) (*Store, *disk, string) {
	t.Helper()
	d, dir := new(disk), t.TempDir()
	o.Fsync, o.Faults = true, d.faults()
	s := open(t, dir, o)
	commit(t, s, waiting(receive(t, s, older), "docs/a", older))
	d.taken()
	return s, d, dir
}

func commit(t testing.TB, s *Store, f *storage.File) {
	t.Helper()
	if err := s.Commit(t.Context(), f); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

func wantCommit(t testing.TB, s *Store, f *storage.File, want error) {
	t.Helper()
	if err := s.Commit(t.Context(), f); !errors.Is(err, want) {
		t.Errorf("Commit: %v, want %v", err, want)
	}
}

func wantFile(t testing.TB, dir, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(aliceFolder), path)); string(got) != want || err != nil {
		t.Errorf("%s holds %q, %v, want %q", path, got, err, want)
	}
}

// What an upload and its Commit do to the disk, and in which order. Between the two
// the file stays open.
func TestStepsOfACommit(t *testing.T) {
	s, d, _ := faulty(t, Options{})
	for _, path := range []string{"docs/b", "new/c"} {
		key := receive(t, s, newer)
		incoming := "files/.incoming/" + inFolder(key)
		if got, want := d.taken(Mkdir), []string{"create " + incoming, "write " + incoming}; !slices.Equal(got[max(0, len(got)-2):], want) {
			t.Errorf("%s: the upload: %q,\nwant %q", path, got, want)
		}
		commit(t, s, waiting(key, path, newer))
		content := []string{"sync file " + incoming, "close " + incoming}
		want := content
		if path == "new/c" {
			want = slices.Concat([]string{"mkdir " + aliceFolder + "/new"}, content, []string{"sync folder " + aliceFolder})
		}
		want = append(want, "rename "+incoming, "sync folder "+aliceFolder+"/"+path[:strings.Index(path, "/")])
		if got := d.taken(); !slices.Equal(got, want) {
			t.Errorf("%s: %q,\nwant %q", path, got, want)
		}
	}
}

// Content whose sync, or whose close, failed is never committed, though the next
// sync succeeds; not even where it cannot be removed at once.
func TestFailedSyncOfContentIsFinal(t *testing.T) {
	for name, fail := range map[string]func(d *disk, key string){
		"sync":                          func(d *disk, key string) { d.failAfter(key, SyncFile) },
		"sync that was not taken":       func(d *disk, key string) { d.fail(key, SyncFile) },
		"close":                         func(d *disk, key string) { d.failAfter(key, Close) },
		"sync, and it can't be removed": func(d *disk, key string) { d.fail(key, SyncFile, Remove) },
	} {
		t.Run(name, func(t *testing.T) {
			s, d, dir := faulty(t, Options{})
			f := waiting(receive(t, s, newer), "docs/a", newer)
			fail(d, f.Incoming)
			wantCommit(t, s, f, storage.ErrNotDurable)
			wantFile(t, dir, "docs/a", older)
			stuck := strings.Contains(name, "removed")
			if left := leftIncoming(t, dir); len(left) != 0 && !stuck {
				t.Errorf("left %v", left)
			}
			d.repair()
			if stuck {
				wantCommit(t, s, f, storage.ErrNotDurable)
			}
			wantCommit(t, s, f, storage.ErrNotStored)
			if left := leftIncoming(t, dir); len(left) != 0 {
				t.Errorf("left %v", left)
			}
			wantFile(t, dir, "docs/a", older)
			commit(t, s, waiting(receive(t, s, newer), "docs/a", newer))
		})
	}
}

// A descriptor that gives way to another upload and cannot be closed without an
// error has spoilt its content.
func TestFailedCloseOfAKeptFileIsFinal(t *testing.T) {
	for _, removable := range []bool{true, false} {
		s, d, dir := faulty(t, Options{MaxOpen: 1})
		f := waiting(receive(t, s, newer), "docs/a", newer)
		if removable {
			d.failAfter(f.Incoming, Close)
		} else {
			d.fail(f.Incoming, Close, Remove)
		}
		other := waiting(receive(t, s, "other"), "docs/b", "other")
		d.repair()
		if removable {
			wantCommit(t, s, f, storage.ErrNotStored)
		} else {
			wantCommit(t, s, f, storage.ErrNotDurable)
		}
		wantFile(t, dir, "docs/a", older)
		commit(t, s, other)
	}
}

// The folder's sync failed: the content is in its place and the caller is told. If
// Commit is called again, the entry is made anew before it is synced.
func TestFailedSyncOfTheFolder(t *testing.T) {
	s, d, dir := faulty(t, Options{})
	f := waiting(receive(t, s, newer), "docs/a", newer)
	d.failAfter("docs", SyncFolder)
	for range 2 {
		d.taken()
		wantCommit(t, s, f, storage.ErrPlaceNotDurable)
		wantFile(t, dir, "docs/a", newer)
	}
	d.repair()
	d.taken()
	commit(t, s, f)
	incoming := "files/.incoming/" + inFolder(f.Incoming)
	want := []string{
		"sync file " + aliceFolder + "/docs/a", "rename " + aliceFolder + "/docs/a",
		"rename " + incoming, "sync folder " + aliceFolder + "/docs",
	}
	if got := d.taken(Mkdir); !slices.Equal(got, want) {
		t.Errorf("%q,\nwant %q", got, want)
	}
	wantFile(t, dir, "docs/a", newer)
}

// What is in the place and cannot be synced is not called durable either.
func TestFailedSyncOfWhatIsInThePlace(t *testing.T) {
	s, d, dir := faulty(t, Options{})
	f := waiting(receive(t, s, newer), "docs/a", newer)
	commit(t, s, f)
	d.failAfter("docs/a", SyncFile)
	wantCommit(t, s, f, storage.ErrPlaceNotDurable)
	wantFile(t, dir, "docs/a", newer)
}

// A folder on the way whose entry cannot be synced is removed, so that the next
// Commit makes another, and syncs that.
func TestFailedSyncAboveTheFolder(t *testing.T) {
	s, d, dir := faulty(t, Options{})
	f := waiting(receive(t, s, newer), "x/y/z/a", newer)
	for _, above := range []string{aliceFolder, aliceFolder + "/x", aliceFolder + "/x/y"} {
		d.failAfter(above, SyncFolder)
		err := s.Commit(t.Context(), f)
		if !errors.Is(err, errDisk) || errors.Is(err, storage.ErrNotDurable) || errors.Is(err, storage.ErrPlaceNotDurable) {
			t.Errorf("%s: %v, want an error after which Commit may be called again", above, err)
		}
		if _, err := os.Stat(filepath.Join(dir, aliceFolder, "x")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: x is there, %v", above, err)
		}
		wantIncoming(t, s, f.Incoming)
	}
	d.repair()
	d.taken()
	commit(t, s, f)
	incoming := "files/.incoming/" + inFolder(f.Incoming)
	want := []string{
		"mkdir " + aliceFolder + "/x", "mkdir " + aliceFolder + "/x/y", "mkdir " + aliceFolder + "/x/y/z",
		"sync file " + incoming, "close " + incoming,
		"sync folder " + aliceFolder, "sync folder " + aliceFolder + "/x", "sync folder " + aliceFolder + "/x/y",
	}
	if got := d.taken(); !slices.Equal(got[:min(len(got), len(want))], want) {
		t.Errorf("%q,\nwant %q", got, want)
	}
}

// A folder that was there, and whose entry cannot be synced, is made anew if it is
// empty. Otherwise nothing in it is called durable until the next start.
func TestFailedSyncAboveAFolderThatWasThere(t *testing.T) {
	for _, empty := range []bool{true, false} {
		s, d, dir := faulty(t, Options{})
		was := filepath.Join(dir, aliceFolder, "was")
		if err := os.Mkdir(was, 0o700); err != nil {
			t.Fatal(err)
		}
		if !empty {
			if err := os.WriteFile(filepath.Join(was, "in it"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f := waiting(receive(t, s, newer), "was/a", newer)
		d.failAfter(aliceFolder, SyncFolder)
		wantCommit(t, s, f, errDisk)
		d.repair()
		if !empty {
			for range 2 {
				wantCommit(t, s, f, errFolderNotDurable)
			}
			wantIncoming(t, s, f.Incoming)
			if err := os.Remove(filepath.Join(was, "in it")); err != nil {
				t.Fatal(err)
			}
		}
		d.taken()
		commit(t, s, f)
		want := []string{"mkdir " + aliceFolder + "/was", "sync folder " + aliceFolder, "rename files/.incoming/" + inFolder(f.Incoming)}
		if got := d.taken(Remove, SyncFile, Close); !slices.Equal(got[:min(len(got), len(want))], want) {
			t.Errorf("empty %v: %q,\nwant %q", empty, got, want)
		}
	}
}

// A folder that went as empty, and that somebody else made again, is made durable
// like one that the store has never seen.
func TestFolderThatAnotherMadeIsSynced(t *testing.T) {
	s, d, dir := faulty(t, Options{})
	at := filepath.Join(dir, filepath.FromSlash(aliceFolder), "docs")
	if err := os.Remove(filepath.Join(at, "a")); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveEmptyFolders(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	f := waiting(receive(t, s, newer), "docs/a", newer)
	d.taken()
	commit(t, s, f)
	want := []string{"sync folder files", "sync folder " + aliceFolder}
	if got := d.taken(Mkdir, SyncFile, Close); !slices.Equal(got[:min(len(got), len(want))], want) {
		t.Errorf("%q,\nwant %q", got, want)
	}
}

// However many folders there are, the store remembers no more than maxDurable.
func TestFoldersRememberedAreBounded(t *testing.T) {
	s, _, _ := faulty(t, Options{})
	for i := range maxDurable + 1 {
		s.setDurable(fmt.Sprint(i))
		if len(s.durable) > maxDurable || !s.isDurable(fmt.Sprint(i)) {
			t.Fatalf("%d folders are remembered, and the last one: %v", len(s.durable), s.isDurable(fmt.Sprint(i)))
		}
	}
}

// A Commit that fails leaves none of the folders that it made, and all others.
func TestFailedCommitLeavesNoFolders(t *testing.T) {
	for name, fail := range map[string]func(d *disk, key string){
		"content": func(d *disk, key string) { d.fail(key, SyncFile) },
		"rename":  func(d *disk, key string) { d.fail(key, Rename) },
		"mkdir":   func(d *disk, _ string) { d.fail("x/y/z", Mkdir) },
		"sync":    func(d *disk, _ string) { d.fail("x/y", SyncFolder) },
		"size":    func(*disk, string) {},
	} {
		s, d, dir := faulty(t, Options{})
		f := waiting(receive(t, s, newer), "docs/x/y/z/a", newer)
		if name == "size" {
			f.Size++
		}
		fail(d, f.Incoming)
		if err := s.Commit(t.Context(), f); err == nil {
			t.Errorf("%s: Commit succeeded", name)
		}
		left, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(aliceFolder), "docs"))
		if err != nil || len(left) != 1 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}

// Whoever removes empty folders meanwhile only makes Commit try again; if that
// does not end, Commit does, and the file still waits.
func TestCommitWhileItsFolderIsRemoved(t *testing.T) {
	for _, times := range []int{1, maxTries - 1, maxTries} {
		s, d, dir := faulty(t, Options{})
		f := waiting(receive(t, s, newer), "new/sub/a", newer)
		n := 0
		d.before(func(step Step) error {
			if step.Op == Rename && n < times {
				n++
				return os.RemoveAll(filepath.Join(dir, filepath.FromSlash(aliceFolder), "new"))
			}
			return nil
		})
		if times < maxTries {
			commit(t, s, f)
			wantFile(t, dir, "new/sub/a", newer)
			continue
		}
		wantCommit(t, s, f, errFolderGoes)
		wantIncoming(t, s, f.Incoming)
		commit(t, s, f)
	}
}

// Commits into folders that others empty and remove all the time.
func TestCommitsBesideRemovals(t *testing.T) {
	s := open(t, t.TempDir(), Options{Fsync: false})
	ctx := t.Context()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := s.RemoveEmptyFolders(ctx); err != nil {
					t.Errorf("RemoveEmptyFolders: %v", err)
				}
			}
		}
	})
	var commits sync.WaitGroup
	for side := range 4 {
		commits.Go(func() {
			for i := range 50 {
				data := fmt.Sprint(side, i)
				f := waiting(receive(t, s, data), fmt.Sprintf("a/b/c%d/%d/f", i%3, side), data)
				if err := s.Commit(ctx, f); err != nil && !errors.Is(err, errFolderGoes) {
					t.Errorf("Commit: %v", err)
				} else if err == nil {
					if got, err := read(s, f.Stored()); got != data {
						t.Errorf("%q, %v, want %q", got, err, data)
					}
				}
			}
		})
	}
	commits.Wait()
	close(stop)
	wg.Wait()
}

// A store whose folders could not be synced is not opened, and what was made for it
// is made anew the next time.
func TestFailedSyncOfTheStore(t *testing.T) {
	for _, path := range []string{".", "files"} {
		dir := t.TempDir()
		d := new(disk)
		d.before(func(step Step) error {
			if step.Op == SyncFolder && step.Path == path {
				return errDisk
			}
			return nil
		})
		if _, err := Open(dir, Options{Fsync: true, Faults: d.faults()}); !errors.Is(err, errDisk) {
			t.Errorf("%s: %v, want that the disk failed", path, err)
		}
		if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
			t.Errorf("%s: left %v, %v", path, left, err)
		}
		d.repair()
		s := open(t, dir, Options{Fsync: true, Faults: d.faults()})
		commit(t, s, waiting(receive(t, s, newer), "a", newer))
	}
}

// A folder that an operator removed is made durable like a new one.
func TestRemovedFolderIsSyncedAgain(t *testing.T) {
	s, d, dir := faulty(t, Options{})
	if err := os.RemoveAll(filepath.Join(dir, filepath.FromSlash(aliceFolder))); err != nil {
		t.Fatal(err)
	}
	f := waiting(receive(t, s, newer), "docs/a", newer)
	d.taken()
	commit(t, s, f)
	want := []string{
		"mkdir " + aliceFolder, "sync folder files",
		"mkdir " + aliceFolder + "/docs", "sync folder " + aliceFolder,
	}
	if got := d.taken(); !slices.Equal(got[:min(len(got), len(want))], want) {
		t.Errorf("%q,\nwant %q", got, want)
	}
}
