package server

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"

	"go.uber.org/zap"

	"sealift/admin"
	"sealift/codec"
	"sealift/eventloop"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/files"
)

// Options are all that can be set about a server, by the part that they configure.
// Dir and Log are needed. Zero means the default where a default is named; what
// `sealiftd serve` does without flags is [Defaults].
type Options struct {
	Dir string // holds port.info, the database, files/ and tls/
	Log *zap.Logger
	// Alive, unless it is nil, is called about twice a second while the server answers; see
	// eventloop.Options.
	Alive func()

	Network  Network
	TLS      TLS
	Sessions Sessions
	Storage  Storage
	Machine  Machine
	Admin    Admin
	Events   Events
	Testing  Testing
}

// Network is about connections.
type Network struct {
	Listen         string           // host:port, where port 0 takes a free one; default: the port in port.info, else 1256
	Listener       *net.TCPListener // in the place of Listen: a socket that the process was given
	MaxConnections int              // served at once. Default: 20,000, or what the limit of open files allows
	MaxPerIP       int              // the same for one address, or IPv6 network of 64 bits; see eventloop.Options

	// ProxyProtocol has each connection from one of TrustedProxies, addresses or networks,
	// say first whose it is.
	ProxyProtocol  bool
	TrustedProxies []string

	LimitRate        int64         // bytes a second that all connections together may send; 0: no bound
	HandshakeTimeout time.Duration // default 1 min
	IdleTimeout      time.Duration // default 5 min
	DrainTimeout     time.Duration // default 30 s
}

// TLS is about protected connections. Files that change are taken up while the server
// runs.
type TLS struct {
	Mode      string // "allow", "require" or "off". Default: off
	Cert, Key string // PEM files; "" both: made in Dir at the first start
	Clients   string // "pin", "ca" or "any". Default: pin
	ClientCA  string // PEM file, with "ca"
}

// Sessions is about what clients may do.
type Sessions struct {
	ReplaceKeys   bool    // another public key for a client takes the place of the first. Default: it is refused
	Closed        bool    // only clients whose name was added register. Default: anybody may
	RegisterRate  float64 // clients a second that may register from one address; 0: no bound
	MaxUploads    int     // under way on one connection. Default 16
	MaxFileSize   int64   // bytes. Default: what one transfer carries; larger files come in segments
	MaxUnverified int64   // bytes that one client may have without a verdict. Default: room for four files of MaxFileSize
	QuotaBytes    int64   // that one client may have stored, unless it has a quota of its own; 0: no bound
	QuotaFiles    int64   // the same in files
	// Faults make the server misbehave on purpose, to test clients; see
	// session.ParseFaults. "" is none.
	Faults string
}

// Storage is about what is stored.
type Storage struct {
	// Registry is "sqlite", "memory", or the URL of a PostgreSQL, postgres://…. Default sqlite.
	Registry string
	// Files is the URL of a bucket, s3://…. "": content is in Dir.
	Files   string
	Fsync   bool  // what was acknowledged survives a power cut
	MinFree int64 // bytes that content leaves on the disk; 0: none
	// FileMode and DirMode are the permissions of what is stored, see files.Options.
	// Default: 0600 and 0700.
	FileMode, DirMode fs.FileMode
	// UnverifiedTTL is how long a file waits for its verdict; 0: for ever.
	UnverifiedTTL time.Duration
	// PartialTTL is how long a partial file waits for its client to go on; 0: for ever.
	PartialTTL time.Duration
	// PartialBudget is how many bytes all partial files may have. Default: a tenth of the disk.
	PartialBudget int64
	// KeepFor is how long verified files are kept, unless their client has a time of its
	// own; 0: for ever.
	KeepFor time.Duration
}

// Machine is about what the server takes of the machine.
type Machine struct {
	MemoryBudget int64 // bytes for content on its way to the disk. Default 64 MiB
	Workers      int   // goroutines that decrypt and write. Default: 4 for each core, and with a bucket 32 at least
	Loops        int   // event loops. Default: 1 for each two cores
}

