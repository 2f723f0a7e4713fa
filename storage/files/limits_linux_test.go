package files

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sealift/storage"
)

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// However many uploads are under way, no more than MaxOpen descriptors stay
// open, and none when they have ended.
func TestDescriptorBudget(t *testing.T) {
	const maxOpen = 8
	s := open(t, t.TempDir(), Options{MaxOpen: maxOpen})
	before := openDescriptors(t)
	var incoming []storage.Incoming
	var scratch []storage.Scratch
	for range 50 {
		in, err := s.Create(t.Context(), placeOf("new"), storage.Announce(1<<20))
		if err != nil {
			t.Fatal(err)
		}
		sc, err := s.Scratch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		incoming, scratch = append(incoming, in), append(scratch, sc)
	}
	for range 3 {
		for i := range incoming {
			_, err1 := incoming[i].Write(t.Context(), []byte("content"))
			_, err2 := scratch[i].WriteAt([]byte("early"), 10)
			_, err3 := scratch[i].ReadAt(make([]byte, 5), 10)
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
			if n := openDescriptors(t) - before; n > maxOpen {
				t.Fatalf("%d descriptors, want at most %d", n, maxOpen)
			}
		}
	}
	if n := openDescriptors(t) - before; n != maxOpen {
		t.Errorf("%d descriptors, want %d: what there is should be used", n, maxOpen)
	}
	for i := range incoming {
		if err := errors.Join(incoming[i].Close(t.Context()), scratch[i].Close()); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), waiting(incoming[i].Key(), "dir/sub/a", "contentcontentcontent")); err != nil {
			t.Fatal(err)
		}
	}
	if n := openDescriptors(t) - before; n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
}

