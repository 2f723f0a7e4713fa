package files

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"sealift/storage"
)

func uploadedAs(key string) storage.Uploaded {
	return storage.Uploaded{Place: placeOf("docs/a"), Key: key}
}

// A Flush that failed has spoilt the content: no Flush, Reopen or Commit believes it again.
func TestFailedFlushIsFinal(t *testing.T) {
	for name, fail := range map[string]func(d *disk, key string){
		"sync":                          func(d *disk, key string) { d.failAfter(key, SyncFile) },
		"sync of the folder":            func(d *disk, _ string) { d.fail(".incoming", SyncFolder) },
		"sync that was not taken":       func(d *disk, key string) { d.fail(key, SyncFile) },
		"sync, and it can't be removed": func(d *disk, key string) { d.fail(key, SyncFile, Remove) },
	} {
		for _, writing := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				s, d, dir := faulty(t, Options{})
				in, err := s.Create(t.Context(), placeOf("docs/a"), storage.Announce(int64(len(newer))))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := in.Write(t.Context(), []byte(newer)); err != nil {
					t.Fatal(err)
				}
				if !writing {
					if err := in.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				up := uploadedAs(in.Key())
				fail(d, up.Key)
				if err := s.Flush(t.Context(), up, 0); !errors.Is(err, storage.ErrNotDurable) {
					t.Errorf("Flush: %v, want ErrNotDurable", err)
				}
				if writing {
					_ = in.Close(t.Context())
				}
				if err := s.Flush(t.Context(), up, 0); err == nil {
					t.Error("a Flush after it succeeded")
				}
				if _, err := s.Reopen(t.Context(), up, storage.Announce(9), 1); err == nil {
					t.Error("a Reopen after it succeeded")
				}
				d.repair()
				if err := s.Flush(t.Context(), up, 0); err == nil {
					t.Error("a Flush after it succeeded, on a disk that does not fail any more")
				}
				if _, err := s.Reopen(t.Context(), up, storage.Announce(9), 1); err == nil {
					t.Error("a Reopen after it succeeded, on a disk that does not fail any more")
				}
				if err := s.Commit(t.Context(), waiting(up.Key, "docs/a", newer)); err == nil {
					t.Error("a Commit after it succeeded")
				}
				wantFile(t, dir, "docs/a", older)
			})
		}
	}
}

// A step of Reopen that fails leaves the content as it is, and nothing open.
func TestFailedReopen(t *testing.T) {
	s, d, _ := faulty(t, Options{MaxOpen: 1})
	up := uploadedAs(receive(t, s, newer))
	d.fail(up.Key, Write)
	if _, err := s.Reopen(t.Context(), up, storage.Announce(9), 1); !errors.Is(err, errDisk) {
		t.Errorf("Reopen: %v, want the disk's error", err)
	}
	d.repair()
	if size, err := s.Size(t.Context(), up); size != int64(len(newer)) || err != nil {
		t.Errorf("%d bytes, %v", size, err)
	}
	commit(t, s, waiting(receive(t, s, "the slot is free"), "docs/b", "the slot is free"))
	in, err := s.Reopen(t.Context(), up, storage.Announce(9), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A Flush makes the file's entry durable, too.
func TestStepsOfAFlush(t *testing.T) {
	s, d, _ := faulty(t, Options{})
	up := uploadedAs(receive(t, s, newer))
	_ = d.taken()
	if err := s.Flush(t.Context(), up, 0); err != nil {
		t.Fatal(err)
	}
	folder := "files/.incoming/" + up.Key[:2]
	want := []string{"sync file " + folder + "/" + up.Key, "sync folder " + folder, "sync folder files/.incoming"}
	if got := d.taken(); !slices.Equal(got, want) {
		t.Errorf("steps %q, want %q", got, want)
	}
}

// What was put in the place of an incoming file is neither followed nor waited for.
func TestReopenOfWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Fsync: true})
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"a link":   func(path string) error { return os.Symlink(outside, path) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"a pipe":   func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			up := uploadedAs(receive(t, s, newer))
			path := filepath.Join(dir, "files", ".incoming", inFolder(up.Key))
			if f := s.takeKept(up.Key); f != nil {
				_ = f.release()
			}
			if err := errors.Join(os.Remove(path), plant(path)); err != nil {
				t.Skip(err)
			}
			if _, err := s.Reopen(t.Context(), up, storage.Announce(9), 0); !errors.Is(err, storage.ErrNotStored) {
				t.Errorf("Reopen: %v, want ErrNotStored", err)
			}
			if err := s.Flush(t.Context(), up, 0); !errors.Is(err, storage.ErrNotStored) {
				t.Errorf("Flush: %v, want ErrNotStored", err)
			}
			if _, err := s.OpenFrom(t.Context(), up, 0); !errors.Is(err, storage.ErrNotStored) {
				t.Errorf("OpenFrom: %v, want ErrNotStored", err)
			}
			if b, err := os.ReadFile(outside); string(b) != "outside" || err != nil {
				t.Errorf("outside is %q, %v", b, err)
			}
		})
	}
}

// What was reserved for an upload that was cut is free again when it is closed.
func TestCutUploadTakesNoReservedRoom(t *testing.T) {
	s := open(t, t.TempDir(), Options{Fsync: true})
	in, err := s.Create(t.Context(), placeOf("docs/a"), storage.Announce(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(t.Context(), make([]byte, 8<<20)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.root.Name(), ".incoming", inFolder(in.Key()))
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	if blocks() < 9<<20 {
		t.Skip("the file system reserves nothing ahead")
	}
	if err := in.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := blocks(); got > 9<<20 {
		t.Errorf("%d bytes are taken of the disk by 8 MiB", got)
	}
}
