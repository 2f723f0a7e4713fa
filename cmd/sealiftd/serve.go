package main

import (
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"sealift/codec"
	"sealift/eventloop"
	"sealift/internal/daemon"
	"sealift/internal/infofile"
	"sealift/internal/version"
	"sealift/session"
	"sealift/storage/files"
)

// byteSize is a flag in bytes, with units if one likes: 64MiB.
type byteSize int64

func (b *byteSize) String() string {
	if *b == 0 {
		return "0" // which help does not show as a default
	}
	return humanize.IBytes(uint64(*b))
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
	mode  *fs.FileMode
	owner fs.FileMode // what the server needs for itself
	def   fs.FileMode
}

func (m *fileMode) String() string {
	if m.mode == nil || *m.mode == 0 {
		return fmt.Sprintf("%04o", m.def)
	}
	return fmt.Sprintf("%04o", *m.mode)
}
func (*fileMode) Type() string { return "mode" }
func (m *fileMode) Set(s string) error {
	n, err := strconv.ParseUint(s, 8, 32)
	mode := fs.FileMode(n)
	switch {
	case err != nil || n > 0o777:
		return fmt.Errorf("want permissions in octal, such as %04o", m.def)
	case mode&m.owner != m.owner:
		return fmt.Errorf("want %04o in it, or the server could not use them itself", m.owner)
	}
	*m.mode = mode
	return nil
}