// Whatever step of a Commit fails, it leaves no descriptor open, and never has more than
// Store says.
func TestDescriptorsOfACommit(t *testing.T) {
	const most = 4
	for _, o := range []Options{{}, {MaxOpen: -1}, {DirMode: 0o770, FileMode: 0o660}} {
		for step, more := 0, true; more; step++ {
			s, d, _ := faulty(t, o)
			f := waiting(receive(t, s, newer), "docs/sub/a", newer)
			before := openDescriptors(t)
			fails := func() {
				taken := 0
				more = false
				closes := false // that is the step; the descriptor goes all the same
				d.after = func(now Step) bool { return closes && now.Op == Close }
				d.before(func(now Step) error {
					n := openDescriptors(t) - before
					if now.Op == SyncFolder {
						n++ // which the step itself takes
					}
					if n > most {
						t.Errorf("%+v: %d descriptors at %v, want %d at most", o, n, now, most)
					}
					if taken++; taken-1 != step {
						return nil
					}
					more = true
					if closes = now.Op == Close; closes {
						return nil
					}
					return errDisk
				})
			}
			fails()
			_ = s.Commit(t.Context(), f)
			again := more
			clear(s.durable) // as after a start
			fails()
			_ = s.Commit(t.Context(), f) // again, whatever became of it
			more = more || again
			d.repair()
			if n := openDescriptors(t) - before; n > 0 {
				t.Errorf("%+v, step %d: %d descriptors are left", o, step, n)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// What stands where an incoming file should be, and is none, is not opened: the start of
// a server would wait for ever for a writer of the pipe.
func TestIncomingFileIsNone(t *testing.T) {
	for what, plant := range map[string]func(path string) error{
		"pipe":   func(path string) error { return unix.Mkfifo(path, 0o600) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":   func(path string) error { return os.Symlink("/dev/null", path) },
	} {
		dir := t.TempDir()
		s := open(t, dir, Options{Fsync: true})
		up := storage.Uploaded{Place: placeOf("a"), Key: receive(t, s, newer)}
		path := filepath.Join(dir, "files", ".incoming", inFolder(up.Key))
		if err := errors.Join(os.Remove(path), plant(path)); err != nil {
			t.Fatal(err)
		}
		if what == "pipe" {
			writer, err := os.OpenFile(path, os.O_RDWR, 0) // so that opening it does not wait
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
		}
		if _, err := s.Size(t.Context(), up); !errors.Is(err, storage.ErrNotStored) {
			t.Errorf("Size of a %s: %v, want ErrNotStored", what, err)
		}
		if f, err := s.Open(t.Context(), up); !errors.Is(err, storage.ErrNotStored) {
			t.Errorf("Open of a %s: %v, %v, want ErrNotStored", what, f, err)
		}
	}
}

// A limit on the size of files fails Create or Write, and leaves nothing
// behind. The limit is the process's, so that the test runs in one of its own.
func TestFileSizeLimit(t *testing.T) {
	const inside = "SEALIFT_FILE_SIZE_LIMIT"
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFileSizeLimit$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	const limit = 1 << 20
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := open(t, dir, Options{Fsync: true})
	chunk := bytes.Repeat([]byte("x"), 100_000)
	for _, size := range []storage.Announced{{}, storage.Announce(2 * limit)} {
		in, err := s.Create(t.Context(), placeOf("new"), size)
		if in != nil {
			for err == nil {
				_, err = in.Write(t.Context(), chunk)
			}
			if err := in.Close(t.Context()); err != nil {
				t.Errorf("Close: %v", err)
			}
			if err := s.Discard(t.Context(), storage.Uploaded{Key: in.Key()}); err != nil {
				t.Errorf("Discard: %v", err)
			}
		}
		if !errors.Is(err, syscall.EFBIG) {
			t.Errorf("size %v: %v, want EFBIG", size, err)
		}
		if left := leftIncoming(t, dir); len(left) != 0 {
			t.Errorf("size %v: left %v", size, left)
		}
	}
	if err := s.Commit(t.Context(), waiting(receive(t, s, "small enough"), "a", "small enough")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// What a client announces takes no room: only what it has sent does, and at most
// as much again. What is reserved is not content either, so that a crash leaves
// the length that was written.
func TestAnnouncedSizeTakesNoRoom(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	const announced = 4 << 30
	in, err := s.Create(t.Context(), placeOf("new"), storage.Announce(announced))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close(t.Context())
	written := int64(0)
	for _, n := range []int{20_000, 100_000, 200_000, 300_000, 1 << 20} {
		if _, err := in.Write(t.Context(), make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		written += int64(n)
		info, err := os.Stat(filepath.Join(dir, "files", ".incoming", inFolder(in.Key())))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() != written {
			t.Errorf("%d bytes long, want %d", info.Size(), written)
		}
		room := info.Sys().(*syscall.Stat_t).Blocks * 512
		if room > 2*written+1<<16 {
			t.Errorf("%d bytes of disk for %d written", room, written)
		}
	}
}

// No more is reserved than was announced, and a file that turns out longer is
// none the worse.
func TestReserveEndsAtTheAnnouncedSize(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	for _, announced := range []int64{600_000, 1_000_000} {
		in, err := s.Create(t.Context(), placeOf("new"), storage.Announce(announced))
		if err != nil {
			t.Fatal(err)
		}
		for range 7 {
			if _, err := in.Write(t.Context(), make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
		}
		if err := in.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, "files", ".incoming", inFolder(in.Key())))
		if err != nil {
			t.Fatal(err)
		}
		room := info.Sys().(*syscall.Stat_t).Blocks * 512
		if info.Size() != 700_000 || room > max(announced, 700_000)+1<<16 {
			t.Errorf("announced %d: %d bytes, %d of disk", announced, info.Size(), room)
		}
	}
}

// On ext4, the folders of incoming files are spread over the disk: see SpreadFolders.
func TestIncomingFoldersAreSpread(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, Options{})
	f, err := os.Open(filepath.Join(dir, "files", ".incoming"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		t.Fatal(err)
	}
	const topDir = 0x20000
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if fs.Type == unix.EXT4_SUPER_MAGIC && (err != nil || flags&topDir == 0) {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

// What is mounted in a folder is told from it, also where both are one file system.
func TestMountIsSeen(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	if found, err := s.lookAt("/proc"); !found.mount || !found.mode.IsDir() || err != nil {
		t.Errorf("/proc: %+v, %v, want that something is mounted there", found, err)
	}
	if found, err := s.lookAt(incomingFolder); found.mount || err != nil {
		t.Errorf("a folder of the store: %+v, %v", found, err)
	}
}

// A complete file keeps its descriptor until it is committed or discarded, or
// until others need it; then it is committed all the same.
func TestContentIsSyncedThroughTheDescriptorThatWroteIt(t *testing.T) {
	s := open(t, t.TempDir(), Options{Fsync: true, MaxOpen: 2})
	before := openDescriptors(t)
	keys := []string{receive(t, s, "0"), receive(t, s, "1"), receive(t, s, "2"), receive(t, s, "3")}
	if n := openDescriptors(t) - before; n != 2 {
		t.Errorf("%d descriptors, want 2", n)
	}
	for i, want := range []bool{false, false, true, true} {
		if got := s.kept.files[keys[i]] != nil; got != want {
			t.Errorf("file %d is open: %v, want %v", i, got, want)
		}
	}
	if err := s.Discard(t.Context(), storage.Uploaded{Key: keys[3]}); err != nil {
		t.Fatal(err)
	}
	for i, key := range keys[:3] {
		if err := s.Commit(t.Context(), waiting(key, "a", string(rune('0'+i)))); err != nil {
			t.Error(err)
		}
	}
	if n := openDescriptors(t) - before; n != 0 || len(s.slots) != 0 {
		t.Errorf("%d descriptors and %d slots are left", n, len(s.slots))
	}
}
