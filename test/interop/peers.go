// Package interop runs Sealift against implementations of the protocol that are not its own: small clients and servers
// in C++ (Crypto++) and Python (PyCryptodome), each a stand-in for a family of implementations in the field. They are
// in peers/, made to be read.
//
// [BuildPeers] and [BuildSealift] provide the programs, [Programs.Start] and [Programs.Send] run them, and
// [Programs.Matrix] tries who can send to whom. The tests of this package need g++, libcrypto++-dev,
// python3-pycryptodome and cksum, and run when SEALIFT_INTEROP=1. The command in matrix/ writes the tables to a file.
package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed peers/cpp peers/python
var sources embed.FS

// Crypto++ is slow to compile; -O1 is where building and running together take the least time.
var compilerFlags = []string{"-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"}

// Programs are the built binaries and scripts, by path. A Programs may be used by several goroutines at a time.
type Programs struct {
	cppClient, cppServer string
	pyClient, pyServer   string
	python               string
	sealift, sealiftd    string // empty until BuildSealift

	// Calm has Matrix try also the servers that read once or are silent where others answer. What they do depends on how
	// soon the machine lets them run.
	Calm bool
}

// BuildPeers compiles the C++ peers and finds a Python with PyCryptodome. What it builds stays in [os.TempDir], under a
// name that changes with the sources, for the next call to find.
func BuildPeers(ctx context.Context) (*Programs, error) {
	python, err := findPython(ctx)
	if err != nil {
		return nil, err
	}
	hash, err := hashSources()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("sealift-interop-%d-%x", os.Getuid(), hash[:8]))
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		err = buildIn(ctx, dir)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	return &Programs{
		cppClient: filepath.Join(dir, "cppclient"),
		cppServer: filepath.Join(dir, "cppserver"),
		pyClient:  filepath.Join(dir, "peers/python/pyclient.py"),
		pyServer:  filepath.Join(dir, "peers/python/pyserver.py"),
		python:    python,
	}, nil
}

// findPython returns the path of a Python that has PyCryptodome: the first in PATH may be one without Debian's packages.
func findPython(ctx context.Context) (string, error) {
	const probe = "import sys\ntry:\n import Crypto\nexcept ImportError:\n import Cryptodome\nprint(sys.executable)"
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if path, err := exec.CommandContext(ctx, python, "-c", probe).Output(); err == nil {
			return string(bytes.TrimSpace(path)), nil
		}
	}
	return "", errors.New("no python3 with PyCryptodome (Debian: python3-pycryptodome)")
}

func hashSources() ([]byte, error) {
	hash := sha256.New()
	fmt.Fprintf(hash, "%q\n", compilerFlags)
	err := fs.WalkDir(sources, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := sources.ReadFile(path)
		fmt.Fprintf(hash, "%s %d\n%s", path, len(content), content)
		return err
	})
	return hash.Sum(nil), err
}

// buildIn builds beside dir and renames, so that dir exists only when it is complete.
func buildIn(ctx context.Context, dir string) error {
	work, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.CopyFS(work, sources); err != nil {
		return err
	}
	for _, name := range []string{"cppclient", "cppserver"} {
		args := append([]string{"-o", name}, compilerFlags...)
		args = append(args, "peers/cpp/"+name+".cpp", "-lcryptopp")
		compiler := exec.CommandContext(ctx, "g++", args...)
		compiler.Dir = work
		if output, err := compiler.CombinedOutput(); err != nil {
			return fmt.Errorf("g++ %s (Debian: g++, libcrypto++-dev): %w\n%s", name, err, output)
		}
	}
	err = os.Rename(work, dir)
	if _, statErr := os.Stat(dir); statErr == nil {
		return nil // ours, or that of another process that was faster
	}
	return err
}

// BuildSealift compiles cmd/sealift and cmd/sealiftd of this module into dir.
func (p *Programs) BuildSealift(ctx context.Context, dir string) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator),
		"sealift/cmd/sealift", "sealift/cmd/sealiftd")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, output)
	}
	p.sealift = filepath.Join(dir, "sealift")
	p.sealiftd = filepath.Join(dir, "sealiftd")
	return nil
}
