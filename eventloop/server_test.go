package eventloop

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/files"
	"sealift/storage/memory"
)

// waits has the servers under test do as on systems where a connection cannot be
// paused or lent: the loop reads all that comes, and waits until it is stored.
var waits bool

// overTLS has the servers under test take TLS connections too, and the clients under
// test make such ones.
var overTLS bool

// TestMain runs all tests in each way.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && runtime.GOOS == "linux" {
		waits = true
		code = m.Run()
		waits = false
	}
	if code == 0 {
		overTLS = true
		code = m.Run()
	}
	os.Exit(code)
}

// running is a server under test.
type running struct {
	*Server
	t    testing.TB
	dir  string
	reg  storage.Registry
	logs *observer.ObservedLogs
	stop context.CancelFunc
	done chan error
}

// start runs a server on a free port. change, if not nil, may change its
// options; the server is stopped at the end of the test.
func start(t testing.TB, change func(*Options, *session.Config)) *running {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	r := &running{t: t, dir: t.TempDir(), reg: memory.New(), logs: logs, done: make(chan error, 1)}
	store, err := files.Open(r.dir, files.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	log := zap.New(core)
	cfg := session.Config{Files: store, Registry: r.reg, Log: log}
	opts := Options{Addr: "127.0.0.1:0", Log: log, noPause: waits}
	if overTLS || waits {
		opts.TLS = protects(t)
	}
	if change != nil {
		change(&opts, &cfg)
	}
	if opts.tick > 0 && opts.patience == 0 { // short ticks are no hurry: the machine may be busy
		opts.patience = int64(time.Minute / opts.tick)
	}
	opts.Service = session.NewService(cfg)
	if r.Server, err = New(opts); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.done <- r.Run(ctx) }()
	select {
	case <-r.Ready():
	case err := <-r.done:
		t.Fatalf("the server ended: %v", err)
	}
	t.Cleanup(func() {
		stop()
		if err := r.wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
		for _, l := range logs.FilterMessage("panic").All() {
			if what := fmt.Sprint(l.ContextMap()["panic"]); strings.Contains(what, "owner") {
				t.Error(what) // see conn.hand
			}
		}
	})
	return r
}

// wait returns what Run returned.
func (r *running) wait() error {
	err := <-r.done
	r.done <- err
	return err
}

// client is a client that has registered under name and exchanged keys.
func (r *running) client(name string) *client.Client {
	r.t.Helper()
	c, err := r.dial(name)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (r *running) dial(name string) (*client.Client, error) {
	c, err := client.Dial(context.Background(), client.Options{
		Server: r.Addr().String(), Name: name, Retries: -1, DialContext: dialContext,
	})
	if err != nil {
		return nil, err
	}
	_, err = c.Login(context.Background())
	return c, err
}

// refused reports whether err says that a connection was not admitted. Nobody knows yet
// what it would be: the 1607 is a plain one, which TLS does not understand.
func refused(err error) bool {
	var noTLS tls.RecordHeaderError
	return errors.Is(err, client.ErrServer) || overTLS && errors.As(err, &noTLS)
}

// raw is a connection.
func (r *running) raw() net.Conn {
	r.t.Helper()
	return wrapped(r.tcp())
}

// wrapped is c, or TLS over it, whose handshake is done with the first Read or Write.
func wrapped(c net.Conn) net.Conn {
	if overTLS {
		return tls.Client(c, trusting())
	}
	return c
}

// dialContext makes connections for clients.
func dialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return wrapped(c), nil
}

// tcp is a bare connection.
func (r *running) tcp() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// stored asserts that the client's file has that content and is verified.
func (r *running) stored(id codec.ClientID, name string, content []byte) {
	r.t.Helper()
	got, err := os.ReadFile(filepath.Join(r.dir, "files", id.String(), name))
	if err != nil {
		r.t.Fatal(err)
	}
	if !bytes.Equal(got, content) {
		r.t.Fatalf("%s: stored %d bytes differ from the %d sent", name, len(got), len(content))
	}
	get := &storage.GetFile{ID: id, Path: name}
	if err := r.reg.Apply(context.Background(), []storage.Operation{get}); err != nil {
		r.t.Fatal(err)
	}
	if get.Verified == nil || get.Verified.Cksum != cksum.Checksum(content) {
		r.t.Fatalf("%s: not verified with the checksum of its content: %+v", name, get.Verified)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func TestFilesOfAllSizes(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.MemoryBudget = minMemoryBudget })
	c := r.client("sizes")
	for _, size := range []int{0, 1, 15, 16, 17, 4096, 100_003, 20 << 20} {
		content := random(size)
		name := fmt.Sprintf("file-%d", size)
		if _, err := c.Send(context.Background(), name, bytes.NewReader(content), int64(size)); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		r.stored(c.Identity().ID, name, content)
	}
}

