// Package server puts a server together from its parts: storage, sessions and
// event loops. The commands, the tests and the benchmarks start the same one. The
// commands that look at a server's directory, or put it in order, are here as well,
// so that they need to know nothing of the parts.
package server

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"go.uber.org/zap"

	"sealift/admin"
	"sealift/eventloop"
	"sealift/internal/infofile"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/files"
)

// DatabaseName is the registry's file in the server's directory.
const DatabaseName = "defensive.db"

// Server is a server on a directory, which it has for itself. Make one with
// [Open], [Server.Run] it once, and [Server.Close] it in any case.
type Server struct {
	o        Options
	store    *files.Store
	registry storage.Registry
	service  *session.Service
	tls      *protection // nil: all connections are plain
	loops    *eventloop.Server
	watched  *watched // nil: there is no admin address
	missing  int      // stored files that were not found
	ran      bool     // loops has been run, and is closed
}

// Serve opens a server, runs it until ctx ends and everything is drained, and
// closes it. started is called with its address once connections are accepted.
func Serve(ctx context.Context, o Options, started func(addr *net.TCPAddr)) error {
	s, err := Open(ctx, o)
	if err != nil {
		return err
	}
	ended, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		select {
		case <-s.Ready():
			started(s.Addr())
		case <-ended:
		}
	}()
	err = s.Run(ctx)
	close(ended)
	<-told
	return errors.Join(err, s.Close())
}

