package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A folder that is full, or that cannot be written to, takes what fits. The rest stays in the
// store, until there is room.
func TestFileTakeToAFullDisk(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	mount := func(flags uintptr, size string) error { return unix.Mount("tmpfs", out, "tmpfs", flags, "size="+size) }
	if err := mount(0, "1m"); err != nil {
		t.Skip("no small file system can be mounted here:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(out, unix.MNT_DETACH) })
	d := serve(t)
	p := login(t, d, "Ada Lovelace")
	content := randomBytes(3_000_003, 1)
	p.upload("a", []byte("fits"))
	p.upload("b", content)
	p.Close()
	taken := func(path string) string { return filepath.Join(out, p.ID.String(), path) }

	d.file("take", "**", "--to", out).failed(t, "no space left").hinted(t, "still in the store")
	checkFile(t, taken("a"), strings.NewReader("fits"))
	d.checkVerified(p.ID, "b", content)
	if err := mount(unix.MS_REMOUNT|unix.MS_RDONLY, "10m"); err != nil {
		t.Fatal(err)
	}
	d.file("take", "**", "--to", out).failed(t, "read-only")
	d.checkVerified(p.ID, "b", content)
	if err := mount(unix.MS_REMOUNT, "10m"); err != nil {
		t.Fatal(err)
	}
	d.file("take", "**", "--to", out).succeeded(t)
	checkFile(t, taken("b"), strings.NewReader(string(content)))
}