// Many connections at once share a budget that is far too small for them.
func TestManyUploadsInALittleMemory(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.MemoryBudget, o.Loops = minMemoryBudget, 2 })
	content := random(3 << 20)
	var wg sync.WaitGroup
	errs := make(chan error, 40)
	for i := range cap(errs) {
		wg.Go(func() {
			c, err := r.dial(fmt.Sprintf("client %d", i))
			if err == nil {
				defer c.Close()
				_, err = c.Send(context.Background(), "f", bytes.NewReader(content), int64(len(content)))
			}
			if err == nil {
				r.stored(c.Identity().ID, "f", content)
			}
			errs <- err
		})
	}
	wg.Wait()
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if all := newBudget(minMemoryBudget, r.slots); r.budget.free != all.free || r.budget.rests != all.rests {
		t.Errorf("of %d and %d bytes of the budget %d and %d came back", all.free, all.rests, r.budget.free, r.budget.rests)
	}
}

// Content that cannot be lent, for want of room for what would be kept meanwhile, is taken in
// by the loops: connections that wait for memory use what was set aside for them.
func TestManyUploadsThatCannotBeLent(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.MemoryBudget, o.Loops = minMemoryBudget, 2 })
	rests := r.budget.rests
	r.budget.keep(rests)
	content := random(300_000)
	var wg sync.WaitGroup
	for i := range 150 {
		wg.Go(func() {
			c, err := r.dial(fmt.Sprintf("client %d", i))
			if err == nil {
				defer c.Close()
				_, err = c.Send(context.Background(), "f", bytes.NewReader(content), int64(len(content)))
			}
			if err != nil {
				t.Error(err)
				return
			}
			r.stored(c.Identity().ID, "f", content)
		})
	}
	wg.Wait()
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	r.budget.keep(-rests)
	if all := newBudget(minMemoryBudget, r.slots); r.budget.free != all.free || r.budget.rests != all.rests {
		t.Errorf("of %d and %d bytes of the budget %d and %d came back", all.free, all.rests, r.budget.free, r.budget.rests)
	}
}

// readAll reads until the server hangs up, with a limit for the case that it
// never does.
func readAll(t *testing.T, c net.Conn) []byte {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(b), err)
	}
	return b
}

// A message that loses the step is answered, and the answer arrives although
// the client goes on sending.
func TestTheLastReplyArrives(t *testing.T) {
	r := start(t, nil)
	c := r.raw()
	bad := codec.RequestHeader{Version: 3, Code: codec.CodeRegister, PayloadSize: 1 << 30}.Append(nil)
	if _, err := c.Write(append(bad, make([]byte, 1<<20)...)); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c); !bytes.Equal(got, errorReply) {
		t.Fatalf("got % x, want a 1607", got)
	}
}

func TestTooManyConnections(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.MaxConnections = 3 })
	var served []*client.Client
	for i := range 3 {
		served = append(served, r.client(fmt.Sprintf("client %d", i)))
	}
	for range 5 {
		c := r.tcp()
		_, _ = c.Write(codec.Register{Name: []byte("one more")}.Append(nil))
		if got := readAll(t, c); !bytes.Equal(got, errorReply) {
			t.Fatalf("got % x, want a 1607", got)
		}
		_ = c.Close()
	}
	for _, c := range served {
		if _, err := c.Send(context.Background(), "f", bytes.NewReader([]byte("x")), 1); err != nil {
			t.Errorf("a connection that was served is disturbed: %v", err)
		}
	}
}

func TestTooManyConnectionsOfOneAddress(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.MaxPerIP = 1 })
	r.client("first")
	if got := readAll(t, r.tcp()); !bytes.Equal(got, errorReply) {
		t.Fatalf("got % x, want a 1607", got)
	}
}