// Open checks o, takes the directory, begins to listen, and puts in order what an
// earlier server left. Clients that connect wait until Run. After an error nothing is
// left open.
func Open(ctx context.Context, o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Server{o: o}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open sets the parts, one after the other. Close closes those that are set.
func (s *Server) open(ctx context.Context) (err error) {
	o := &s.o
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	if err = checkDir(o.Dir); err != nil {
		return err
	}
	var faults *session.Faults
	if o.Sessions.Faults != "" {
		if faults, err = session.ParseFaults(o.Sessions.Faults); err != nil {
			return err
		}
		o.Log.Warn("FAULT INJECTION IS ON: this server misbehaves on purpose, use it only to test clients", zap.Stringer("faults", faults))
	}
	if err = o.TLS.checkAuthorities(); err != nil {
		return err
	}
	if o.TLS.Cert != "" {
		if s.tls, err = openProtection(o); err != nil {
			return err
		}
	}
	if s.watched, err = newWatched(o); err != nil {
		return err
	}
	share, err := s.shareDescriptors()
	if err != nil {
		return err
	}
	if s.store, err = files.Open(o.Dir, files.Options{
		Fsync: o.Storage.Fsync, MaxOpen: share.Files, MinFree: o.Storage.MinFree,
		FileMode: o.Storage.FileMode, DirMode: o.Storage.DirMode, Synced: s.watched.synced(),
		Folding: o.Testing.Folding, Faults: o.Testing.DiskFaults,
	}); err != nil {
		return err
	}
	if s.registry, err = openRegistry(ctx, o, s.store); err != nil {
		return err
	}
	s.service = s.newService(faults)
	if o.TLS.Cert == "" {
		// Here, since the directory is ours now, and is not another server's whose
		// database was lost.
		if s.tls, err = openProtection(o); err != nil {
			return err
		}
	}
	if s.loops, err = s.newLoops(share.Connections, faults); err != nil {
		return err
	}
	if err = s.openAdmin(); err != nil {
		return err
	}
	if err = s.warnOfPinned(ctx); err != nil {
		return err
	}
	s.missing, err = s.recover(ctx)
	return err
}

// shareDescriptors divides the limit of open files.
func (s *Server) shareDescriptors() (eventloop.Descriptors, error) {
	asked := s.o.Network.MaxConnections
	wanted := asked
	if wanted == 0 {
		wanted = eventloop.DefaultMaxConnections
	}
	limit := eventloop.OpenFileLimit()
	if limit != 0 && s.watched != nil {
		limit -= min(limit-1, admin.Descriptors)
	}
	share, err := eventloop.ShareDescriptors(limit, wanted, s.o.Machine.Loops, s.o.Machine.Workers)
	if err == nil && share.Connections < asked {
		s.o.Log.Warn("the limit of open files allows fewer connections than asked for",
			zap.Int("asked", asked), zap.Int("allowed", share.Connections))
	}
	return share, err
}

func (s *Server) newService(faults *session.Faults) *session.Service {
	o := &s.o.Sessions
	cfg := session.Config{
		Files: s.store, Registry: s.registry, Log: s.o.Log, Faults: faults,
		Limits: session.Limits{
			MaxFileSize: o.MaxFileSize, MaxUnverified: o.MaxUnverified, MaxUploads: o.MaxUploads,
			RegisterRate: o.RegisterRate, Closed: o.Closed,
		},
	}
	if o.ReplaceKeys {
		cfg.KeyPolicy = session.ReplaceKey
	}
	if wrap := s.o.Testing.WrapFiles; wrap != nil {
		cfg.Files = wrap(s.store)
	}
	if s.watched != nil {
		cfg.Received = s.watched.metrics.Received
	}
	cfg.Registry, cfg.Files = s.watched.observe(cfg.Registry, cfg.Files)
	return session.NewService(cfg)
}

func (s *Server) newLoops(connections int, faults *session.Faults) (*eventloop.Server, error) {
	n, m := &s.o.Network, &s.o.Machine
	o := eventloop.Options{
		Addr: n.Listen, Listener: n.Listener, Alive: s.o.Alive, Service: s.service, Log: s.o.Log,
		Loops: m.Loops, Workers: m.Workers, MemoryBudget: m.MemoryBudget,
		MaxConnections: connections, MaxPerIP: n.MaxPerIP,
		HandshakeTimeout: n.HandshakeTimeout, IdleTimeout: n.IdleTimeout, DrainTimeout: n.DrainTimeout,
		TLS: s.tls.options(),
	}
	if o.Addr == "" && o.Listener == nil {
		o.Addr = addressFromFile(s.o.Dir, s.o.Log)
	}
	if faults != nil {
		o.ReplyDelay = faults.Delay
	}
	return eventloop.New(o)
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

// Addr is where the server listens, with the port that it found.
func (s *Server) Addr() *net.TCPAddr { return s.loops.Addr() }

// Ready is closed when connections are accepted.
func (s *Server) Ready() <-chan struct{} { return s.loops.Ready() }

// Run serves until ctx ends and everything is drained. It returns nil then, and
// why it ended in any other case.
func (s *Server) Run(ctx context.Context) error {
	if s.ran {
		return errors.New("server: Run is called again, or after Close")
	}
	s.ran = true
	beside, stop := context.WithCancel(ctx)
	var others sync.WaitGroup
	others.Go(func() {
		select {
		case <-s.loops.Ready():
			var watching sync.WaitGroup
			watching.Go(func() { s.watch(beside) })
			s.maintain(beside)
			watching.Wait()
		case <-beside.Done():
		}
	})
	others.Go(func() { s.watched.follow(beside, s.loops.Ready()) })
	others.Go(func() { s.tls.follow(beside, s.o.Reload, s.o.Log) })
	err := s.loops.Run(ctx)
	stop()
	others.Wait()
	return err
}

// Close releases the directory and the port. Run must not be under way. It does
// nothing when it is called again.
func (s *Server) Close() error {
	errs := []error{s.watched.close()}
	switch {
	case s.ran:
	case s.loops != nil:
		errs = append(errs, s.loops.Close())
	case s.o.Network.Listener != nil:
		errs = append(errs, s.o.Network.Listener.Close())
	}
	s.ran, s.watched = true, nil
	if s.registry != nil {
		errs = append(errs, s.registry.Close())
		s.registry = nil
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
		s.store = nil
	}
	return errors.Join(errs...)
}
