package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// removal returns the steps of a Remove without the key that the file had for a moment.
func removal(d *disk) []string {
	var all []string
	for _, s := range d.taken(Mkdir) {
		if at := strings.Index(s, ".incoming/"); at >= 0 {
			s = s[:at] + ".incoming"
		}
		all = append(all, s)
	}
	return all
}

func wantGone(t *testing.T, dir, path string) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(dir, path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v", path, err)
	}
}

// What Remove does to the disk, and in which order: the folder is synced before
// anything else goes, and folders go as long as they are empty.
func TestStepsOfARemove(t *testing.T) {
	s, d, dir := faulty(t, Options{})
	commit(t, s, waiting(receive(t, s, newer), "b", newer))
	d.taken()
	if err := s.Remove(t.Context(), storedAt("docs/a")); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"rename " + aliceFolder + "/docs/a", "sync folder " + aliceFolder + "/docs", "remove files/.incoming",
		"remove " + aliceFolder + "/docs", "remove " + aliceFolder,
	}
	if got := removal(d); !slices.Equal(got, want) {
		t.Errorf("%q,\nwant %q", got, want)
	}
	wantGone(t, dir, aliceFolder+"/docs")
	wantFile(t, dir, "b", newer)
	wantIncoming(t, s)

	// Again: a process that was killed may not have synced the folder, or the one
	// from which that was removed.
	if err := s.Remove(t.Context(), storedAt("docs/a")); err != nil {
		t.Fatal(err)
	}
	want = []string{"sync folder " + aliceFolder, "remove " + aliceFolder + "/docs", "remove " + aliceFolder}
	if got := removal(d); !slices.Equal(got, want) {
		t.Errorf("again: %q,\nwant %q", got, want)
	}

	if err := s.Remove(t.Context(), storedAt("b")); err != nil {
		t.Fatal(err)
	}
	d.taken()
	if err := s.Remove(t.Context(), storedAt("b")); err != nil {
		t.Fatal(err)
	}
	if got, want := removal(d), []string{"sync folder files", "remove " + aliceFolder}; !slices.Equal(got, want) {
		t.Errorf("without the client's folder: %q,\nwant %q", got, want)
	}
}

// Whichever step fails, the error is told, and the next Remove does all that is needed
// for the content to stay gone.
func TestRemoveFails(t *testing.T) {
	for _, op := range []Op{Rename, SyncFolder, Remove} {
		for _, taken := range []bool{false, true} { // whether the step was taken all the same
			s, d, dir := faulty(t, Options{})
			at := ""
			if op == SyncFolder {
				at = "docs"
			}
			if taken {
				d.failAfter(at, op)
			} else {
				d.fail(at, op)
			}
			err := s.Remove(t.Context(), storedAt("docs/a"))
			if !errors.Is(err, errDisk) {
				t.Errorf("%s: %v, want the disk's error", op, err)
			}
			if op == SyncFolder {
				wantFile(t, dir, "docs/a", older) // it is there to be removed again
			}
			d.repair()
			d.taken()
			if err := s.Remove(t.Context(), storedAt("docs/a")); err != nil {
				t.Fatalf("%s: again: %v", op, err)
			}
			wantGone(t, dir, aliceFolder)
			if got := removal(d); !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "sync folder") }) {
				t.Errorf("%s: again, nothing was synced: %q", op, got)
			}
		}
	}
}

// Without fsync nothing is synced.
func TestRemoveWithoutSync(t *testing.T) {
	d, dir := new(disk), t.TempDir()
	s := open(t, dir, Options{Faults: d.faults()})
	commit(t, s, waiting(receive(t, s, older), "docs/a", older))
	d.taken()
	for range 2 {
		if err := s.Remove(t.Context(), storedAt("docs/a")); err != nil {
			t.Fatal(err)
		}
		for _, step := range removal(d) {
			if strings.HasPrefix(step, "sync") {
				t.Errorf("step %q", step)
			}
		}
	}
	wantGone(t, dir, aliceFolder)
}

// A folder that is no folder any more, and a file that is none, stay.
func TestRemoveObstructed(t *testing.T) {
	s, _, dir := faulty(t, Options{})
	at := filepath.Join(dir, filepath.FromSlash(aliceFolder), "docs", "a")
	if err := errors.Join(os.Remove(at), os.Mkdir(at, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), storedAt("docs/a")); !errors.Is(err, ErrObstructed) {
		t.Errorf("a folder in the place: %v, want ErrObstructed", err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Dir(at)), os.WriteFile(filepath.Dir(at), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), storedAt("docs/a")); !errors.Is(err, ErrObstructed) {
		t.Errorf("a file above the place: %v, want ErrObstructed", err)
	}
	wantFile(t, dir, "docs", "")
}
