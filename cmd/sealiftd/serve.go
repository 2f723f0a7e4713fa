package main

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"sealift/internal/infofile"
	"sealift/internal/version"
	"sealift/server"
)

// byteSize is a flag in bytes, with units if one likes: 64MiB.
type byteSize int64

func (b *byteSize) String() string {
	if *b == 0 {
		return "0" // which help does not show as a default
	}
	return humanize.IBytes(uint64(*b))
}

// exact is the size in the largest unit that it is a multiple of.
func (b *byteSize) exact() string {
	n, unit := int64(*b), 0
	for n != 0 && n%1024 == 0 && unit < 4 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + []string{"", "KiB", "MiB", "GiB", "TiB"}[unit]
}

func (*byteSize) Type() string { return "size" }

func (b *byteSize) Set(s string) error {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is no size in bytes, such as 64MiB", s)
	}
	*b = byteSize(n)
	return nil
}

// fileMode is a flag for the permissions of files or folders, in octal.
type fileMode struct {
	mode  *fs.FileMode // 0: the default
	owner fs.FileMode  // what the server needs for itself, which is also the default
}

func (m *fileMode) String() string {
	if m.mode == nil {
		return ""
	}
	return fmt.Sprintf("%04o", cmp.Or(*m.mode, m.owner))
}
func (*fileMode) Type() string { return "mode" }
func (m *fileMode) Set(s string) error {
	n, err := strconv.ParseUint(s, 8, 32)
	mode := fs.FileMode(n)
	switch {
	case err != nil || n > 0o777:
		return fmt.Errorf("want permissions in octal, such as %04o", m.owner)
	case mode&m.owner != m.owner:
		return fmt.Errorf("want %04o in it, or the server could not use them itself", m.owner)
	}
	*m.mode = mode
	return nil
}

// choice is a flag of two words, one for false and one for true.
type choice struct {
	value   *bool
	no, yes string
}

func (c *choice) String() string {
	if c.value != nil && *c.value {
		return c.yes
	}
	return c.no
}
func (*choice) Type() string { return "string" }
func (c *choice) Set(s string) error {
	if s != c.no && s != c.yes {
		return fmt.Errorf("want %s or %s", c.no, c.yes)
	}
	*c.value = s == c.yes
	return nil
}

// serveFlags are what a server can be told. check is what serve finds wrong with them
// before it does anything.
type serveFlags struct {
	options                 server.Options
	level, format, addrFile string
}

func (s *serveFlags) check() error {
	if _, _, err := newLog(s.level, s.format); err != nil {
		return err
	}
	return s.options.Check()
}

