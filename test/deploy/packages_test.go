//go:build linux && !race

package deploy

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// packager is a kind of package, and how it gets into a root.
type packager struct {
	name    string
	file    func(version, arch string) string
	install func(root, file string) *exec.Cmd
	remove  func(root string) *exec.Cmd
	own     []string // files besides those of all packages
}

var packagers = []packager{
	{
		name:    "deb",
		file:    func(version, arch string) string { return fmt.Sprintf("sealift_%s_%s.deb", version, arch) },
		install: func(root, file string) *exec.Cmd { return dpkg(root, "-i", file) },
		remove:  func(root string) *exec.Cmd { return dpkg(root, "--remove", "sealift") },
		own: []string{
			"usr/share/doc/sealift/copyright",
			"usr/share/zsh/vendor-completions/_sealift", "usr/share/zsh/vendor-completions/_sealiftd",
		},
	},
	{
		name: "rpm",
		file: func(version, arch string) string {
			return fmt.Sprintf("sealift-%s-1.%s.rpm", version, map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch])
		},
		// The shell is there, and in no database.
		install: func(root, file string) *exec.Cmd {
			return rpm(root, "-U", "--replacepkgs", "--oldpackage", "--nodeps", file)
		},
		remove: func(root string) *exec.Cmd { return rpm(root, "-e", "sealift") },
		own: []string{
			"usr/share/licenses/sealift/LICENSE",
			"usr/share/zsh/site-functions/_sealift", "usr/share/zsh/site-functions/_sealiftd",
		},
	},
}

// dpkg answers no question, and keeps a changed file where it would ask.
func dpkg(root string, args ...string) *exec.Cmd {
	return exec.Command("dpkg", append([]string{"--root=" + root, "--force-confdef", "--force-confold"}, args...)...)
}

func rpm(root string, args ...string) *exec.Cmd {
	all := []string{"--root", root, "--define", "_dbpath /var/lib/rpm"}
	if _, err := os.Stat("/etc/debian_version"); err == nil {
		all = append(all, "--force-debian") // which wants to be asked twice
	}
	return exec.Command("rpm", append(all, args...)...)
}

// files are those of every package, and their permissions.
var files = map[string]fs.FileMode{
	"etc/sealift":                                       fs.ModeDir | 0o755,
	"etc/sealift/sealiftd.yaml":                         0o644,
	"usr/bin/sealift":                                   0o755,
	"usr/bin/sealiftd":                                  0o755,
	"usr/lib/systemd/system/sealiftd.service":           0o644,
	"usr/lib/systemd/system/sealiftd.socket":            0o644,
	"usr/lib/sysusers.d/sealift.conf":                   0o644,
	"usr/share/bash-completion/completions/sealift":     0o644,
	"usr/share/bash-completion/completions/sealiftd":    0o644,
	"usr/share/doc/sealift/API.md":                      0o644,
	"usr/share/doc/sealift/EVENTS.md":                   0o644,
	"usr/share/doc/sealift/LOG.md":                      0o644,
	"usr/share/doc/sealift/METRICS.md":                  0o644,
	"usr/share/doc/sealift/OPERATING.md":                0o644,
	"usr/share/doc/sealift/PROTOCOL.md":                 0o644,
	"usr/share/doc/sealift/README.md":                   0o644,
	"usr/share/doc/sealift/SCALING.md":                  0o644,
	"usr/share/doc/sealift/SECURITY.md":                 0o644,
	"usr/share/fish/vendor_completions.d/sealift.fish":  0o644,
	"usr/share/fish/vendor_completions.d/sealiftd.fish": 0o644,
	"usr/share/man/man1/sealift.1.gz":                   0o644,
	"usr/share/man/man1/sealiftd.1.gz":                  0o644,
}

func (p *packager) built(t *testing.T, arch string) string {
	t.Helper()
	return filepath.Join(dist(t), "packages", p.file(version, arch))
}