// Each timer ends the connection that deserves it, and names itself.
func TestTimers(t *testing.T) {
	header := codec.Register{Name: []byte("x")}.Append(nil)
	for _, tc := range []struct {
		name   string
		send   []byte
		reason string
	}{
		{"says nothing", nil, "timeout: no registration"},
		{"stops in a header", header[:5], "timeout: message not completed"},
		{"stops in a payload", header[:100], "timeout: message not completed"},
		{"registers and stops", header, "timeout: idle"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, func(o *Options, _ *session.Config) {
				o.HandshakeTimeout, o.IdleTimeout = time.Second, time.Second
			})
			c := r.raw()
			_, _ = c.Write(tc.send)
			readAll(t, c)
			_ = c.Close()
			r.stop()
			if err := r.wait(); err != nil {
				t.Fatal(err)
			}
			closed := r.logs.FilterMessage("connection closed").All()
			if len(closed) != 1 {
				t.Fatalf("%d lines in the log, want 1", len(closed))
			}
			if got := closed[0].ContextMap()["reason"]; got != tc.reason {
				t.Errorf("the log says %q, want %q", got, tc.reason)
			}
		})
	}
}

// panics is a store that does not do what it should.
type panics struct{ storage.Files }

func (panics) Create(context.Context, storage.Place, storage.Announced) (storage.Incoming, error) {
	panic("create")
}

func TestAPanicIsNoSuccessAndHarmsNobodyElse(t *testing.T) {
	r := start(t, func(_ *Options, cfg *session.Config) { cfg.Files = panics{cfg.Files} })
	c := r.client("unlucky")
	if _, err := c.Send(context.Background(), "f", bytes.NewReader([]byte("x")), 1); err == nil {
		t.Error("a file that was not stored is acknowledged")
	}
	r.client("other")
	if r.logs.FilterMessage("panic in a worker").Len() == 0 {
		t.Error("the log says nothing")
	}
}

// A panic in a request that waits ends its connection. The path that it had is
// free again: the client sends its 1029 once more, on another connection.
func TestAPanicInARequestEndsItsConnectionOnly(t *testing.T) {
	var once sync.Once
	r := start(t, func(_ *Options, cfg *session.Config) {
		cfg.Log = cfg.Log.WithOptions(zap.Hooks(func(e zapcore.Entry) error {
			if e.Message == "verified" {
				once.Do(func() { panic("in the log") })
			}
			return nil
		}))
	})
	other := r.client("other")
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Options{
		Server: r.Addr().String(), Name: "unlucky", Backoff: func(int) time.Duration { return 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Login(ctx); err != nil {
		t.Fatal(err)
	}
	content := random(10_001)
	if got, err := c.Send(ctx, "f", bytes.NewReader(content), int64(len(content))); err != nil || got.Attempts != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	r.stored(c.Identity().ID, "f", content)
	if _, err := other.Send(ctx, "g", bytes.NewReader(content), int64(len(content))); err != nil {
		t.Error(err)
	}
	r.stored(other.Identity().ID, "g", content)
	panics := r.logs.FilterMessage("panic").All()
	if len(panics) != 1 || !strings.Contains(fmt.Sprint(panics[0].ContextMap()["panic"]), "verdict.go") {
		t.Errorf("the log says %v, and not once where the panic was", panics)
	}
	if n := r.logs.FilterMessage("connection closed").FilterField(zap.String("reason", "panic")).Len(); n != 1 {
		t.Errorf("%d connections ended by a panic, want 1", n)
	}
}

// gate holds writes back until it is opened.
type gate struct {
	storage.Files
	open    chan struct{}
	reached chan struct{}
	once    sync.Once
}

type gatedIncoming struct {
	storage.Incoming
	g *gate
}

func (g *gate) Create(ctx context.Context, place storage.Place, size storage.Announced) (storage.Incoming, error) {
	in, err := g.Files.Create(ctx, place, size)
	return gatedIncoming{in, g}, err
}

func (in gatedIncoming) Write(ctx context.Context, p []byte) (int, error) {
	in.g.once.Do(func() { close(in.g.reached) })
	<-in.g.open
	return in.Incoming.Write(ctx, p)
}

func gated(g *gate) func(*Options, *session.Config) {
	g.open, g.reached = make(chan struct{}), make(chan struct{})
	return func(_ *Options, cfg *session.Config) { g.Files, cfg.Files = cfg.Files, g }
}

// The transfer that is under way ends well; nobody new is let in; the server
// then stops.
func TestDrain(t *testing.T) {
	g := &gate{}
	r := start(t, gated(g))
	idle := r.raw()
	c := r.client("uploader")
	content := random(2 << 20)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Send(context.Background(), "f", bytes.NewReader(content), int64(len(content)))
		sent <- err
	}()
	<-g.reached
	r.stop()
	readAll(t, idle) // hung up
	<-r.acceptor.done
	if nc, err := net.Dial("tcp", r.Addr().String()); err == nil {
		_ = nc.Close()
		t.Error("a server that is going down takes connections")
	}
	close(g.open)
	if err := <-sent; err != nil {
		t.Errorf("the transfer under way: %v", err)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	r.stored(c.Identity().ID, "f", content)
}

// A transfer that does not end in time is cut and leaves nothing.
func TestDrainCuts(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.DrainTimeout = 100 * time.Millisecond })
	r.beginUpload()
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(r.dir, "files", ".incoming", "*", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in .incoming: %v %v", left, err)
	}
}

