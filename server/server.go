// Package server puts a server together from its parts: storage, sessions and
// event loops. The commands, the tests and the benchmarks start the same one. What the
// other commands do in a server's directory is here as well, so that they need to know
// nothing of the parts: they list and verify, back up, steer clients (steer.go,
// delete.go), and take files away (take.go and the files that it names).
package server

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"sealift/admin"
	"sealift/eventloop"
	"sealift/events"
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
	name     string  // of this process, among the servers of a store
	o        Options // as Open has completed them; those that Apply changes are elsewhere
	store    fileStore
	folder   *files.Store // the store, where it is in the directory; nil: it is in a bucket
	registry storage.Registry
	unlock   func()          // gives the directory back that has no files; nil: they are in it
	lost     <-chan struct{} // closed when another server may have the registry; nil: it cannot
	release  func()          // gives that back; nil: there is nothing to give
	service  *session.Service
	tls      *protection // nil: all connections are plain
	loops    *eventloop.Server
	share    eventloop.Descriptors
	ttl      atomic.Int64  // Storage.UnverifiedTTL
	keepFor  atomic.Int64  // Storage.KeepFor
	clearDue chan struct{} // see lookForLeaving
	watched  *watched      // nil: there is no admin address
	events   *events.Teller
	webhook  *events.Webhook // nil: there is none
	partials *partials
	missing  int  // stored files that were not found
	ran      bool // loops has been run, and is closed

	applying sync.Mutex
	asked    Options // as they were asked for: by Open, and for what is live by Apply
}

// Serve opens a server, runs it until ctx ends and everything is drained, and
// closes it. started is called once connections are accepted, and may stay until its
// context ends, which the server's end waits for.
func Serve(ctx context.Context, o Options, started func(context.Context, *Server)) error {
	s, err := Open(ctx, o)
	if err != nil {
		return err
	}
	beside, stop := context.WithCancel(ctx)
	ended, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		select {
		case <-s.Ready():
			started(beside, s)
		case <-ended:
		}
	}()
	err = s.Run(ctx)
	stop()
	close(ended)
	<-told
	return errors.Join(err, s.Close())
}

// Open checks o, takes the directory, begins to listen, and puts in order what an
// earlier server left. Clients that connect wait until Run. After an error nothing is
// left open.
func Open(ctx context.Context, o Options) (*Server, error) {
	s := &Server{name: serverName(), asked: o}
	if err := o.complete(); err != nil {
		return nil, err
	}
	s.o = o
	s.ttl.Store(int64(o.Storage.UnverifiedTTL))
	s.keepFor.Store(int64(o.Storage.KeepFor))
	s.clearDue = make(chan struct{}, 1)
	s.partials = newPartials(&o.Storage)
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
	if err = checkMoved(o.Dir, o.Storage.Registry == registrySQLite, !o.Storage.inBucket()); err != nil {
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
	var targets []events.Target
	if targets, s.webhook, err = o.targets(); err != nil {
		return err
	}
	if err = s.shareDescriptors(); err != nil {
		return err
	}
	if err = s.openStores(ctx); err != nil {
		return err
	}
	s.service = s.newService(faults)
	if o.TLS.Cert == "" {
		// Here, since the directory is ours now, and is not another server's whose
		// database was lost.
		if s.tls, err = s.openOwnProtection(ctx); err != nil {
			return err
		}
	}
	if s.loops, err = s.newLoops(faults); err != nil {
		return err
	}
	if err = s.openEvents(ctx, targets); err != nil {
		return err
	}
	if err = s.openAdmin(); err != nil {
		return err
	}
	if err = s.warnOfPinned(ctx); err != nil {
		return err
	}
	if s.folder != nil {
		s.missing, err = s.recover(ctx)
	}
	return err
}

// shareDescriptors divides the limit of open files.
func (s *Server) shareDescriptors() (err error) {
	wanted := cmp.Or(s.o.Network.MaxConnections, eventloop.DefaultMaxConnections)
	limit := eventloop.OpenFileLimit()
	if limit != 0 {
		aside := s.o.Events.descriptors()
		if s.watched != nil {
			aside += admin.Descriptors
		}
		limit -= min(limit-1, uint64(aside))
	}
	s.share, err = eventloop.ShareDescriptors(limit, wanted, s.o.Machine.Loops, s.o.Machine.Workers)
	return err
}

func (s *Server) newService(faults *session.Faults) *session.Service {
	cfg := session.Config{
		Files: s.store, Registry: s.registry, Log: s.o.Log, Faults: faults,
		Limits: sessionLimits(&s.o.Sessions), Boot: s.partials.boot, Kept: s.partials.look,
		Shared: s.o.Storage.shared(), Server: s.name,
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

func (s *Server) newLoops(faults *session.Faults) (*eventloop.Server, error) {
	n, m := &s.o.Network, &s.o.Machine
	o := eventloop.Options{
		Addr: n.Listen, Listener: n.Listener, Alive: s.o.Alive, Service: s.service, Log: s.o.Log,
		Loops: m.Loops, Workers: m.Workers, MemoryBudget: m.MemoryBudget,
		Limits: loopLimits(n, s.connections(n)), TLS: s.tls.options(),
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

// AdminAddr is where the admin address answers, or nil if there is none.
func (s *Server) AdminAddr() *net.TCPAddr {
	if s.watched == nil {
		return nil
	}
	return s.watched.server.Addr()
}

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
			watching.Go(func() { s.alone(beside, s.eventsLock(), s.events.Run) })
			watching.Go(func() { s.alone(beside, lockSweep, s.sweep) })
			s.alone(beside, lockMaintenance, s.lookAfter)
			watching.Wait()
		case <-beside.Done():
		}
	})
	// Uploads go on while the server drains.
	draining, drained := context.WithCancel(context.WithoutCancel(ctx))
	others.Go(func() { s.renewLeases(draining) })
	if s.tls != nil {
		others.Go(func() { s.tls.follow(beside) })
	}
	s.watched.begin(beside)
	serving, end := context.WithCancelCause(ctx)
	others.Go(func() { s.endIfReplaced(draining, end) })
	err := s.loops.Run(serving)
	if cause := context.Cause(serving); errors.Is(cause, errReplaced) {
		err = errors.Join(cause, err)
	}
	end(nil)
	stop()
	drained()
	others.Wait()
	return err
}

// Close releases the directory and the port. Run must not be under way. It does
// nothing when it is called again.
func (s *Server) Close() error {
	s.removeAddress()
	errs := []error{s.watched.close()}
	switch {
	case s.ran:
	case s.loops != nil:
		errs = append(errs, s.loops.Close())
	case s.o.Network.Listener != nil:
		errs = append(errs, s.o.Network.Listener.Close())
	}
	s.ran, s.watched = true, nil
	if s.webhook != nil {
		s.webhook.Close()
	}
	if s.release != nil {
		s.release()
		s.release = nil
	}
	if s.registry != nil {
		errs = append(errs, s.registry.Close())
		s.registry = nil
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
		s.store, s.folder = nil, nil
	}
	if s.unlock != nil {
		s.unlock()
		s.unlock = nil
	}
	return errors.Join(errs...)
}