func serveCommand() *cobra.Command {
	cfg := daemon.Config{}
	var (
		budget    = byteSize(eventloop.DefaultMemoryBudget)
		maxFile   = byteSize(codec.MaxFileSize)
		unjudged  byteSize
		minFree   = byteSize(files.DefaultMinFree)
		fsync     string
		keyPolicy string
		level     string
		format    string
		addrFile  string
		faults    string
	)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Receive files until SIGTERM or SIGINT (the default)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cfg.Log, err = newLog(level, format); err != nil {
				return err
			}
			defer func() { _ = cfg.Log.Sync() }()
			if err := notNegative(cmd.Flags(), &cfg); err != nil {
				return err
			}
			ignoreHangups(cmd.Context(), cfg.Log)
			cfg.MemoryBudget, cfg.MaxFileSize, cfg.MaxUnverified = int64(budget), int64(maxFile), int64(unjudged)
			cfg.MinFree = int64(minFree)
			if cfg.Fsync, err = choice("fsync", fsync, "off", "on"); err != nil {
				return err
			}
			replace, err := choice("key-policy", keyPolicy, "pin", "replace")
			if err != nil {
				return err
			}
			if replace {
				cfg.KeyPolicy = session.ReplaceKey
			}
			if faults != "" {
				if cfg.Faults, err = session.ParseFaults(faults); err != nil {
					return err
				}
			}
			err = daemon.Run(cmd.Context(), cfg, func(addr *net.TCPAddr) {
				cfg.Log.Info("listening", zap.Stringer("address", addr), zap.String("dir", cfg.Dir), zap.String("version", version.Number()))
				if addrFile != "" {
					if err := infofile.Replace(addrFile, []byte(addr.String()+"\n"), 0o644); err != nil {
						cfg.Log.Error("writing the address", zap.Error(err))
					}
				}
			})
			if err == nil {
				cfg.Log.Info("stopped")
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&cfg.Dir, "dir", ".", "directory that holds port.info, defensive.db and files/")
	f.Var(&fileMode{&cfg.FileMode, 0o600, files.DefaultFileMode}, "file-mode", "permissions of stored files, in octal, whatever the umask is; those that are there stay as they are")
	f.Var(&fileMode{&cfg.DirMode, 0o700, files.DefaultDirMode}, "dir-mode", "the same for the folders that are made for them; files/ itself gets it without write for others")
	f.StringVar(&cfg.Listen, "listen", "", "address to listen on, host:port; port 0 takes a free one (default: the port in port.info, else 1256)")
	f.StringVar(&addrFile, "addr-file", "", "write the address to this file once connections are accepted")
	f.StringVar(&cfg.Registry, "registry", "sqlite", "where clients and files are recorded: sqlite, or memory, which forgets them at the end")
	f.StringVar(&fsync, "fsync", "on", "on: what was acknowledged survives a power cut; off: faster, it survives the end of the process")
	f.StringVar(&keyPolicy, "key-policy", "pin", "another public key for a client that has one: pin refuses it, replace takes it")
	f.IntVar(&cfg.MaxConnections, "max-connections", 0, "connections served at once; the next gets 1607 (default: 20,000, or what the limit of open files allows)")
	f.IntVar(&cfg.MaxPerIP, "max-connections-per-ip", 0, "the same for one address, or IPv6 network of 64 bits (default 0: any number while a quarter of all is free, then a quarter); behind a balancer, give the number of --max-connections")
	f.Float64Var(&cfg.RegisterRate, "register-rate", 50, "clients that may register from one address, a second, after a burst of 20 times as many; the next gets 1607; 0 is no limit")
	f.IntVar(&cfg.MaxUploads, "max-uploads-per-connection", session.DefaultMaxUploads, "transfers under way on one connection; the next gets 1607")
	f.Var(&maxFile, "max-file-size", "largest file taken; 1607 for a larger one")
	f.Var(&unjudged, "max-unverified", "what one client may have in the store without a verdict, in files and transfers under way, 4 KiB at least for each; 1607 for more (default: room for four files of --max-file-size)")
	f.Var(&minFree, "min-free", "room on the disk that content leaves free, so that verdicts and expiry can still be recorded; 1607 to content beyond; 0 is none")
	f.Var(&budget, "memory-budget", "memory for content on its way from the network to the disk; connections wait for it")
	f.DurationVar(&cfg.HandshakeTimeout, "handshake-timeout", eventloop.DefaultHandshakeTimeout, "time for a connection to say whose it is, and for a message to be whole")
	f.DurationVar(&cfg.IdleTimeout, "idle-timeout", eventloop.DefaultIdleTimeout, "time a connection may be silent, an upload stand still, replies stay unread")
	f.DurationVar(&cfg.DrainTimeout, "drain-timeout", eventloop.DefaultDrainTimeout, "time for transfers under way after SIGTERM or SIGINT")
	f.DurationVar(&cfg.UnverifiedTTL, "unverified-ttl", 24*time.Hour, "time after which a file without a verdict of its client is removed, at least 1m; 0 is never")
	f.IntVar(&cfg.Workers, "workers", 0, "goroutines that decrypt and write (default: 4 for each core)")
	f.IntVar(&cfg.Loops, "loops", 0, "event loops (default: 1 for each two cores)")
	f.StringVar(&faults, "fault", "", "misbehave on purpose, to test clients: crc=N,error=CODE:N,drop=CODE:N,reject=N,delay=TIME, N times or -1 for ever")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&format, "log-format", "auto", "console, json, or auto: console on a terminal")
	return cmd
}

// notNegative refuses numbers and times below zero, which no setting has a meaning
// for.
func notNegative(flags *pflag.FlagSet, cfg *daemon.Config) error {
	for flag, negative := range map[string]bool{
		"max-connections": cfg.MaxConnections < 0, "max-connections-per-ip": cfg.MaxPerIP < 0,
		"register-rate": !(cfg.RegisterRate >= 0), "max-uploads-per-connection": cfg.MaxUploads < 0,
		"handshake-timeout": cfg.HandshakeTimeout < 0, "idle-timeout": cfg.IdleTimeout < 0,
		"drain-timeout": cfg.DrainTimeout < 0, "unverified-ttl": cfg.UnverifiedTTL < 0,
		"workers": cfg.Workers < 0, "loops": cfg.Loops < 0,
	} {
		if negative {
			return fmt.Errorf("--%s %v: want 0 or more", flag, flags.Lookup(flag).Value)
		}
	}
	return nil
}

// choice reads a flag of two values: false for the first, true for the second.
func choice(flag, value, no, yes string) (bool, error) {
	switch value {
	case no:
		return false, nil
	case yes:
		return true, nil
	}
	return false, fmt.Errorf("--%s is %q: %s or %s", flag, value, no, yes)
}
