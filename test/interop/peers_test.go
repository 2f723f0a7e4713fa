package interop

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// binaries is where the programs of this module are built.
var binaries string

func TestMain(m *testing.M) {
	var err error
	if binaries, err = os.MkdirTemp("", "sealift-interop-bin-"); err != nil {
		panic(err)
	}
	status := m.Run()
	os.RemoveAll(binaries)
	os.Exit(status)
}

var buildSealift = sync.OnceValues(func() (*Programs, error) {
	programs := new(Programs)
	return programs, programs.BuildSealift(context.Background(), binaries)
})

var buildAll = sync.OnceValues(func() (*Programs, error) {
	programs, err := BuildPeers(context.Background())
	if err != nil {
		return nil, err
	}
	return programs, programs.BuildSealift(context.Background(), binaries)
})

// sealift returns the programs of this module, which need nothing but Go.
func sealift(t *testing.T) *Programs {
	t.Helper()
	programs, err := buildSealift()
	if err != nil {
		t.Fatal(err)
	}
	return programs
}

// peers returns all programs, or nil where the tests that need a C++ compiler and a Python are not asked for. The tests
// run side by side: the programs wait for each other much of the time.
func peers(t *testing.T) *Programs {
	t.Helper()
	if os.Getenv("SEALIFT_INTEROP") != "1" {
		t.Log("not run: SEALIFT_INTEROP is not 1")
		return nil
	}
	programs, err := buildAll()
	if err != nil {
		t.Fatal(err)
	}
	t.Parallel()
	return programs
}

// scene is a server and a client's directory with one file.
type scene struct {
	*testing.T
	programs *Programs
	server   *RunningServer
	dir      string
}

func newScene(t *testing.T, programs *Programs, server Server, size int) scene {
	t.Helper()
	running, err := programs.Start(t.Context(), server, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Stop)
	s := scene{t, programs, running, t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.dir, "file.bin"), Content(size), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s scene) send(client Client) Transcript {
	return s.sendTo(s.server.AddrFor(client.Maker), client)
}

func (s scene) sendTo(addr string, client Client) Transcript {
	s.Helper()
	transcript, err := s.programs.Send(s.Context(), client, addr, "Michael Jackson", s.dir, "file.bin")
	if err != nil {
		s.Fatal(err)
	}
	return transcript
}

// wantStored fails the test unless the server has the file.
func (s scene) wantStored() {
	s.Helper()
	id, err := clientID(s.dir)
	if err != nil {
		s.Fatal(err)
	}
	s.wantStoredAs(id)
}

// wantStoredAs is wantStored for the client of that id.
func (s scene) wantStoredAs(id string) {
	s.Helper()
	want, err := os.ReadFile(filepath.Join(s.dir, "file.bin"))
	if err != nil {
		s.Fatal(err)
	}
	got, err := os.ReadFile(s.server.Stored(id, "file.bin"))
	if err != nil || !bytes.Equal(got, want) {
		s.Errorf("stored %d bytes (%v), want the %d bytes of the file", len(got), err, len(want))
	}
}

// want fails the test unless the client has ended so, and both sides have seen these messages.
func (s scene) want(transcript Transcript, exit int, codes string) {
	s.Helper()
	if transcript.Exit != exit {
		s.Errorf("status %d, want %d: %s", transcript.Exit, exit, transcript.Errors)
	}
	if got := transcript.Codes(); got != codes {
		s.Errorf("client's messages\n%s, want\n%s", got, codes)
	}
	if exit != 0 && !strings.HasPrefix(transcript.Errors, "Fatal error: ") {
		s.Errorf("standard error %q, want a fatal error", transcript.Errors)
	}
}

func TestChecksumsAreThoseOfCksum(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	for _, maker := range Peers {
		for _, size := range []int{0, 1, 255, 256, 10_001, 65_536} {
			s := newScene(t, programs, Server{Maker: maker, Dialect: spec}, size)
			output, err := exec.CommandContext(t.Context(), "cksum", filepath.Join(s.dir, "file.bin")).Output()
			if err != nil {
				t.Fatal(err)
			}
			want, _, _ := strings.Cut(string(output), " ")
			if got := s.send(Client{Maker: maker, Dialect: spec}).Cksum(); got != want {
				t.Errorf("%s, %d bytes: cksum %s, want %s", maker, size, got, want)
			}
		}
	}
}

// TestServersAreStrict shows that a peer's server takes its own dialect, and others only where the bytes are the same.
func TestServersAreStrict(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	const size = 10_001
	alike := map[string]bool{ // client > server
		"single > spec":                     true,
		"single > per-packet 4096":          true,
		"single > per-packet 4000":          true,
		"single > packet-size":              true,
		"per-packet 4096 > per-packet 4000": true,
		"per-packet 4000 > per-packet 4096": true,
	}
	for _, maker := range Peers {
		for _, to := range Dialects {
			for _, from := range Dialects {
				pair := from.String() + " > " + to.String()
				t.Run(string(maker)+" "+pair, func(t *testing.T) {
					s := newScene(t, programs, Server{Maker: maker, Dialect: to}, size)
					transcript := s.send(Client{Maker: Cpp, Dialect: from})
					if from == to || alike[pair] {
						if transcript.Exit != 0 {
							t.Errorf("status %d: %s", transcript.Exit, transcript.Errors)
						}
						s.wantStored()
						return
					}
					if transcript.Exit != 1 || !strings.Contains(transcript.Codes(), "1607") {
						t.Errorf("status %d after %s, want 1 after a 1607", transcript.Exit, transcript.Codes())
					}
				})
			}
		}
	}
}
