package eventloop

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"go.uber.org/zap"

	"sealift/session"
)

// Options configure a Server. Service, with a Registry, and Log are needed; for
// the rest zero means the default.
type Options struct {
	// Addr is where to listen, host:port. Port 0 takes a free one.
	Addr string
	// Listener, unless it is nil, is where connections come from instead: one that the
	// process was given. The server closes it.
	Listener *net.TCPListener

	Service *session.Service
	Log     *zap.Logger

	// Loops is how many event loops there are. Default: one for each two cores,
	// at least one: most of the work is the workers'.
	Loops int
	// Workers is how many goroutines decrypt and write. Default: 4 for each
	// core, because they wait for the disk half of the time.
	Workers int

	Limits

	// MemoryBudget bounds the bytes of content in buffers, over all
	// connections. A quarter of it comes on top for packets that arrive before
	// their turn, and for what is read before it is known whose it is. Default
	// 64 MiB, least 2 MiB.
	MemoryBudget int64

	// TLS is how connections are protected. Default: all are plain.
	TLS *TLS

	// Alive, if not nil, is called twice a second as long as all loops and the acceptor
	// answer, from a goroutine that it should not keep.
	Alive func()

	// ReplyDelay holds each reply back, for testing clients. Default: not at all.
	ReplyDelay time.Duration

	// For tests. noPause makes the server do as on systems where a connection
	// cannot be paused; listener and enroll put something in front of the real
	// ones; tick, patience, slowTime and shakeTime are others than usual.
	noPause  bool
	listener func(listener) listener
	enroll   func(enroll) enroll
	tick     time.Duration
	patience int64 // ticks that a loop may take to answer
	slowTime time.Duration
	// shakeTime is how long a TLS handshake may take.
	shakeTime time.Duration
}

// Limits are what connections may do. They may change while the server runs, see
// [Server.Limit]. Zero means the default.
type Limits struct {
	// MaxConnections is how many connections are served at once; the next one
	// gets 1607. Default 20,000. The caller sees to it that the limit of open files
	// allows as many, see [ShareDescriptors].
	MaxConnections int
	// MaxPerIP is the same for one address, or IPv6 network of 64 bits. Default:
	// any number while a quarter of MaxConnections is free, and then a quarter.
	MaxPerIP int

	// Proxies are the addresses from which connections must begin with a header of the
	// PROXY protocol. What it says is the client's address from then on, in all limits and in
	// the log. Default: none, and nobody looks for a header.
	Proxies []netip.Prefix

	// Rate is how many bytes a second all connections together may send, without what TLS
	// adds. Default: as many as they like.
	Rate int64

	// HandshakeTimeout is how long a connection may take until the server knows
	// whose it is, and any message but a 1028 until it is whole. Default 1 min.
	HandshakeTimeout time.Duration
	// IdleTimeout is how long a connection may be silent, an upload stand still,
	// and a client leave replies unread. Default 5 min.
	IdleTimeout time.Duration
	// DrainTimeout is how long Run waits, once its context has ended, for
	// transfers that are under way. Default 30 s.
	DrainTimeout time.Duration
}

// complete sets what is zero and has a default.
func (l *Limits) complete() {
	if l.MaxConnections <= 0 {
		l.MaxConnections = DefaultMaxConnections
	}
	setDefault(&l.HandshakeTimeout, DefaultHandshakeTimeout)
	setDefault(&l.IdleTimeout, DefaultIdleTimeout)
	setDefault(&l.DrainTimeout, DefaultDrainTimeout)
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d <= 0 {
		*d = to
	}
}

// Limit has other limits from now on. Any goroutine may call it. Times count for
// connections that are there, too, from when they began; none is ended because there
// are more than MaxConnections or MaxPerIP, but no other is admitted until there is room.
// A drain that has begun keeps its DrainTimeout.
func (s *Server) Limit(l Limits) {
	l.complete()
	s.limits.Store(&l)
	s.maxSealed.Store(max(minSealed, int64(l.MaxConnections)*restingSize))
	s.census.limit(l.MaxConnections, l.MaxPerIP)
	s.setRate(l.Rate)
}

// TLS is how connections are protected, on the same port as plain ones. Its functions
// may be called from any goroutine.
type TLS struct {
	// Config returns the configuration of the next handshake, which nobody changes,
	// and the function that tells what this handshake has shown about both ends; an
	// error of that ends the connection. They belong together: another call may
	// return another server's key.
	Config func() (*tls.Config, func(tls.ConnectionState) (session.Channel, error))
	// Require refuses plain connections with 1607.
	Require bool
	// MaxCertificate is how many bytes the client's certificate message may have. Default
	// 4 KiB.
	MaxCertificate int
}

// Defaults of Options.
const (
	DefaultMaxConnections   = 20_000
	DefaultMemoryBudget     = 64 << 20
	DefaultHandshakeTimeout = time.Minute
	DefaultIdleTimeout      = 5 * time.Minute
	DefaultDrainTimeout     = 30 * time.Second

	minMemoryBudget = 2 << 20
)

// DefaultLoops and DefaultWorkers are what Options takes on this machine.
func DefaultLoops() int   { return max(1, runtime.GOMAXPROCS(0)/2) }
func DefaultWorkers() int { return 4 * runtime.GOMAXPROCS(0) }

func (o *Options) complete() error {
	if o.Service == nil || o.Service.Registry == nil || o.Log == nil {
		return errors.New("eventloop: Service, with a Registry, and Log are needed")
	}
	for _, d := range []struct {
		value *int
		def   int
	}{
		{&o.Loops, DefaultLoops()},
		{&o.Workers, DefaultWorkers()},
	} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	setDefault(&o.tick, tickTime)
	if o.patience == 0 {
		o.patience = loopPatience
	}
	setDefault(&o.slowTime, slowTime)
	setDefault(&o.shakeTime, handshakeTime)
	if o.MemoryBudget == 0 {
		o.MemoryBudget = DefaultMemoryBudget
	}
	if o.TLS != nil {
		t := *o.TLS
		if err := t.complete(); err != nil {
			return err
		}
		o.TLS = &t
	}
	if o.MemoryBudget < minMemoryBudget {
		return fmt.Errorf("eventloop: a memory budget of %d bytes is too small, the least is %d", o.MemoryBudget, minMemoryBudget)
	}
	return nil
}
