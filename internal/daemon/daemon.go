// Package daemon puts a server together from its parts: storage, sessions and
// event loops. The commands, the tests and the benchmarks start the same one.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"go.uber.org/zap"

	"sealift/eventloop"
	"sealift/internal/infofile"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/files"
)

// DatabaseName is the registry's file in the server's directory.
const DatabaseName = "defensive.db"

// Config is all that can be set about a server. See the flags of `sealiftd
// serve` for what each field does; zero means the default where there is one.
type Config struct {
	Dir      string
	Listen   string // host:port; empty: the port in port.info
	Registry string // "sqlite" or "memory"
	Fsync    bool

	MaxConnections int
	MaxPerIP       int
	MemoryBudget   int64
	MaxFileSize    int64
	MaxUnverified  int64 // of one client
	MinFree        int64 // bytes that content leaves on the disk; 0: none
	FileMode       fs.FileMode
	DirMode        fs.FileMode
	MaxUploads     int
	KeyPolicy      session.KeyPolicy
	RegisterRate   float64 // a second and address; 0: no bound

	IdleTimeout      time.Duration
	HandshakeTimeout time.Duration
	DrainTimeout     time.Duration
	UnverifiedTTL    time.Duration

	Workers int
	Loops   int

	// Faults, if there are any, make the server misbehave, to test clients.
	Faults *session.Faults

	Log *zap.Logger

	// Folding, if not nil, is what the store takes its disk to do with names. For
	// tests.
	Folding *files.Folding

	// DiskFaults, if not nil, see each step that the store takes on its disk, and
	// may make it fail.
	DiskFaults *files.Faults

	// WrapFiles, if not nil, puts something between the sessions and the store:
	// a disk that is slow, or fails.
	WrapFiles func(storage.Files) storage.Files
}

// Run serves until ctx ends and everything is drained. started is called with
// the address once connections are accepted.
func Run(ctx context.Context, cfg Config, started func(addr *net.TCPAddr)) (err error) {
	if cfg.UnverifiedTTL != 0 && cfg.UnverifiedTTL < session.MinUnverifiedTTL {
		return fmt.Errorf("files without a verdict cannot be removed after %v already, only after %v or more, or with 0 never", cfg.UnverifiedTTL, session.MinUnverifiedTTL)
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return err
	}
	if err = checkDir(cfg.Dir); err != nil {
		return err
	}
	asked := cfg.MaxConnections
	if asked <= 0 {
		cfg.MaxConnections = eventloop.DefaultMaxConnections
	}
	if cfg.Workers <= 0 {
		cfg.Workers = eventloop.DefaultWorkers()
	}
	if cfg.Loops <= 0 {
		cfg.Loops = eventloop.DefaultLoops()
	}
	share, err := eventloop.ShareDescriptors(eventloop.OpenFileLimit(), cfg.MaxConnections, cfg.Loops, cfg.Workers)
	if err != nil {
		return err
	}
	if share.Connections < asked {
		cfg.Log.Warn("the limit of open files allows fewer connections than asked for",
			zap.Int("asked", asked), zap.Int("allowed", share.Connections))
	}
	listen := cfg.Listen
	if listen == "" {
		listen = addressFromFile(cfg.Dir, cfg.Log)
	}

	store, err := files.Open(cfg.Dir, files.Options{
		Fsync: cfg.Fsync, MaxOpen: share.Files, MinFree: cfg.MinFree, FileMode: cfg.FileMode, DirMode: cfg.DirMode,
		Folding: cfg.Folding, Faults: cfg.DiskFaults,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var replyDelay time.Duration
	if cfg.Faults != nil {
		cfg.Log.Warn("FAULT INJECTION IS ON: this server misbehaves on purpose, use it only to test clients", zap.Stringer("faults", cfg.Faults))
		replyDelay = cfg.Faults.Delay
	}
	registry, err := openRegistry(ctx, &cfg, store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()

	var content storage.Files = store
	if cfg.WrapFiles != nil {
		content = cfg.WrapFiles(store)
	}
	service := session.NewService(session.Config{
		Files: content, Log: cfg.Log, KeyPolicy: cfg.KeyPolicy, RegisterRate: cfg.RegisterRate,
		MaxFileSize: cfg.MaxFileSize, MaxUnverified: cfg.MaxUnverified, MaxUploads: cfg.MaxUploads,
		Faults: cfg.Faults,
	})
	srv, err := eventloop.New(eventloop.Options{
		Addr: listen, Service: service,
		Registry: registry, Log: cfg.Log,
		Loops: cfg.Loops, Workers: cfg.Workers,
		MaxConnections: share.Connections, MaxPerIP: cfg.MaxPerIP, MemoryBudget: cfg.MemoryBudget,
		HandshakeTimeout: cfg.HandshakeTimeout, IdleTimeout: cfg.IdleTimeout, DrainTimeout: cfg.DrainTimeout,
		ReplyDelay: replyDelay,
	})
	if err != nil {
		return err
	}
	missing, err := recoverStorage(ctx, &cfg, service, registry, store)
	if err != nil {
		return errors.Join(err, srv.Close())
	}
	return serve(ctx, srv, started, func(ctx context.Context) { maintain(ctx, &cfg, missing, service, registry, store) })
}

// addressFromFile is where port.info says to listen. A server must start
// without one too (protocol documents, "Robustness Requirement").
func addressFromFile(dir string, log *zap.Logger) string {
	path := filepath.Join(dir, "port.info")
	port, err := infofile.ReadPort(path)
	if err != nil {
		reason := err.Error()
		if errors.Is(err, os.ErrNotExist) {
			reason = "there is none"
		}
		log.Warn("port.info cannot be used, taking the default port", zap.String("path", path), zap.String("reason", reason), zap.Int("port", infofile.DefaultPort))
		port = infofile.DefaultPort
	}
	return net.JoinHostPort("", strconv.Itoa(int(port)))
}

// serve runs the loops and, beside them, maintain.
func serve(ctx context.Context, srv *eventloop.Server, started func(*net.TCPAddr), maintain func(context.Context)) error {
	beside, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-srv.Ready():
			started(srv.Addr())
			maintain(beside)
		case <-beside.Done():
		}
	}()
	err := srv.Run(ctx)
	stop()
	<-done
	return err
}
