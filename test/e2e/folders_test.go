//go:build unix

package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sealift/codec"
)

// Stored files and folders have the modes that were asked for, whatever the umask
// of the server is; those that are there stay as they are.
func TestModes(t *testing.T) {
	dir := t.TempDir()
	mode := func(path string, want fs.FileMode) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
	var d *daemon
	under := func(mask int, start func() *daemon) { // the server has it from us
		was := syscall.Umask(mask)
		defer syscall.Umask(was)
		d = start()
	}
	under(0o077, func() *daemon { return serveIn(t, dir, "--file-mode", "0664", "--dir-mode=775") })
	p := login(t, d, "n")
	p.upload("a/b", []byte("b"))
	home := filepath.Join(dir, "files", p.ID.String())
	mode(filepath.Join(dir, "files"), 0o755)
	mode(filepath.Join(dir, "files", ".incoming"), 0o700)
	mode(filepath.Join(dir, "defensive.db"), 0o600)
	mode(home, 0o775)
	mode(filepath.Join(home, "a"), 0o775)
	mode(filepath.Join(home, "a", "b"), 0o664)
	waiting := p.File("a/waiting", []byte("x"))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)
	found, err := filepath.Glob(filepath.Join(dir, "files", ".incoming", "*", "*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("incoming files %q, %v", found, err)
	}
	mode(found[0], 0o664) // before it is in its place
	d.stop()

	under(0, func() *daemon { return serveIn(t, dir) })
	p.addr = d.addr
	p.dial()
	p.rejoin()
	p.upload("a/c", []byte("c"))
	p.upload("d/e", []byte("e"))
	mode(filepath.Join(home, "a"), 0o775)
	mode(filepath.Join(home, "a", "b"), 0o664)
	mode(filepath.Join(home, "a", "c"), 0o600)
	mode(filepath.Join(home, "d"), 0o700)
	d.stop()

	for flag, values := range map[string][]string{
		"--file-mode": {"0400", "0200", "0", "1600", "07777", "rw-r-----", "8", "-1", "0o600", ""},
		"--dir-mode":  {"0600", "0500", "0", "2770", "drwx", "999"},
	} {
		for _, value := range values {
			r := run(t, dir, sealiftd, "serve", "--dir", dir, flag+"="+value)
			if r.status != 1 || !strings.Contains(r.stderr, flag) {
				t.Errorf("%s=%s: status %d, %s", flag, value, r.status, r.stderr)
			}
		}
	}
	r := runEnv(t, dir, []string{"SEALIFT_FILE_MODE=0444"}, sealiftd, "serve", "--dir", dir)
	r.failed(t, "SEALIFT_FILE_MODE")
}

// A folder that is a link gets an upload into it a 1607 before its content is
// there, and the log names the folder. What the link leads to is left alone.
func TestFolderThatIsALink(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "n")
	p.upload("docs/old", []byte("old"))
	elsewhere := t.TempDir()
	home := filepath.Dir(d.stored(p.ID, "x"))
	for _, link := range []string{"link", "docs/link"} {
		if err := os.Symlink(elsewhere, filepath.Join(home, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"link/a", "docs/link/deep/a", "link"} {
		f := p.File(name, randomBytes(300_000, 1))
		p.sendPackets(cut(f, 64<<10)[:1]) // of five: no more is needed
		p.expect(codec.CodeError)
		folder := strings.TrimSuffix(strings.TrimSuffix(name, "/a"), "/deep")
		line := d.await(fmt.Sprintf(`files/%s/%s\" is a symbolic link`, p.ID, folder))
		if !strings.Contains(line, `"level":"warn"`) {
			t.Errorf("%s: log %s", name, line)
		}
		p.settle()
	}
	p.upload("docs/new", []byte("new"))
	d.checkVerified(p.ID, "docs/new", []byte("new"))
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) != 0 {
		t.Errorf("the link's folder has %v, %v", left, err)
	}
}