// Testing is for tests of the server. Zero is the real thing.
type Testing struct {
	// Folding is what the store takes its disk to do with names.
	Folding *files.Folding
	// DiskFaults see each step that the store takes on its disk, and may make it
	// fail.
	DiskFaults *files.Faults
	// WrapFiles puts something between the sessions and the store: a disk that is
	// slow, or fails.
	WrapFiles func(storage.Files) storage.Files
	// Lease is how long a lease lasts, ReapAfter how long after its end it is reaped, and
	// SweepEvery how often content is looked for that no record names. Default: 5 min, 1 h, 1 h.
	Lease, ReapAfter, SweepEvery time.Duration
	// Patience is how long a request to a bucket is repeated. Default: 30 s.
	Patience time.Duration
}

// Defaults returns the options of a server that is told nothing but its directory
// and log.
func Defaults() Options {
	return Options{
		Network: Network{
			HandshakeTimeout: eventloop.DefaultHandshakeTimeout,
			IdleTimeout:      eventloop.DefaultIdleTimeout,
			DrainTimeout:     eventloop.DefaultDrainTimeout,
		},
		TLS: TLS{Mode: tlsAllow, Clients: clientsPin},
		Sessions: Sessions{
			RegisterRate: 50,
			MaxUploads:   session.DefaultMaxUploads,
			MaxFileSize:  codec.MaxFileSize,
		},
		Storage: Storage{
			Registry: registrySQLite, Fsync: true,
			MinFree: files.DefaultMinFree, UnverifiedTTL: 24 * time.Hour, PartialTTL: 24 * time.Hour,
		},
		Machine: Machine{MemoryBudget: eventloop.DefaultMemoryBudget},
		Events: Events{
			TTL: defaultEventTTL, Max: defaultEventMax, Retry: defaultEventRetry, Timeout: defaultEventTimeout, Parallel: defaultEventParallel,
		},
	}
}

// Values of TLS.Mode and of TLS.Clients.
const (
	tlsAllow   = "allow"
	tlsRequire = "require"
	tlsOff     = "off"

	clientsPin = "pin"
	clientsCA  = "ca"
	clientsAny = "any"
)

// Check returns what Open would find wrong with o before it looks at the directory.
// Log may be nil.
func (o Options) Check() error {
	o.Log = zap.NewNop()
	return o.complete()
}

// CheckFiles returns what Open would find wrong with Dir, and with the files that o names.
// It changes nothing.
func (o Options) CheckFiles() error {
	o.Log = zap.NewNop()
	if err := cmp.Or(o.complete(), checkDir(o.Dir), o.TLS.checkAuthorities()); err != nil {
		return err
	}
	if o.Sessions.Faults != "" {
		if _, err := session.ParseFaults(o.Sessions.Faults); err != nil {
			return err
		}
	}
	if o.TLS.Mode != tlsOff && o.TLS.Cert != "" {
		if _, err := (&protection{o: o.TLS, log: o.Log}).load(); err != nil {
			return fmt.Errorf("--tls-cert %s: %w", o.TLS.Cert, err)
		}
	}
	if o.Admin.TokenFile != "" {
		if _, err := admin.ReadToken(o.Admin.TokenFile); err != nil {
			return err
		}
	}
	if err := o.Storage.check(); err != nil {
		return err
	}
	return o.Events.checkFiles()
}

// complete checks o and sets what is zero and has a default. It names options by
// their flags.
func (o *Options) complete() error {
	if o.Log == nil {
		return fmt.Errorf("server: Options.Log is not set")
	}
	if err := o.checkNumbers(); err != nil {
		return err
	}
	if err := o.Network.checkProxies(); err != nil {
		return err
	}
	if ttl := o.Storage.UnverifiedTTL; ttl != 0 && ttl < session.MinUnverifiedTTL {
		return fmt.Errorf("--unverified-ttl %v is too short: want %v or more, or 0 to keep such files for ever", ttl, session.MinUnverifiedTTL)
	}
	if err := o.Storage.complete(); err != nil {
		return err
	}
	if err := o.TLS.complete(); err != nil {
		return err
	}
	if err := o.Admin.complete(o.TLS.Mode); err != nil {
		return err
	}
	if err := o.Events.complete(); err != nil {
		return err
	}
	if o.Machine.Workers == 0 {
		o.Machine.Workers = eventloop.DefaultWorkers()
		if o.Storage.inBucket() {
			o.Machine.Workers = max(o.Machine.Workers, bucketWorkers)
		}
	}
	if o.Machine.Loops == 0 {
		o.Machine.Loops = eventloop.DefaultLoops()
	}
	return nil
}

