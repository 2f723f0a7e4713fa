package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sealift/client"
	"sealift/codec"
	"sealift/storage"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

// options are those of a server in dir, on a port of its own.
func options(dir string) Options {
	return Options{Dir: dir, Log: zap.NewNop(), Network: Network{Listen: "127.0.0.1:0"}}
}

// open opens a server, which must succeed, and closes it when the test ends.
func open(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// run runs a server until the returned function is called, which waits for its end.
func run(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatalf("Run: %v", err)
	}
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// send has a client of that name store a file.
func send(t *testing.T, addr net.Addr, name string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := client.Options{Server: addr.String(), Name: name, Identity: client.IdentityFile(filepath.Join(t.TempDir(), "me.info"))}
	if _, err := client.Run(t.Context(), o, []client.File{{Path: file}}, nil); err != nil {
		t.Fatalf("sending: %v", err)
	}
}

// record makes a database in dir with n files on record that are not there.
func record(t *testing.T, dir string, n int) {
	t.Helper()
	reg, err := sqlite.Open(t.Context(), filepath.Join(dir, DatabaseName), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := codec.ClientID{1}
	ops := []storage.Operation{&storage.AddClient{ID: id, Name: "anna"}}
	for i := range n {
		key, path := fmt.Sprintf("%032x", i), fmt.Sprint("file ", i)
		ops = append(ops, &storage.PutFile{File: storage.File{ID: id, FileName: path, Path: path, Incoming: key, Size: 1, Received: time.Now()}},
			&storage.VerifyFile{ID: id, Path: path, Incoming: key})
	}
	if err := errors.Join(reg.Apply(t.Context(), ops), reg.Close()); err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		if err := op.Result().Err; err != nil {
			t.Fatal(err)
		}
	}
}

// Options without a sense are refused by the name of their flag, before anything is
// made.
func TestOptionsWithoutSense(t *testing.T) {
	for want, set := range map[string]func(*Options){
		"--max-connections -1: want 0 or more":            func(o *Options) { o.Network.MaxConnections = -1 },
		"--max-connections-per-ip -1: want 0 or more":     func(o *Options) { o.Network.MaxPerIP = -1 },
		"--proxy-protocol without --trusted-proxies":      func(o *Options) { o.Network.ProxyProtocol = true },
		`--trusted-proxies "proxy": want addresses`:       func(o *Options) { o.Network.TrustedProxies = []string{"127.0.0.1", "proxy"} },
		`--trusted-proxies "10.0.0.0/33": want addresses`: func(o *Options) { o.Network.TrustedProxies = []string{"10.0.0.0/33"} },
		`--trusted-proxies "::ffff:10.0.0.0/104": want`:   func(o *Options) { o.Network.TrustedProxies = []string{"::ffff:10.0.0.0/104"} },
		"--handshake-timeout -1s: want 0 or more":         func(o *Options) { o.Network.HandshakeTimeout = -time.Second },
		"--idle-timeout -1s: want 0 or more":              func(o *Options) { o.Network.IdleTimeout = -time.Second },
		"--drain-timeout -1s: want 0 or more":             func(o *Options) { o.Network.DrainTimeout = -time.Second },
		"--register-rate NaN: want 0 or more":             func(o *Options) { o.Sessions.RegisterRate = math.NaN() },
		"--max-uploads-per-connection -1: want 0 or more": func(o *Options) { o.Sessions.MaxUploads = -1 },
		"--max-file-size -1: want 0 or more":              func(o *Options) { o.Sessions.MaxFileSize = -1 },
		"--quota-bytes -1: want 0 or more":                func(o *Options) { o.Sessions.QuotaBytes = -1 },
		"--quota-files -1: want 0 or more":                func(o *Options) { o.Sessions.QuotaFiles = -1 },
		"--limit-rate -1: want 0 or more":                 func(o *Options) { o.Network.LimitRate = -1 },
		"--keep-for -1s: want 0 or more":                  func(o *Options) { o.Storage.KeepFor = -time.Second },
		"--max-unverified -1: want 0 or more":             func(o *Options) { o.Sessions.MaxUnverified = -1 },
		"--min-free -1: want 0 or more":                   func(o *Options) { o.Storage.MinFree = -1 },
		"--unverified-ttl -1s: want 0 or more":            func(o *Options) { o.Storage.UnverifiedTTL = -time.Second },
		"--unverified-ttl 59s is too short: want 1m0s":    func(o *Options) { o.Storage.UnverifiedTTL = 59 * time.Second },
		`--registry "postgres": want sqlite, memory or`:   func(o *Options) { o.Storage.Registry = "postgres" },
		"--registry: it is not a URL":                     func(o *Options) { o.Storage.Registry = "postgres://anna:a%zz@host" },
		`--files "/srv": want s3://`:                      func(o *Options) { o.Storage.Files = "/srv" },
		"--files: bucket \"\"":                            func(o *Options) { o.Storage.Files = "s3:///x" },
		"--files with --registry memory":                  func(o *Options) { o.Storage.Registry, o.Storage.Files = "memory", "s3://b" },
		"--file-mode or --dir-mode with --files":          func(o *Options) { o.Storage.DirMode, o.Storage.Files = 0o750, "s3://b" },
		"--memory-budget -1: want 0 or more":              func(o *Options) { o.Machine.MemoryBudget = -1 },
		"--workers -1: want 0 or more":                    func(o *Options) { o.Machine.Workers = -1 },
		"--loops -1: want 0 or more":                      func(o *Options) { o.Machine.Loops = -1 },
		`--tls "on": want allow, require or off`:          func(o *Options) { o.TLS.Mode = "on" },
		`--tls-clients "all": want pin, ca or any`:        func(o *Options) { o.TLS.Clients = "all" },
		"--tls off with files for TLS":                    func(o *Options) { o.TLS = TLS{Cert: "c", Key: "k"} },
		"--tls-cert without --tls-key":                    func(o *Options) { o.TLS = TLS{Mode: "allow", Cert: "c"} },
		"--tls-key without --tls-cert":                    func(o *Options) { o.TLS = TLS{Mode: "allow", Key: "k"} },
		"--tls-clients ca without --tls-client-ca":        func(o *Options) { o.TLS = TLS{Mode: "require", Clients: "ca"} },
		"--tls-client-ca with --tls-clients pin: want ca": func(o *Options) { o.TLS = TLS{Mode: "allow", ClientCA: "f"} },
		"--tls-clients ca with --tls allow: want require": func(o *Options) { o.TLS = TLS{Mode: "allow", Clients: "ca", ClientCA: "f"} },
		"--event-ttl -1s: want 0 or more":                 func(o *Options) { o.Events.TTL = -time.Second },
		"--event-max -1: want 0 or more":                  func(o *Options) { o.Events.Max = -1 },
		"--event-retry -1s: want 0 or more":               func(o *Options) { o.Events.Retry = -time.Second },
		"--event-retry 2h0m0s: want 1h0m0s or less":       func(o *Options) { o.Events.Retry = 2 * time.Hour },
		"--event-timeout -1s: want 0 or more":             func(o *Options) { o.Events.Timeout = -time.Second },
		"--event-parallel 257: want 256 or less":          func(o *Options) { o.Events.Parallel = 257 },
		"--event-url: want http":                          func(o *Options) { o.Events.URL = "ftp://x" },
		"--event-secret-file without --event-url":         func(o *Options) { o.Events.SecretFile = "x" },
		"--event-secret-file: open":                       func(o *Options) { o.Events.URL, o.Events.SecretFile = "http://x", "/none" },
		"--on-event: a quote is not closed":               func(o *Options) { o.Events.Command = "x 'y" },
		"--on-event: exec: \"/none/x\"":                   func(o *Options) { o.Events.Command = "/none/x y" },
		`fault "crc": `:                                   func(o *Options) { o.Sessions.Faults = "crc" },
		"Log is not set":                                  func(o *Options) { o.Log = nil },
		"does not exist":                                  func(o *Options) { o.Dir = filepath.Join(o.Dir, "none") },
	} {
		t.Run(want, func(t *testing.T) {
			dir := t.TempDir()
			o := options(dir)
			set(&o)
			s, err := Open(t.Context(), o)
			if s != nil || err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Open: %v, %v", s, err)
			}
			if made, err := os.ReadDir(dir); len(made) != 0 || err != nil {
				t.Errorf("made %v, %v", made, err)
			}
		})
	}
}

