//go:build linux

package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"sealift/internal/testpeer"
	daemon "sealift/server"
	"sealift/storage"
	"sealift/storage/files"
)

// roleVariable makes this program, or the test of it, play another part in a
// process of its own. Its value is a role in JSON.
const roleVariable = "SEALIFT_SOAK_ROLE"

// role is what such a process does.
type role struct {
	// Lock names a database to be locked until standard input ends.
	Lock string
	// Serve is the directory of a server on a storage with the faults that
	// follow.
	Serve        string
	MemoryBudget int64

	BytesPerSecond int64  // the speed of the storage, 0: its own
	FullWhile      string // nothing can be written while there is a file of that name
	FailSyncs      int    // one of so many syncs fails, 0: none
}

// playRole does what the environment asks of this process. done is false if it
// asks nothing.
func playRole() (done bool, err error) {
	text, ok := os.LookupEnv(roleVariable)
	if !ok {
		return false, nil
	}
	var p role
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return true, err
	}
	switch {
	case p.Lock != "":
		return true, lockDatabase(p.Lock)
	case p.Serve != "":
		return true, p.serve()
	}
	return true, errors.New("an empty role")
}

// command is the command that plays the part.
func (p role) command(r *run) *exec.Cmd {
	r.Helper()
	self, err := os.Executable()
	if err != nil {
		r.Fatalf("%v", err)
	}
	text, err := json.Marshal(p)
	if err != nil {
		r.Fatalf("%v", err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+string(text))
	return cmd
}

// startFaulty runs a server with faults and waits until it takes connections.
func (r *run) startFaulty(p role) *server {
	r.Helper()
	s := r.launch(p.command(r), p.Serve)
	s.ready()
	return s
}

func (p role) serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGHUP) // as sealiftd does
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(os.Stderr), zap.InfoLevel))
	return daemon.Serve(ctx, daemon.Options{
		Dir: p.Serve, Log: log,
		Network: daemon.Network{Listen: "127.0.0.1:0"},
		TLS:     protection(),
		Storage: daemon.Storage{Fsync: p.FailSyncs > 0},
		Machine: daemon.Machine{MemoryBudget: p.MemoryBudget, Loops: 1},
		Testing: daemon.Testing{
			DiskFaults: p.diskFaults(),
			WrapFiles: func(f storage.Files) storage.Files {
				return &faultyFiles{Files: f, pace: pace{perSecond: p.BytesPerSecond}, fullWhile: p.FullWhile}
			},
		},
	}, func(_ context.Context, s *daemon.Server) { log.Info("listening", zap.Stringer("address", s.Addr())) })
}

// protection is what SEALIFT_TLS would say to a sealiftd.
func protection() daemon.TLS {
	if testpeer.OverTLS() {
		return daemon.TLS{Mode: "require"}
	}
	return daemon.TLS{}
}

func (p role) diskFaults() *files.Faults {
	if p.FailSyncs == 0 {
		return nil
	}
	return &files.Faults{Before: func(s files.Step) error {
		if (s.Op == files.SyncFile || s.Op == files.SyncFolder) && strings.Count(s.Path, "/") > 0 && rand.IntN(p.FailSyncs) == 0 {
			return syscall.EIO
		}
		return nil
	}}
}

// faultyFiles is a store on a disk that is slow, or full.
type faultyFiles struct {
	storage.Files
	pace      pace
	fullWhile string
}

type faultyIncoming struct {
	storage.Incoming
	f *faultyFiles
}

func (f *faultyFiles) Create(ctx context.Context, place storage.Place, size storage.Announced) (storage.Incoming, error) {
	in, err := f.Files.Create(ctx, place, size)
	if err != nil {
		return nil, err
	}
	return &faultyIncoming{in, f}, nil
}

func (in *faultyIncoming) Write(ctx context.Context, p []byte) (int, error) {
	if name := in.f.fullWhile; name != "" {
		if _, err := os.Stat(name); err == nil {
			return 0, fmt.Errorf("writing %d bytes: %w", len(p), syscall.ENOSPC)
		}
	}
	in.f.pace.wait(len(p))
	return in.Incoming.Write(ctx, p)
}

// pace makes all writers together as slow as a disk of that speed.
type pace struct {
	perSecond int64
	mu        sync.Mutex
	free      time.Time // when the disk has done what was asked of it
}

func (p *pace) wait(n int) {
	if p.perSecond == 0 {
		return
	}
	p.mu.Lock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(int64(n) * int64(time.Second) / p.perSecond))
	due := p.free
	p.mu.Unlock()
	time.Sleep(due.Sub(now))
}
