package testservices

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresOptions say how a PostgreSQL runs.
type PostgresOptions struct {
	// Fsync has commits be durable, as in use. Without it they are faster.
	Fsync bool
	// Settings are more lines of postgresql.conf: "max_connections = 300".
	Settings []string
}

// Postgres is a PostgreSQL server of its own. One goroutine at a time starts and stops it.
type Postgres struct {
	dir, bin string
	port     int
	cmd      *exec.Cmd
	ended    chan struct{} // closed when cmd has
	made     atomic.Int64  // databases
}

// postgresPassword is that of the user "sealift". It is in no error and no log line.
const postgresPassword = "pass word/of:a@test"

// how long a server may take to begin and to end.
const patience = 60 * time.Second

// StartPostgres makes an empty PostgreSQL and starts it. The caller ends it with Close.
func StartPostgres(o PostgresOptions) (*Postgres, error) {
	initdb, err := findInitdb()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sealift-postgres-")
	if err != nil {
		return nil, err
	}
	p := &Postgres{dir: dir, bin: filepath.Dir(initdb)}
	if err = p.make(initdb, o); err == nil {
		err = p.Start()
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func findInitdb() (string, error) {
	return program("initdb", "/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")
}

// HasPostgres returns an ErrMissing where StartPostgres would.
func HasPostgres() error {
	_, err := findInitdb()
	return err
}

func (p *Postgres) make(initdb string, o PostgresOptions) (err error) {
	if p.port, err = freePort(); err != nil {
		return err
	}
	password := filepath.Join(p.dir, "password")
	if err := os.WriteFile(password, []byte(postgresPassword), 0o600); err != nil {
		return err
	}
	for _, path := range []string{p.dir, password} {
		if err := giveAway(path); err != nil {
			return err
		}
	}
	make := exec.Command(initdb, "-D", p.data(), "-U", "sealift", "-E", "UTF8", "--no-locale", "--no-sync", "-A", "scram-sha-256", "--pwfile", password)
	asAnother(make)
	make.Dir = p.dir
	if out, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	var conf bytes.Buffer
	onOff := map[bool]string{false: "off", true: "on"}
	fmt.Fprintf(&conf, "listen_addresses = '127.0.0.1'\nport = %d\nunix_socket_directories = ''\n", p.port)
	fmt.Fprintf(&conf, "fsync = %s\nfull_page_writes = %[1]s\nshared_buffers = 64MB\nmax_connections = 200\n", onOff[o.Fsync])
	fmt.Fprintf(&conf, "log_min_messages = warning\n")
	for _, line := range o.Settings {
		fmt.Fprintln(&conf, line)
	}
	f, err := os.OpenFile(filepath.Join(p.data(), "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(conf.Bytes())
	return errors.Join(err, f.Close())
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// Start starts the server, where it does not run, and waits until it answers.
func (p *Postgres) Start() error {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if !p.Running() {
			if err := p.launch(); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		c, err := pgx.Connect(ctx, p.url("postgres"))
		if err == nil {
			_ = c.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("postgres does not answer: %w\n%s", err, tail(p.log()))
		}
	}
}

func (p *Postgres) log() string { return filepath.Join(p.dir, "log") }

func (p *Postgres) launch() error {
	log, err := os.OpenFile(p.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(p.bin, "postgres"), "-D", p.data())
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	asAnother(cmd)
	endWithUs(cmd, syscall.SIGQUIT)
	if err := start(cmd); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	p.cmd, p.ended = cmd, ended
	return nil
}

// Running reports whether the server's process is there.
func (p *Postgres) Running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Stop ends the server: connections are cut, and transactions rolled back.
func (p *Postgres) Stop() error { return p.end(stopSignal) }

// Crash ends the server as a crash does: it recovers at the next start.
func (p *Postgres) Crash() error { return p.end(crashSignal) }

func (p *Postgres) end(s os.Signal) error {
	if !p.Running() {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		return fmt.Errorf("postgres did not end\n%s", tail(p.log()))
	}
}

// Restart is Stop and Start.
func (p *Postgres) Restart() error { return errors.Join(p.Stop(), p.Start()) }

// Close ends the server and removes what it has.
func (p *Postgres) Close() error { return errors.Join(p.end(crashSignal), os.RemoveAll(p.dir)) }

// Address is where the server listens: host and port.
func (p *Postgres) Address() string { return "127.0.0.1:" + strconv.Itoa(p.port) }

// Database makes an empty database and returns its URL, with the password in it.
func (p *Postgres) Database() (string, error) {
	name := fmt.Sprintf("test%d", p.made.Add(1))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pgx.Connect(ctx, p.url("postgres"))
	if err != nil {
		return "", err
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	return p.url(name), nil
}

func (p *Postgres) url(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("sealift", postgresPassword), Host: p.Address(), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// shared is the PostgreSQL of this test binary.
var shared struct {
	once     sync.Once
	postgres *Postgres
	err      error
}

// Main runs the tests of a package, and ends what they share: see [SharedPostgres]. It
// returns the exit code. Use: func TestMain(m *testing.M) { os.Exit(testservices.Main(m)) }
func Main(m interface{ Run() int }) int {
	code := m.Run()
	if shared.postgres != nil {
		if err := shared.postgres.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return code
}

// SharedPostgres returns the URL of an empty database, in a PostgreSQL that the tests of a
// package share and that begins with the first who asks. It does not sync. The package has
// [Main] run its tests.
func SharedPostgres(t TB) string {
	t.Helper()
	shared.once.Do(func() { shared.postgres, shared.err = StartPostgres(PostgresOptions{}) })
	Need(t, shared.err)
	u, err := shared.postgres.Database()
	Need(t, err)
	return u
}

// NewPostgres returns a PostgreSQL that ends with the test.
func NewPostgres(t TB, o PostgresOptions) *Postgres {
	t.Helper()
	p, err := StartPostgres(o)
	Need(t, err)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Logf("%v", err)
		}
	})
	return p
}