func serveCommand() (*cobra.Command, *serveFlags) {
	sf := &serveFlags{options: server.Defaults()}
	o := &sf.options
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Receive files until SIGTERM or SIGINT (the default)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := sf.check(); err != nil {
				return locate(cmd.Flags(), err)
			}
			var level zap.AtomicLevel
			if o.Log, level, err = newLog(sf.level, sf.format); err != nil {
				return err
			}
			defer func() { _ = o.Log.Sync() }()
			if o.Network.Listener, err = passedListener(); err != nil {
				return err
			}
			m := newManager(o.Log)
			o.Alive = m.alive
			reloads := newReloader(cmd.Flags(), level, o.Log, m)
			err = server.Serve(cmd.Context(), *o, func(ctx context.Context, s *server.Server) {
				addr := s.Addr()
				o.Log.Info("listening", zap.Stringer("address", addr), zap.String("dir", o.Dir), zap.String("version", version.Number()))
				if sf.addrFile != "" {
					if err := infofile.Replace(sf.addrFile, []byte(addr.String()+"\n"), 0o644); err != nil {
						o.Log.Error("writing the address", zap.Error(err))
					}
				}
				m.ready(cmd.Context())
				reloads.run(ctx, s)
			})
			if err == nil {
				o.Log.Info("stopped")
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	n, p, c, s, m, a, e := &o.Network, &o.TLS, &o.Sessions, &o.Storage, &o.Machine, &o.Admin, &o.Events
	f.String(configFlag, "", "YAML file with lines of NAME: VALUE for flags that neither the command line nor the environment sets")
	f.StringVar(&o.Dir, "dir", ".", "directory that holds port.info, defensive.db, files/ and tls/")
	f.Var(&fileMode{&s.FileMode, 0o600}, "file-mode", "permissions of stored files in --dir, in octal, whatever the umask is; those that are there stay as they are")
	f.Var(&fileMode{&s.DirMode, 0o700}, "dir-mode", "the same for the folders that are made for them; files/ itself gets it without write for others")
	f.StringVar(&n.Listen, "listen", n.Listen, "address to listen on, host:port; port 0 takes a free one (default: the port in port.info, else 1256)")
	f.StringVar(&sf.addrFile, "addr-file", "", "write the address to this file once connections are accepted")
	f.StringVar(&p.Mode, "tls", p.Mode, "protected connections, on the same port: allow serves plain ones too, require answers those with 1607, off serves no others")
	f.StringVar(&p.Cert, "tls-cert", "", "PEM file with the certificate of this server and those above it (default: one that is made at the first start, in tls/)")
	f.StringVar(&p.Key, "tls-key", "", "PEM file with its private key; changed files are taken up within a minute, or at a SIGHUP")
	f.StringVar(&p.Clients, "tls-clients", p.Clients, "certificates of clients: pin takes the Ed25519 key in one as that of its client id; ca wants one of --tls-client-ca, for the user name in it; any asks for none")
	f.StringVar(&p.ClientCA, "tls-client-ca", "", "PEM file with the authorities for --tls-clients ca")
	f.StringVar(&s.Registry, "registry", s.Registry, "where clients and files are recorded: sqlite, postgres://USER@HOST/DATABASE, or memory, which forgets them at the end")
	f.StringVar(&s.Files, "files", "", "bucket for the files, s3://BUCKET/PREFIX?endpoint=URL; with --registry postgres://… any number of servers share both (default: files/ in --dir)")
	f.Var(&choice{&s.Fsync, "off", "on"}, "fsync", "on: what was acknowledged survives a power cut; off: faster, it survives the end of the process")
	f.Var(&choice{&c.ReplaceKeys, "pin", "replace"}, "key-policy", "another public key for a client that has one: pin refuses it, replace takes it")
	f.Var(&choice{&c.Closed, "open", "closed"}, "registration", "who may register: open is anybody, closed those whose name sealiftd client add has added; 1601 for others")
	f.IntVar(&n.MaxConnections, "max-connections", n.MaxConnections, "connections served at once; the next gets 1607 (default: 20,000, or what the limit of open files allows)")
	f.IntVar(&n.MaxPerIP, "max-connections-per-ip", n.MaxPerIP, "the same for one address, or IPv6 network of 64 bits (default 0: any number while a quarter of all is free, then a quarter); behind a balancer without --proxy-protocol, give the number of --max-connections")
	f.BoolVar(&n.ProxyProtocol, "proxy-protocol", false, "connections from --trusted-proxies begin with a header of the PROXY protocol, version 1 or 2, that names the client's address; others are served without, and refused with one")
	f.StringSliceVar(&n.TrustedProxies, "trusted-proxies", nil, "address or network of proxies that --proxy-protocol believes, such as 192.0.2.1 or 10.1.0.0/16; may be given several times, or with commas")
	f.Float64Var(&c.RegisterRate, "register-rate", c.RegisterRate, "clients that may register from one address, a second, after a burst of 20 times as many; the next gets 1607; 0 is no limit")
	f.IntVar(&c.MaxUploads, "max-uploads-per-connection", c.MaxUploads, "transfers under way on one connection; the next gets 1607")
	f.Var((*byteSize)(&c.MaxFileSize), "max-file-size", "largest file taken; 1607 for a larger one; more than 4GiB comes from clients that send it in segments")
	f.Var((*byteSize)(&c.MaxUnverified), "max-unverified", "what one client may have in the store without a verdict, in files and transfers under way, 4 KiB at least for each; 1607 for more (default: room for four files of --max-file-size)")
	f.Var((*byteSize)(&c.QuotaBytes), "quota-bytes", "what one client may have stored and waiting together, unless sealiftd client quota says otherwise; 1607 to a file that goes beyond it; 0 is no limit")
	f.Int64Var(&c.QuotaFiles, "quota-files", c.QuotaFiles, "the same in files")
	f.Var((*byteSize)(&n.LimitRate), "limit-rate", "bytes a second that are read from all connections together; 0 is no limit")
	f.Var((*byteSize)(&s.MinFree), "min-free", "room that content leaves free on the disk of --dir, so that verdicts and expiry can still be recorded; 1607 to content beyond; 0 is none")
	f.Var((*byteSize)(&m.MemoryBudget), "memory-budget", "memory for content on its way from the network to the disk; connections wait for it")
	f.DurationVar(&n.HandshakeTimeout, "handshake-timeout", n.HandshakeTimeout, "time for a connection to say whose it is, and for a message to be whole")
	f.DurationVar(&n.IdleTimeout, "idle-timeout", n.IdleTimeout, "time a connection may be silent, an upload stand still, replies stay unread")
	f.DurationVar(&n.DrainTimeout, "drain-timeout", n.DrainTimeout, "time for transfers under way after SIGTERM or SIGINT")
	f.DurationVar(&s.UnverifiedTTL, "unverified-ttl", s.UnverifiedTTL, "time after which a file without a verdict of its client is removed, at least 1m; 0 is never")
	f.DurationVar(&s.PartialTTL, "partial-ttl", s.PartialTTL, "time after which what came of a file before its connection was cut is removed, if its client does not go on; 0 is never")
	f.Var((*byteSize)(&s.PartialBudget), "partial-budget", "room for such partial files in all; of more the oldest go, but not the newest of a client (default: a tenth of the disk; with --files any)")
	f.DurationVar(&s.KeepFor, "keep-for", s.KeepFor, "time after which a verified file is removed, counted from its arrival, unless sealiftd client keep-for says otherwise; 0 is never")
	f.IntVar(&m.Workers, "workers", m.Workers, "goroutines that decrypt and write (default: 4 for each core, with --files 32 at least)")
	f.IntVar(&m.Loops, "loops", m.Loops, "event loops (default: 1 for each two cores)")
	f.StringVar(&c.Faults, "fault", c.Faults, "misbehave on purpose, to test clients: crc=N, error=CODE:N, drop=CODE:N, reject=N, delay=TIME, cut=BYTES:N, with commas between; N times or -1 for ever")
	f.StringVar(&a.Listen, "admin", "", "address for a live page, health, metrics and profiles, host:port, such as 127.0.0.1:9256; port 0 takes a free one, which the log names (default: none)")
	f.StringVar(&a.TokenFile, "admin-token-file", "", "file with a token, 16 bytes or more, that the page and profiles need; beyond the loopback all that --admin answers needs it, and goes over TLS")
	f.StringSliceVar(&a.Hosts, "admin-host", nil, "name by which requests may ask for --admin, besides localhost and its address; may be given several times")
	f.StringVar(&e.Command, "on-event", "", "program, with arguments, that is run for each event, with JSON on standard input and SEALIFT_EVENT_… in the environment; words and quotes as in a shell, but no shell (default: none)")
	f.StringVar(&e.URL, "event-url", "", "URL that each event is sent to, as a CloudEvent (default: none)")
	f.StringVar(&e.SecretFile, "event-secret-file", "", "file with the secrets that sign what is sent to --event-url, in base64, one a line")
	f.DurationVar(&e.TTL, "event-ttl", e.TTL, "time after which an event is dropped that was not accepted; 0 is never")
	f.IntVar(&e.Max, "event-max", e.Max, "events that may wait for the program or the URL; beyond that the oldest are dropped; 0 is any number")
	f.DurationVar(&e.Retry, "event-retry", e.Retry, "time after which an event that was not accepted is told again; doubled each time, up to 1h")
	f.DurationVar(&e.Timeout, "event-timeout", e.Timeout, "time for the program to end, or for the answer of the URL")
	f.IntVar(&e.Parallel, "event-parallel", e.Parallel, "programs, or requests, at once; events of one client always go one after the other")
	f.StringVar(&sf.level, levelFlag, "info", "debug, info, warn or error")
	f.StringVar(&sf.format, "log-format", "auto", "console, json, or auto: console on a terminal")
	return cmd, sf
}