// Options that contradict what is in the directory are refused, and what is there
// stays.
func TestMemoryBesideADatabase(t *testing.T) {
	dir := t.TempDir()
	record(t, dir, 1)
	o := options(dir)
	o.Storage.Registry = "memory"
	_, err := Open(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "--registry memory beside ") || Hint(err) == "" {
		t.Errorf("Open: %v, hint %q", err, Hint(err))
	}
	if !hasFile(t, dir) {
		t.Error("the database lost its file")
	}
}

// hasFile reports whether there is a file on record in dir.
func hasFile(t *testing.T, dir string) bool {
	t.Helper()
	r, err := OpenReadOnly(t.Context(), Stores{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	if err := r.Files(t.Context(), func(File) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n > 0
}

// A server with the defaults of the command starts and stores a file.
func TestDefaults(t *testing.T) {
	o := Defaults()
	o.Dir, o.Log, o.Network.Listen = t.TempDir(), zap.NewNop(), "127.0.0.1:0"
	o.Storage.MinFree = 0 // the test's disk may have less
	s := open(t, o)
	stop := run(t, s)
	send(t, s.Addr(), "anna")
	stop()
	if !hasFile(t, o.Dir) {
		t.Error("the file is not on record")
	}
}

// A folder has one server: the second is told, and the first goes on.
func TestTwoServersOnOneFolder(t *testing.T) {
	dir := t.TempDir()
	first := open(t, options(dir))
	stop := run(t, first)
	for range 2 {
		if s, err := Open(t.Context(), options(dir)); s != nil || !errors.Is(err, files.ErrLocked) {
			t.Errorf("the second server: %v, %v, want ErrLocked", s, err)
		}
	}
	send(t, first.Addr(), "anna")
	stop()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	stop = run(t, open(t, options(dir)))
	stop()
}

// An Open that fails on its way leaves neither directory nor port taken.
func TestOpenFailsHalfWay(t *testing.T) {
	for _, tc := range []struct {
		name   string
		spoil  func(t *testing.T, o *Options)
		mend   func(t *testing.T, o *Options)
		failed string
	}{
		{"the database is none", func(t *testing.T, o *Options) {
			write(t, o.Dir, DatabaseName, strings.Repeat("This is no database. ", 100))
		}, func(t *testing.T, o *Options) { remove(t, o.Dir, DatabaseName) }, "not an SQLite database"},
		{"the port is taken", func(t *testing.T, o *Options) {
			l, err := net.Listen("tcp", o.Network.Listen)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			o.Network.Listen = l.Addr().String()
		}, func(t *testing.T, o *Options) { o.Network.Listen = "127.0.0.1:0" }, "listen tcp"},
		{"the memory is too small", func(t *testing.T, o *Options) { o.Machine.MemoryBudget = 1 },
			func(t *testing.T, o *Options) { o.Machine.MemoryBudget = 0 }, "memory budget"},
		{"the files are gone", func(t *testing.T, o *Options) { record(t, o.Dir, 100) }, func(t *testing.T, o *Options) {
			if err := ForgetMissing(t.Context(), Stores{Dir: o.Dir}, false, func(File) {}); err != nil {
				t.Fatal(err)
			}
		}, "none of the 100 recorded files was found"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := options(t.TempDir())
			tc.spoil(t, &o)
			before := descriptors(t)
			if s, err := Open(t.Context(), o); s != nil || err == nil || !strings.Contains(err.Error(), tc.failed) {
				t.Fatalf("Open: %v, %v, want %q", s, err, tc.failed)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors are open, %d before", after, before)
			}
			tc.mend(t, &o)
			stop := run(t, open(t, o))
			stop()
		})
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// A server that is never run gives back what it has taken, and is closed once
// however often that is said.
func TestCloseWithoutRun(t *testing.T) {
	o := options(t.TempDir())
	s := open(t, o)
	o.Network.Listen = s.Addr().String()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("a closed server runs")
	}
	again := open(t, o)
	if got := again.Addr().String(); got != o.Network.Listen {
		t.Errorf("it listens on %s", got)
	}
}

// Serve tells the address once connections are accepted, and has closed everything
// when it returns.
func TestServe(t *testing.T) {
	o := options(t.TempDir())
	core, logged := observer.New(zap.WarnLevel)
	o.Log, o.Sessions.Faults = zap.New(core), "crc=1"
	ctx, stop := context.WithCancel(t.Context())
	err := Serve(ctx, o, func(beside context.Context, s *Server) {
		send(t, s.Addr(), "anna") // it tries again after the wrong checksum
		stop()
		<-beside.Done()
	})
	if err != nil {
		t.Errorf("Serve: %v", err)
	}
	if logged.FilterMessageSnippet("FAULT INJECTION IS ON").Len() != 1 || logged.FilterMessage("FAULT INJECTED").Len() != 1 {
		t.Errorf("logged %v", logged.All())
	}
	o.Sessions.Faults = ""
	open(t, o)
	if !hasFile(t, o.Dir) {
		t.Error("the file is not on record")
	}
}

// What is no server's directory is told of with what is missing in it, and nothing is
// made there.
func TestReadOnlyWhereThereIsNone(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(t *testing.T, dir string)
		want error
		hint string
	}{
		{"nothing", func(t *testing.T, dir string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
		}, nil, "Is the right disk mounted?"},
		{"empty", func(*testing.T, string) {}, fs.ErrNotExist, ""},
		{"another program's", func(t *testing.T, dir string) { write(t, dir, DatabaseName, strings.Repeat("x", 5000)) }, sqlite.ErrNotDatabase, ""},
		{"without its database", func(t *testing.T, dir string) {
			write(t, dir, "files/"+codec.ClientID{1}.String()+"/f", "x")
		}, ErrNoRecords, "Put it back from a backup"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "server")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			tc.make(t, dir)
			before, _ := os.ReadDir(dir)
			r, err := OpenReadOnly(t.Context(), Stores{Dir: dir})
			if r != nil || err == nil || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(Hint(err), tc.hint) {
				t.Errorf("%v, %v with hint %q, want %v with %q", r, err, Hint(err), tc.want, tc.hint)
			}
			if after, _ := os.ReadDir(dir); len(after) != len(before) {
				t.Errorf("there is %v, there was %v", after, before)
			}
		})
	}
}