// emptyDatabase makes the databases of packages of root. dpkg's has what the package asks
// for.
func emptyDatabase(t *testing.T, root string) {
	t.Helper()
	write(t, filepath.Join(root, "var/lib/dpkg/status"), "Package: passwd\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: useradd\n\n", 0o644)
	for _, dir := range []string{"dpkg/info", "dpkg/updates", "rpm"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// entries are all files and folders of root.
func entries(t *testing.T, root string) map[string]fs.FileMode {
	t.Helper()
	all := make(map[string]fs.FileMode)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		all[name] = info.Mode()
		if st := info.Sys().(*syscall.Stat_t); name != "var/lib/sealift" && (st.Uid != 0 || st.Gid != 0) {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ours reports whether an entry of a root is neither of a package's database nor what
// making a user has changed.
func ours(name string) bool {
	for _, other := range []string{"var/lib/dpkg", "var/lib/rpm", "var/log", "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/sub", "etc/.pwd.lock", "calls"} {
		if strings.HasPrefix(name, other) {
			return false
		}
	}
	return true
}

// Each package puts its files where they belong, makes the user with whatever there is for
// that, and its programs take the configuration as it is. What is left at its removal is the
// user and what clients have sent.
func TestInstall(t *testing.T) {
	need(t, "root", "dpkg", "rpm", "ldd", "useradd", "systemd-sysusers")
	for _, p := range packagers {
		for _, maker := range []string{"useradd", "systemd-sysusers"} {
			t.Run(p.name+" with "+maker, func(t *testing.T) {
				root := cleanRoot(t, maker)
				emptyDatabase(t, root)
				before := entries(t, root)
				finish(t, p.install(root, p.built(t, runtime.GOARCH)))

				want := map[string]fs.FileMode{"var/lib/sealift": fs.ModeDir | 0o750}
				for name, mode := range files {
					want[name] = mode
				}
				for _, name := range p.own {
					want[name] = 0o644
				}
				after := entries(t, root)
				for name, mode := range want {
					if after[name] != mode {
						t.Errorf("%s: mode %v, want %v", name, after[name], mode)
					}
				}
				for name, mode := range after {
					if _, old := before[name]; !old && want[name] == 0 && ours(name) && !mode.IsDir() {
						t.Errorf("%s is more than the package should have", name)
					}
				}
				uid, gid := userID(t, root)
				if st := stat(t, filepath.Join(root, "var/lib/sealift")); fmt.Sprint(st.Uid, " ", st.Gid) != uid+" "+gid {
					t.Errorf("/var/lib/sealift belongs to %d:%d, want %s:%s", st.Uid, st.Gid, uid, gid)
				}
				for _, name := range []string{"sealift", "sealiftd"} {
					got := in(t, root, "0", "0", "/usr/bin/"+name, "version")
					if !strings.HasPrefix(got, name+" v"+version+", protocol version 3, ") {
						t.Errorf("version %q", got)
					}
				}
				in(t, root, uid, gid, "/usr/bin/sealiftd", "config", "check", "--config", "/etc/sealift/sealiftd.yaml")

				write(t, filepath.Join(root, "var/lib/sealift/a file"), "content", 0o600)
				finish(t, p.remove(root))
				if _, err := os.Stat(filepath.Join(root, "usr/bin/sealiftd")); !os.IsNotExist(err) {
					t.Error("the program is still there: ", err)
				}
				read(t, filepath.Join(root, "var/lib/sealift/a file"))
				userID(t, root)
			})
		}
	}
}

// in runs a program of a root, as a user.
func in(t *testing.T, root, uid, gid, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Path, cmd.Err = program, nil
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin"}
	cmd.SysProcAttr = inside(t, root, uid, gid)
	return finish(t, cmd)
}

func inside(t *testing.T, root, uid, gid string) *syscall.SysProcAttr {
	t.Helper()
	u, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	g, err := strconv.ParseUint(gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uint32(u), Gid: uint32(g)}}
}

func stat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

// nextVersion makes the packages of this machine once more, with a higher version and
// another configuration.
func nextVersion(t *testing.T, p packager) string {
	t.Helper()
	name, err := nfpm()
	if err != nil {
		lack(t, err.Error())
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "top/deploy"), os.DirFS(filepath.Join(top, "deploy"))); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"bin": filepath.Join(dist(t), runtime.GOARCH, "bin"), "share": filepath.Join(dist(t), "share"),
		"top/docs": filepath.Join(top, "docs"), "top/README.md": filepath.Join(top, "README.md"), "top/LICENSE": filepath.Join(top, "LICENSE"),
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "top/deploy/sealiftd.yaml")
	write(t, config, read(t, config)+"# of the next version\n", 0o644)
	file := filepath.Join(dir, "next."+p.name)
	cmd := exec.Command("go", "run", name, "package", "-f", "top/deploy/nfpm.yaml", "-p", p.name, "-t", file)
	cmd.Dir, cmd.Env = dir, environment("ARCH="+runtime.GOARCH, "VERSION=1.2.4", "MAINTAINER=nobody <nobody@localhost>", "GOFLAGS=")
	finish(t, cmd)
	return file
}

// A configuration that somebody has changed stays, at a reinstallation and at an upgrade
// that brings another one.
func TestConfigurationStays(t *testing.T) {
	need(t, "root", "dpkg", "rpm", "ldd", "useradd")
	for _, p := range packagers {
		t.Run(p.name, func(t *testing.T) {
			root := cleanRoot(t, "useradd")
			emptyDatabase(t, root)
			config := filepath.Join(root, "etc/sealift/sealiftd.yaml")
			finish(t, p.install(root, p.built(t, runtime.GOARCH)))
			write(t, config, "dir: /srv\n", 0o640)
			for _, file := range []string{p.built(t, runtime.GOARCH), nextVersion(t, p)} {
				finish(t, p.install(root, file))
				if got := read(t, config); got != "dir: /srv\n" {
					t.Errorf("after %s: %s", filepath.Base(file), got)
				}
			}
			if next := map[string]string{"deb": ".dpkg-dist", "rpm": ".rpmnew"}[p.name]; !strings.HasSuffix(read(t, config+next), "# of the next version\n") {
				t.Errorf("the new configuration is not beside it as %s", next)
			}
		})
	}
}

// Where systemd runs, it is told of the unit; what else is done with the service is what
// Debian and Fedora do with every one.
func TestScripts(t *testing.T) {
	need(t, "root", "dpkg", "rpm", "ldd", "useradd")
	for name, want := range map[string]struct{ first, again, removal string }{
		"deb": {
			first: `deb-systemd-helper --quiet was-enabled sealiftd.service
deb-systemd-helper enable sealiftd.service
systemctl --system daemon-reload
deb-systemd-invoke start sealiftd.service`,
			again: `systemctl --system daemon-reload
deb-systemd-helper --quiet was-enabled sealiftd.service
deb-systemd-helper enable sealiftd.service
systemctl --system daemon-reload
systemctl --quiet is-active sealiftd.service
deb-systemd-invoke restart sealiftd.service`,
			removal: `deb-systemd-invoke stop sealiftd.socket sealiftd.service
systemctl --system daemon-reload`,
		},
		"rpm": {
			first: `systemctl daemon-reload
systemctl --no-reload preset sealiftd.service`,
			again: `systemctl daemon-reload
systemctl daemon-reload
systemctl try-restart sealiftd.service`,
			removal: `systemctl --no-reload disable --now sealiftd.socket sealiftd.service
systemctl daemon-reload`,
		},
	} {
		for _, p := range packagers {
			if p.name != name {
				continue
			}
			t.Run(name, func(t *testing.T) {
				root := cleanRoot(t, "useradd")
				emptyDatabase(t, root)
				running(t, root)
				for _, step := range []struct {
					what string
					cmd  *exec.Cmd
					want string
				}{
					{"installation", p.install(root, p.built(t, runtime.GOARCH)), want.first},
					{"upgrade", p.install(root, nextVersion(t, p)), want.again},
					{"removal", p.remove(root), want.removal},
				} {
					finish(t, step.cmd)
					if got := calls(t, root); got != step.want {
						t.Errorf("%s:\n%s\nwant:\n%s", step.what, got, step.want)
					}
				}
				if p.name == "deb" {
					purge(t, root)
				}
			})
		}
	}
}

// purge: Debian's last word leaves what clients have sent, and says so.
func purge(t *testing.T, root string) {
	t.Helper()
	write(t, filepath.Join(root, "var/lib/sealift/a file"), "content", 0o600)
	if said := finish(t, dpkg(root, "--purge", "sealift")); !strings.Contains(said, "/var/lib/sealift has what clients have sent") {
		t.Errorf("purge: %s", said)
	}
	read(t, filepath.Join(root, "var/lib/sealift/a file"))
	if _, err := os.Stat(filepath.Join(root, "etc/sealift")); !os.IsNotExist(err) {
		t.Errorf("the configuration is still there: %v", err)
	}
	if got := calls(t, root); got != "systemctl --system daemon-reload\ndeb-systemd-helper purge sealiftd.service sealiftd.socket" {
		t.Errorf("purge: %s", got)
	}
}

// The programs of each architecture are for that one, and need no library.
func TestArchitectures(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		for _, name := range []string{"bin/sealift", "bin/sealiftd", "image/usr/bin/sealiftd"} {
			f, err := elf.Open(filepath.Join(dist(t), arch, name))
			if err != nil {
				t.Error(err)
				continue
			}
			libraries, err := f.ImportedLibraries()
			if f.Machine != machine || err != nil || len(libraries) > 0 || f.Section(".interp") != nil {
				t.Errorf("%s/%s is for %v, and needs %v (%v)", arch, name, f.Machine, libraries, err)
			}
			_ = f.Close()
		}
		for _, p := range packagers {
			if _, err := os.Stat(p.built(t, arch)); err != nil {
				t.Error(err)
			}
		}
	}
}
