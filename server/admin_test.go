package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sealift/storage"
	"sealift/storage/files"
	"sealift/storage/memory"
)

// readiness asks the admin address of the server whose log that is.
func readiness(t *testing.T, logs *observer.ObservedLogs) (status int, body string) {
	t.Helper()
	line := logs.FilterMessage("the admin address answers").All()
	if len(line) != 1 {
		t.Fatalf("the log does not name the admin address: %v", logs.All())
	}
	resp, err := http.Get("http://" + line[0].ContextMap()["address"].(string) + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// While a server recovers, its admin address says so.
func TestReadinessWhileRecovering(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "files/.incoming/00/"+"00000000000000000000000000000000", "of nobody")
	core, logs := observer.New(zap.InfoLevel)
	o := options(dir)
	o.Log, o.Admin.Listen = zap.New(core), "127.0.0.1:0"
	recovering, goOn := make(chan struct{}), make(chan struct{})
	o.Testing.DiskFaults = &files.Faults{Before: func(s files.Step) error {
		if s.Op == files.Remove && s.Path == "files/.incoming/00/00000000000000000000000000000000" {
			close(recovering)
			<-goOn
		}
		return nil
	}}
	opened := make(chan error, 1)
	var s *Server
	go func() {
		var err error
		s, err = Open(t.Context(), o)
		opened <- err
	}()
	select {
	case <-recovering:
	case err := <-opened:
		t.Fatalf("it did not recover: %v", err)
	}
	if status, body := readiness(t, logs); status != 503 || body != `{"reason":"recovering"}`+"\n" {
		t.Errorf("%d: %s", status, body)
	}
	close(goOn)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	stop := run(t, s)
	for end := time.Now().Add(time.Minute); ; {
		status, body := readiness(t, logs)
		if status == 200 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it is not ready: %s", body)
		}
	}
	stop()
}

// A disk that is fuller than the reserve allows is said, and no more when there is room.
func TestReadinessOfADisk(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	o := options(t.TempDir())
	o.Log, o.Admin.Listen, o.Storage.MinFree = zap.New(core), "127.0.0.1:0", 1000
	var free atomic.Int64
	free.Store(999)
	o.Testing.DiskFaults = &files.Faults{Free: func(int64) int64 { return free.Load() }}
	s := open(t, o)
	defer run(t, s)()
	const short = `{"reason":"disk_below_reserve","detail":"the disk is full, but for a reserve"}` + "\n"
	becomes := func(want string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; {
			_, body := readiness(t, logs)
			if body == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%q, want %q", body, want)
			}
		}
	}
	becomes(short)
	free.Store(1000)
	becomes("ready\n")
	free.Store(0)
	becomes(short)
}

// trying is a registry that says what it is told to, and counts how often it was tried.
type trying struct {
	storage.Registry
	err   error
	tried int
}

func (r *trying) Writable(context.Context) error { r.tried++; return r.err }

func (r *trying) Apply(ctx context.Context, batch []storage.Operation) error {
	if !storage.Reads(batch[0]) && r.err != nil {
		return r.err
	}
	return r.Registry.Apply(ctx, batch)
}

// Whether the registry can be written follows from what clients write, while they do; it
// is tried where nobody does, and after a failure.
func TestWritableRegistry(t *testing.T) {
	o := options(t.TempDir())
	o.Admin.Listen = "127.0.0.1:0"
	w, err := newWatched(&o)
	if err != nil {
		t.Fatal(err)
	}
	under := &trying{Registry: memory.New()}
	w.observe(under, nil)
	r := w.registry
	ask := func(want error, tried int) {
		t.Helper()
		if err := r.writable(t.Context()); !errors.Is(err, want) || under.tried != tried {
			t.Errorf("%v, tried %d times; want %v, %d", err, under.tried, want, tried)
		}
	}
	ask(nil, 1)
	ask(nil, 1) // that was just now
	broken := errors.New("broken")
	put := func(name string) error {
		return r.Apply(t.Context(), []storage.Operation{&storage.AddClient{ID: [16]byte{1}, Name: name, Outcome: storage.Outcome{At: time.Now()}}})
	}
	under.err = broken
	if err := put("anna"); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	ask(broken, 2)
	ask(broken, 3)
	under.err = nil
	if err := put("anna"); err != nil {
		t.Fatal(err)
	}
	ask(nil, 3)
	under.err = broken
	if err := put("anna"); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	under.err = nil
	if err := put("anna"); err != nil { // refused: nothing is written
		t.Fatal(err)
	}
	ask(nil, 4)
}
