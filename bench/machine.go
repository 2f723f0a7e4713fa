//go:build linux

package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"sealift/bench/report"
)

// describeMachine says what the figures were taken on.
func describeMachine(dir string) report.Machine {
	m := report.Machine{
		Processor: fieldOf("/proc/cpuinfo", "model name"),
		Cores:     runtime.NumCPU(),
		Memory:    fieldOf("/proc/meminfo", "MemTotal"),
		Versions:  map[string]string{"go": runtime.Version()},
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.System = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		m.FileSystem = fileSystem(fs.Type)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if strings.HasSuffix(dep.Path, "/gnet/v2") || dep.Path == "modernc.org/sqlite" {
				m.Versions[dep.Path] = dep.Version
			}
		}
	}
	say := func(name string, command ...string) {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err == nil {
			m.Versions[name], _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
		}
	}
	say("sealift", "git", "describe", "--always", "--dirty")
	say("ssh", "ssh", "-V")
	say("curl", "curl", "--version")
	if python, err := findPython(); err == nil {
		say("python", python, "--version")
		say("pycryptodome", python, "-c", "try: import Cryptodome as c\nexcept ImportError: import Crypto as c\nprint(c.__version__)")
	}
	if program, err := findTus(); err == nil {
		say("tusd", program, "-version")
		// Releases print their version; go install leaves it in the build information.
		if info, err := buildinfo.ReadFile(program); err == nil && strings.HasPrefix(info.Main.Version, "v") {
			m.Versions["tusd"] = info.Main.Version
		}
	}
	return m
}

// fileSystem names the types of statfs(2) that one meets.
func fileSystem(magic int64) string {
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	}
	if name, ok := names[magic]; ok {
		return name
	}
	return fmt.Sprintf("%#x", magic)
}

// fieldOf is a value out of a file of "name: value" lines.
func fieldOf(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
