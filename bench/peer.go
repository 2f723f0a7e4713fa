//go:build linux

package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"sealift/bench/load"
)

// peer is a server to measure.
type peer struct {
	name, about string
	// needs says what the machine lacks to run it, nil if nothing. A fetchable is
	// what bench can get by itself.
	needs func() error
	// start starts one whose files go below o.dir.
	start func(ctx context.Context, h *harness, o serverOptions, env []string) (*server, error)
	// slow servers take so long for large files that one round has to do.
	slow bool
	// raw servers know no protocol and get the bytes alone.
	raw bool
	// clients makes the load of a peer that needs clients of its own; nil takes
	// the load generator.
	clients func(ctx context.Context, h *harness, s *server, spec load.Spec) ([]fileClient, error)
	// tls: the server, and its clients, can protect connections.
	tls bool
	// stored looks, when the server has ended, whether what it acknowledged is in
	// its stores. nil where the clients' side does that.
	stored func(ctx context.Context, h *harness, s *server) error
}

// server is one that runs.
type server struct {
	*process
	addr   string
	opts   serverOptions
	golang bool      // obeys commands
	signal os.Signal // ends it; nil is the end of its standard input
}

var peers = []*peer{
	{
		name: "sealift", about: "sealiftd as it is",
		start: startGo("sealift"), stored: storedBySealift, tls: true,
	},
	{
		name: "plain", about: "sealiftd without TLS, beside the same with it",
		start: startGo("sealift"), stored: storedBySealift,
	},
	{
		name: "before", about: "sealiftd as it was at the commit that --before names, beside sealift in all cases",
		start: startBefore, stored: storedBefore,
	},
	{
		name: "goroutine", about: "a goroutine for each connection, over the same sessions and storage",
		start: startGo("goroutine"), stored: storedBySealift,
	},
	{
		name: "python", about: "selectors, PyCryptodome and SQLite, as the protocol documents describe a server",
		needs: func() error { _, err := findPython(); return err },
		start: startPython("--sqlite"), stored: storedByPython, slow: true,
	},
	{
		name: "python-ram", about: "the same with its registry in memory, the documents' basic version",
		needs: func() error { _, err := findPython(); return err },
		start: startPython(), stored: storedByPython,
	},
	{
		name: "sftp", about: "OpenSSH sshd and sftp, AES-256-GCM; its clients encrypt as they send",
		needs: sshNeeds, start: startSSH, clients: sftpClients, slow: true,
	},
	{
		name: "tusd", about: "tusd and curl, no encryption but TLS's; found by the environment's TUSD or in the PATH, or fetched",
		needs: tusNeeds, start: startTus, clients: tusClients, tls: true,
	},
	{
		name: "floor", about: "gnet and write(2): the same bytes, nothing decrypted, no protocol",
		start: startGo("floor"), raw: true,
	},
	{
		name: "postgres", about: "sealiftd with PostgreSQL and a directory",
		needs: storesNeeded, start: startShared(1, false), stored: storedBySealift,
	},
	{
		name: "shared", about: "sealiftd with PostgreSQL and an S3 server, versitygw",
		needs: storesNeeded, start: startShared(1, true), stored: storedBySealift,
	},
	{
		name: "shared-3", about: "three of these on the same stores",
		needs: storesNeeded, start: startShared(3, true), stored: storedBySealift,
	},
	{
		name: "putobject", about: "PutObject of minio-go, to the same S3 server",
		needs: storesNeeded, start: startNothing, clients: putClients, stored: storedInBucket,
	},
}

func findPeer(name string) *peer {
	for _, p := range peers {
		if p.name == name {
			return p
		}
	}
	return nil
}

// startGo starts this program as a server.
func startGo(kind string) func(context.Context, *harness, serverOptions, []string) (*server, error) {
	return func(ctx context.Context, _ *harness, o serverOptions, env []string) (*server, error) {
		p, err := self(ctx, env, o.args(kind)...)
		if err != nil {
			return nil, err
		}
		return whenListening(&server{process: p, opts: o, golang: true})
	}
}

// whenListening waits for the server to print its address.
func whenListening(s *server) (*server, error) {
	addr, err := s.line()
	if err != nil {
		_ = s.stop(syscall.SIGKILL)
		return nil, err
	}
	s.addr = addr
	return s, nil
}

//go:embed python/server.py
var pythonServer []byte

// findPython looks for a Python that has PyCryptodome: the one in the PATH, or
// the system's.
func findPython() (string, error) {
	for _, python := range []string{os.Getenv("PYTHON"), "python3", "/usr/bin/python3"} {
		if python == "" {
			continue
		}
		for _, module := range []string{"Cryptodome", "Crypto"} {
			if exec.Command(python, "-c", "import "+module+".Cipher.AES").Run() == nil {
				return python, nil
			}
		}
	}
	return "", fmt.Errorf("there is no Python with PyCryptodome (Debian: python3-pycryptodome; or set PYTHON)")
}

func startPython(flags ...string) func(context.Context, *harness, serverOptions, []string) (*server, error) {
	return func(ctx context.Context, h *harness, o serverOptions, env []string) (*server, error) {
		python, err := findPython()
		if err != nil {
			return nil, err
		}
		script := filepath.Join(h.dir, "server.py")
		if err := os.WriteFile(script, pythonServer, 0o644); err != nil {
			return nil, err
		}
		args := append([]string{script, "--dir", o.dir}, flags...)
		if o.fsync {
			args = append(args, "--fsync")
		}
		p, err := start(ctx, env, python, args...)
		if err != nil {
			return nil, err
		}
		return whenListening(&server{process: p, opts: o})
	}
}

// command has a server in Go do something, and waits for it.
func (s *server) command(words string) error {
	if _, err := fmt.Fprintln(s.in, words); err != nil {
		return err
	}
	answer, err := s.line()
	if err == nil && answer != "ok" {
		err = fmt.Errorf("the server answers %q with %q", words, answer)
	}
	return err
}

// whenConnectable waits until something listens at addr: for servers that do
// not say when they do. tries are a tenth of a second apart.
func whenConnectable(s *server, addr string) error {
	var err error
	for range 100 {
		var nc net.Conn
		if nc, err = net.Dial("tcp", addr); err == nil {
			return nc.Close()
		}
		pause()
	}
	return s.explain(fmt.Errorf("it does not listen: %w", err))
}