// beginUpload has a client begin a transfer that it never ends.
func (r *running) beginUpload() {
	r.t.Helper()
	c := r.client("stuck")
	w := r.raw()
	id := c.Identity().ID
	packet := codec.SendFile{ContentSize: 32, OrigSize: 16, Packet: 1, Total: 2, FileName: []byte("f")}.Append(nil, id, 16)
	if _, err := w.Write(append(packet, make([]byte, 16)...)); err != nil {
		r.t.Fatal(err)
	}
	for r.logs.FilterMessage("resumed").Len() == 0 {
		time.Sleep(time.Millisecond) // nothing but the log tells that the packet has arrived
	}
}

func TestAPortInUseIsAnError(t *testing.T) {
	r := start(t, nil)
	_, err := New(Options{Addr: r.Addr().String(), Log: zap.NewNop(), Service: r.opts.Service})
	if op := (*net.OpError)(nil); !errors.As(err, &op) {
		t.Errorf("a second server on the port: %v", err)
	}
}

// A server that has just stopped can be started again: the connections that it closed itself keep the port for a
// minute, in TIME_WAIT, but not from a listener.
func TestThePortIsFreeAtOnce(t *testing.T) {
	first := start(t, nil)
	nc := first.raw()
	message := codec.Register{Name: []byte("x")}.Append(nil)
	message[19] = 254 // a Payload Size that no 1025 has: the server is the one that closes
	if _, err := nc.Write(message); err != nil {
		t.Fatal(err)
	}
	readAll(t, nc) // its end; ours follows with the test's
	_ = nc.Close()
	first.stop()
	if err := first.wait(); err != nil {
		t.Fatal(err)
	}
	start(t, func(o *Options, _ *session.Config) { o.Addr = first.Addr().String() })
}

func TestShareDescriptors(t *testing.T) {
	for _, tc := range []struct {
		limit              uint64
		wanted             int
		conns, files, most int
		fails              bool
	}{
		{limit: 0, wanted: 500, conns: 500, files: 1024, most: math.MaxInt},
		{limit: 20_000, wanted: 20_000, conns: 18_891, files: 1024, most: 18_891},
		{limit: 20_000, wanted: 1000, conns: 1000, files: 1024, most: 18_891},
		{limit: 256, wanted: 20_000, conns: 150, files: 21, most: 150},
		{limit: 64, wanted: 20_000, fails: true},
	} {
		d, err := ShareDescriptors(tc.limit, tc.wanted, 1, 8)
		if (err != nil) != tc.fails || d != (Descriptors{tc.conns, tc.files, tc.most}) {
			t.Errorf("ShareDescriptors(%d, %d) = %+v, %v", tc.limit, tc.wanted, d, err)
		}
	}
}

// A client that sends several files at once stores each of them whole.
func TestParallelFilesOfOneClient(t *testing.T) {
	r := start(t, nil)
	dir := t.TempDir()
	var list []client.File
	content := make(map[string][]byte)
	for i := range 9 {
		name := fmt.Sprintf("file-%d", i)
		content[name] = random(i * 123_457)
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content[name], 0o600); err != nil {
			t.Fatal(err)
		}
		list = append(list, client.File{Path: path})
	}
	var id codec.ClientID
	results, err := client.Run(context.Background(), client.Options{Server: r.Addr().String(), Name: "many", Parallel: 4}, list,
		&client.Events{LoggedIn: func(l client.Login) { id = l.Identity.ID }})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(list) {
		t.Errorf("%d results, want %d", len(results), len(list))
	}
	for name, want := range content {
		r.stored(id, name, want)
	}
}