// Clients, files and their content can be looked at beside a server that runs, and
// after it.
func TestReadOnlyBesideAServer(t *testing.T) {
	dir := t.TempDir()
	s := open(t, options(dir))
	stop := run(t, s)
	send(t, s.Addr(), "anna")
	look := func(when string) {
		t.Helper()
		r, err := OpenReadOnly(t.Context(), Stores{Dir: dir})
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		defer r.Close()
		var seen []string
		err = errors.Join(
			r.Clients(t.Context(), func(c Client) error { seen = append(seen, c.Name); return nil }),
			r.Files(t.Context(), func(f File) error { seen = append(seen, f.Path); return nil }),
			r.Verify(t.Context(), func(f File, err error) { seen = append(seen, fmt.Sprint(f.Path, " is as it was: ", err == nil)) }))
		if got := strings.Join(seen, ", "); got != "anna, f, f is as it was: true" || err != nil {
			t.Errorf("%s: %s, %v", when, got, err)
		}
	}
	look("beside the server")
	if err := TakeStrays(t.Context(), Stores{Dir: dir}, true, func(File, error) {}); !errors.Is(err, files.ErrLocked) || Hint(err) == "" {
		t.Errorf("TakeStrays beside a server: %v", err)
	}
	stop()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	look("after it")
}