// complete checks t and sets what is zero and has a default.
func (t *TLS) complete() error {
	t.Mode, t.Clients = cmp.Or(t.Mode, tlsOff), cmp.Or(t.Clients, clientsPin)
	switch {
	case t.Mode != tlsAllow && t.Mode != tlsRequire && t.Mode != tlsOff:
		return fmt.Errorf("--tls %q: want allow, require or off", t.Mode)
	case t.Clients != clientsPin && t.Clients != clientsCA && t.Clients != clientsAny:
		return fmt.Errorf("--tls-clients %q: want pin, ca or any", t.Clients)
	case t.Mode == tlsOff && t.Cert+t.Key+t.ClientCA != "":
		return errors.New("--tls off with files for TLS: want allow or require, or no files")
	case t.Cert != "" && t.Key == "":
		return errors.New("--tls-cert without --tls-key: want both, or neither")
	case t.Cert == "" && t.Key != "":
		return errors.New("--tls-key without --tls-cert: want both, or neither")
	case t.Clients == clientsCA && t.ClientCA == "":
		return errors.New("--tls-clients ca without --tls-client-ca: want the file of the authorities")
	case t.Clients != clientsCA && t.ClientCA != "":
		return fmt.Errorf("--tls-client-ca with --tls-clients %s: want ca", t.Clients)
	case t.Clients == clientsCA && t.Mode != tlsRequire:
		return fmt.Errorf("--tls-clients ca with --tls %s: want require, a plain connection shows no certificate", t.Mode)
	}
	return nil
}

// checkNumbers refuses numbers and times below zero, which no option has a meaning
// for.
func (o *Options) checkNumbers() error {
	n, s, m := &o.Network, &o.Sessions, &o.Machine
	for _, v := range []struct {
		flag  string
		value any
		ok    bool
	}{
		{"max-connections", n.MaxConnections, n.MaxConnections >= 0},
		{"max-connections-per-ip", n.MaxPerIP, n.MaxPerIP >= 0},
		{"handshake-timeout", n.HandshakeTimeout, n.HandshakeTimeout >= 0},
		{"idle-timeout", n.IdleTimeout, n.IdleTimeout >= 0},
		{"drain-timeout", n.DrainTimeout, n.DrainTimeout >= 0},
		{"register-rate", s.RegisterRate, s.RegisterRate >= 0}, // not so for a NaN
		{"max-uploads-per-connection", s.MaxUploads, s.MaxUploads >= 0},
		{"max-file-size", s.MaxFileSize, s.MaxFileSize >= 0},
		{"max-unverified", s.MaxUnverified, s.MaxUnverified >= 0},
		{"quota-bytes", s.QuotaBytes, s.QuotaBytes >= 0},
		{"quota-files", s.QuotaFiles, s.QuotaFiles >= 0},
		{"limit-rate", n.LimitRate, n.LimitRate >= 0},
		{"keep-for", o.Storage.KeepFor, o.Storage.KeepFor >= 0},
		{"min-free", o.Storage.MinFree, o.Storage.MinFree >= 0},
		{"unverified-ttl", o.Storage.UnverifiedTTL, o.Storage.UnverifiedTTL >= 0},
		{"partial-ttl", o.Storage.PartialTTL, o.Storage.PartialTTL >= 0},
		{"partial-budget", o.Storage.PartialBudget, o.Storage.PartialBudget >= 0},
		{"memory-budget", m.MemoryBudget, m.MemoryBudget >= 0},
		{"workers", m.Workers, m.Workers >= 0},
		{"loops", m.Loops, m.Loops >= 0},
	} {
		if !v.ok {
			return fmt.Errorf("--%s %v: want 0 or more", v.flag, v.value)
		}
	}
	return nil
}
