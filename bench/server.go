//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"sealift/bench/floor"
	"sealift/bench/goroutine"
	"sealift/eventloop"
	sealift "sealift/server"
	"sealift/session"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// The servers in Go run in a process of their own: this program, with the hidden
// command "server". They print their address, and end with their standard input.
// Until then they take commands there, one a line, and answer with a line.
const (
	commandFree    = "free"    // give back memory that is not in use
	commandProfile = "profile" // begin profiles; an argument: the files' path without extension
	commandEnd     = "end"     // end and write the profiles
)

// serverOptions are the flags of that command.
type serverOptions struct {
	dir         string
	fsync       bool
	connections int
	logLevel    string
	tls         bool   // it also serves protected connections
	fault       string // what a Sealift server does wrong, see session.ParseFaults
	registry    string // URL of a Sealift server's database; "": SQLite
	files       string // URL of its bucket; "": a directory
	servers     int    // how many Sealift servers there are on these
}

// args are the arguments of the command for a server of that kind.
func (o serverOptions) args(kind string) []string {
	args := []string{
		"server", kind, "--dir", o.dir, fmt.Sprintf("--fsync=%t", o.fsync),
		"--connections", fmt.Sprint(o.connections), "--log-level", o.logLevel, "--fault", o.fault,
	}
	// Servers of earlier commits do not know these.
	if o.tls {
		args = append(args, "--tls")
	}
	if o.registry != "" {
		args = append(args, "--registry", o.registry, "--files", o.files, "--servers", fmt.Sprint(o.servers))
	}
	return args
}

func serverCommand() *cobra.Command {
	var o serverOptions
	kinds := map[string]func(context.Context, serverOptions, func(net.Addr)) error{
		"sealift": serveSealift, "goroutine": serveGoroutine, "floor": serveFloor,
		"several": serveSeveral, "none": serveNone,
	}
	cmd := &cobra.Command{
		Use: "server KIND", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			serve := kinds[args[0]]
			if serve == nil {
				return fmt.Errorf("no such server: %q", args[0])
			}
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			return serve(ctx, o, func(addr net.Addr) {
				fmt.Println(addr)
				go obey(stop)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "")
	f.BoolVar(&o.fsync, "fsync", false, "")
	f.IntVar(&o.connections, "connections", 0, "")
	f.StringVar(&o.logLevel, "log-level", "warn", "")
	f.BoolVar(&o.tls, "tls", false, "")
	f.StringVar(&o.fault, "fault", "", "")
	f.StringVar(&o.registry, "registry", "", "")
	f.StringVar(&o.files, "files", "", "")
	f.IntVar(&o.servers, "servers", 0, "")
	return cmd
}

// obey carries out commands until the standard input ends, and then stops the
// server.
func obey(stop func()) {
	defer stop()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, arg, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch command {
		case commandFree:
			debug.FreeOSMemory()
		case commandProfile:
			err = beginProfile(arg)
		case commandEnd:
			err = endProfile(arg)
		default:
			err = errors.New("no such command")
		}
		if err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("ok")
		}
	}
}

func beginProfile(path string) error {
	f, err := os.Create(path + ".cpu")
	if err != nil {
		return err
	}
	runtime.SetMutexProfileFraction(100)
	return pprof.StartCPUProfile(f) // the file is closed with the process
}

func endProfile(path string) error {
	pprof.StopCPUProfile()
	var errs []error
	for _, name := range []string{"allocs", "mutex"} {
		f, err := os.Create(path + "." + name)
		if err == nil {
			err = errors.Join(pprof.Lookup(name).WriteTo(f, 0), f.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// newLog logs as sealiftd does, to nowhere: what a line costs is measured, a
// terminal's speed is not.
func newLog(level string) (*zap.Logger, error) {
	cfg := zap.NewProductionConfig()
	lv, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, err
	}
	cfg.Level = zap.NewAtomicLevelAt(lv)
	cfg.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	cfg.OutputPaths = []string{os.DevNull}
	cfg.DisableCaller, cfg.DisableStacktrace, cfg.Sampling = true, true, nil
	return cfg.Build()
}

// loopback is where the servers listen: any free port of this machine's own
// address.
const loopback = "127.0.0.1:0"

// spareConnections are those that a server may have beyond the load's.
const spareConnections = 100

func serveSealift(ctx context.Context, o serverOptions, started func(net.Addr)) error {
	log, err := newLog(o.logLevel)
	if err != nil {
		return err
	}
	most := o.connections + spareConnections
	return sealift.Serve(ctx, sealift.Options{
		Dir: o.dir, Log: log,
		Network:  sealift.Network{Listen: loopback, MaxConnections: most, MaxPerIP: most},
		TLS:      protection(o),
		Sessions: sealift.Sessions{Faults: o.fault},
		Storage:  sealift.Storage{Fsync: o.fsync, Registry: o.registry, Files: o.files},
	}, func(_ context.Context, s *sealift.Server) { started(s.Addr()) })
}

func protection(o serverOptions) sealift.TLS {
	if o.tls {
		return sealift.Defaults().TLS
	}
	return sealift.TLS{}
}

// serveGoroutine puts the goroutine server together from the same parts, with
// the same limits.
func serveGoroutine(ctx context.Context, o serverOptions, started func(net.Addr)) error {
	log, err := newLog(o.logLevel)
	if err != nil {
		return err
	}
	store, err := files.Open(o.dir, files.Options{Fsync: o.fsync})
	if err != nil {
		return err
	}
	defer store.Close()
	registry, err := sqlite.Open(ctx, filepath.Join(o.dir, sealift.DatabaseName), sqlite.Options{Fsync: o.fsync})
	if err != nil {
		return err
	}
	defer registry.Close()
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return err
	}
	started(l.Addr())
	return goroutine.Serve(ctx, l, goroutine.Options{
		Service:  session.NewService(session.Config{Files: store, Log: log}),
		Registry: registry, Log: log,
		Workers: eventloop.DefaultWorkers(), IdleTimeout: 5 * time.Minute,
		EarlyBudget: eventloop.DefaultMemoryBudget / 4,
	})
}

func serveFloor(ctx context.Context, o serverOptions, started func(net.Addr)) error {
	addr, err := freePort()
	if err != nil {
		return err
	}
	return floor.Serve(ctx, addr, o.dir, runtime.GOMAXPROCS(0), func() { started(addr) })
}

// freePort finds a port for a server that cannot say which one it took.
func freePort() (*net.TCPAddr, error) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return nil, err
	}
	return l.Addr().(*net.TCPAddr), l.Close()
}
