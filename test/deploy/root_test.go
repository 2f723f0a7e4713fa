//go:build linux && !race

package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tool is what scripts of packages call that is about the running system. It notes its
// arguments, and succeeds.
const tool = `#!/bin/sh
echo "${0##*/} $*" >>/calls
`

// cleanRoot makes a root with nothing but what scripts of packages need: a shell, a few
// programs, and tools that note how they are called.
func cleanRoot(t *testing.T, programs ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"etc", "tmp", "usr/sbin", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("usr/"+link, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range append([]string{"sh", "getent", "mkdir", "chown"}, programs...) {
		install(t, root, name)
	}
	for _, name := range []string{"systemctl", "deb-systemd-helper", "deb-systemd-invoke"} {
		write(t, filepath.Join(root, "usr/bin", name), tool, 0o755)
	}
	write(t, filepath.Join(root, "dev/null"), "", 0o666) // a file takes what is thrown away, too
	write(t, filepath.Join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n", 0o644)
	write(t, filepath.Join(root, "etc/group"), "root:x:0:\n", 0o644)
	write(t, filepath.Join(root, "etc/shadow"), "root:*:19000:0:99999:7:::\n", 0o600)
	write(t, filepath.Join(root, "etc/gshadow"), "root:*::\n", 0o600)
	write(t, filepath.Join(root, "etc/nsswitch.conf"), "passwd: files\ngroup: files\n", 0o644)
	return root
}

var library = regexp.MustCompile(`(/\S+) \(0x`)

// install puts a program of this machine into root, and the libraries that it needs.
func install(t *testing.T, root, name string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	copyTo(t, path, filepath.Join(root, path))
	for _, m := range library.FindAllStringSubmatch(output(t, "ldd", path), -1) {
		copyTo(t, m[1], filepath.Join(root, m[1]))
	}
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, read(t, from), info.Mode().Perm())
}

// running makes root a system that systemd runs.
func running(t *testing.T, root string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(root, "run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// calls are those of the tools since calls was called last.
func calls(t *testing.T, root string) string {
	t.Helper()
	path := filepath.Join(root, "calls")
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	_ = os.Remove(path)
	return strings.TrimSpace(string(b))
}

// userID is the entry of the user sealift in root: user and group.
func userID(t *testing.T, root string) (uid, gid string) {
	t.Helper()
	m := regexp.MustCompile(`(?m)^sealift:[^:]*:(\d+):(\d+):[^:]*:/var/lib/sealift:\S*/nologin$`).
		FindStringSubmatch(read(t, filepath.Join(root, "etc/passwd")))
	if m == nil {
		t.Fatalf("no user sealift:\n%s", read(t, filepath.Join(root, "etc/passwd")))
	}
	return m[1], m[2]
}
