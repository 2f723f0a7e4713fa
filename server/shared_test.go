package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sealift/client"
	"sealift/eventloop"
	"sealift/internal/testservices"
	"sealift/storage"
	"sealift/storage/audit"
	"sealift/storage/postgres"
)

func TestMain(m *testing.M) { os.Exit(testservices.Main(m)) }

// bucket returns the URL of an empty bucket.
func bucket(t *testing.T) string {
	t.Helper()
	s := testservices.S3(t)
	s.Use(t)
	return s.URL("a/prefix")
}

// sharedStores are empty stores that several servers can have.
func sharedStores(t *testing.T) Storage {
	t.Helper()
	return Storage{Registry: testservices.SharedPostgres(t), Files: bucket(t), UnverifiedTTL: time.Hour}
}

// serveOn runs a server on stores until the test ends.
func serveOn(t *testing.T, stores Storage, set ...func(*Options)) *Server {
	t.Helper()
	o := options(t.TempDir())
	o.Storage = stores
	for _, set := range set {
		set(&o)
	}
	s := open(t, o)
	stop := run(t, s)
	t.Cleanup(stop)
	return s
}

// dial connects to a server and logs in: as somebody new, or as who.
func dial(t *testing.T, s *Server, name string, who *client.Identity) (*client.Client, error) {
	t.Helper()
	c, err := client.Dial(t.Context(), client.Options{Server: s.Addr().String(), Name: name, Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if who == nil {
		_, err = c.Login(t.Context())
	} else {
		err = c.Reconnect(t.Context(), *who)
	}
	return c, err
}

// put has a client store a file.
func put(t *testing.T, c *client.Client, name string, content []byte) {
	t.Helper()
	if _, err := c.Send(t.Context(), name, bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatalf("sending %s: %v", name, err)
	}
}

// stored is what a server has of a file.
func stored(t *testing.T, s *Server, c *client.Client, name string) []byte {
	t.Helper()
	get, err := getFile(t.Context(), s.registry, &File{ID: c.Identity().ID, Path: name})
	if err != nil || get.Verified == nil {
		t.Fatalf("%s is on record as %+v, %v", name, get.Verified, err)
	}
	r, err := s.store.Open(t.Context(), get.Verified.Stored())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// A server whose content is in a bucket has it after a restart, and refuses a bucket that another
// registry goes with.
func TestServerWithABucket(t *testing.T) {
	stores := Storage{Files: bucket(t)}
	dir := t.TempDir()
	content := bytes.Repeat([]byte("content "), 5<<20) // some parts
	o := options(dir)
	o.Storage = stores
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	c, err := dial(t, s, "anna", nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, "large", content)
	put(t, c, "small", []byte("content"))
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another sealiftd uses this directory") {
		t.Errorf("a second server in the directory: %v", err)
	}
	stop()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	other := options(t.TempDir())
	other.Storage = stores
	if s, err := Open(t.Context(), other); !errors.Is(err, ErrNoRecords) || Hint(err) == "" {
		t.Errorf("with another registry: %v, %v", s, err)
	}

	// Also if that has clients of its own.
	other.Storage = Storage{}
	here, err := Open(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	stop = run(t, here)
	otto, err := dial(t, here, "otto", nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, otto, "f", []byte("content"))
	stop()
	if err := here.Close(); err != nil {
		t.Fatal(err)
	}
	other.Storage = stores
	if s, err := Open(t.Context(), other); !errors.Is(err, ErrNoRecords) || Hint(err) == "" {
		t.Errorf("with another registry that has a client: %v, %v", s, err)
	}
	// Content in a directory does not move by itself.
	other.Storage.Files = strings.Replace(stores.Files, "a/prefix", "another", 1)
	if s, err := Open(t.Context(), other); !errors.Is(err, errFilesElsewhere) || !strings.Contains(Hint(err), "sealiftd migrate") {
		t.Errorf("with a bucket that has none of the files: %v, %v", s, err)
	}

	s = serveOn(t, stores, func(o *Options) { o.Dir = dir })
	if !bytes.Equal(stored(t, s, c, "large"), content) || string(stored(t, s, c, "small")) != "content" {
		t.Error("the content is another")
	}
	who := c.Identity()
	if c, err = dial(t, s, "", &who); err != nil {
		t.Fatal(err)
	}
	put(t, c, "small", []byte("more content"))
	if got := string(stored(t, s, c, "small")); got != "more content" {
		t.Errorf("small has %q", got)
	}
}

// Several servers on one store know each other's clients and files, show one key, and take note
// of what is steered at another one.
func TestServersThatShareTheirStores(t *testing.T) {
	stores := sharedStores(t)
	protect := func(o *Options) { o.TLS.Mode = tlsAllow }
	a, b := serveOn(t, stores, protect), serveOn(t, stores, protect)
	if of := a.tls.serve.Load().fingerprint; of != b.tls.serve.Load().fingerprint {
		t.Error("they show two keys")
	}
	atA, err := dial(t, a, "anna", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, b, "anna", nil); err == nil {
		t.Error("a name was given twice")
	}
	who := atA.Identity()
	atB, err := dial(t, b, "", &who)
	if err != nil {
		t.Fatal(err)
	}
	put(t, atA, "f", []byte("from a"))
	put(t, atB, "f", []byte("from b, later"))
	for _, s := range []*Server{a, b} {
		if got := string(stored(t, s, atA, "f")); got != "from b, later" {
			t.Errorf("f has %q", got)
		}
	}

	began := time.Now()
	command, err := Stores{Registry: stores.Registry, Files: stores.Files}.openToChange(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer command.Close()
	if _, err := setDisabledIn(t.Context(), command, Who{Name: "anna"}, true); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Server{a, b} {
		until(t, "connections of a disabled client end", func() bool {
			seen, err := s.loops.Observe(t.Context(), eventloop.Query{Client: who.ID})
			return err == nil && seen.Connections == 0
		})
		if _, err := dial(t, s, "", &who); err == nil {
			t.Error("a disabled client is served")
		}
	}
	t.Logf("it took %v", time.Since(began))
	if _, err := setDisabledIn(t.Context(), command, Who{Name: "anna"}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, a, "", &who); err != nil {
		t.Errorf("a client that is enabled at the other server: %v", err)
	}

	// The work of one that ends is taken over by another.
	f := &File{ID: who.ID, Path: "f"}
	get, err := getFile(t.Context(), b.registry, f)
	if err != nil {
		t.Fatal(err)
	}
	if marked, err := markDeleted(t.Context(), command, []File{*get.Verified}); err != nil || len(marked) != 1 {
		t.Fatal(marked, err)
	}
	until(t, "a deleted file goes", func() bool {
		_, err := b.store.Size(t.Context(), get.Verified.Stored())
		return errors.Is(err, storage.ErrNotStored)
	})
}

// taken reports whether a server has a lock, by trying to take it.
func taken(s *Server, lock string) bool {
	_, unlock, ok, err := s.registry.(storage.Locker).TryLock(context.Background(), lock)
	if ok {
		unlock()
	}
	return err == nil && !ok
}

// ready is what /readyz says.
func ready(t *testing.T, s *Server) (bool, string) {
	t.Helper()
	r, err := http.Get("http://" + s.AdminAddr().String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode == http.StatusOK, string(text)
}

// A database and a bucket that go away for a while end nothing: the server says that it is not
// ready, and serves again when they are back.
func TestStoresThatGoAwayForAWhile(t *testing.T) {
	database := testservices.NewPostgres(t, testservices.PostgresOptions{})
	url, err := database.Database()
	if err != nil {
		t.Fatal(err)
	}
	objects := testservices.S3(t)
	objects.Use(t)
	s := serveOn(t, Storage{Registry: url, Files: objects.URL("")}, func(o *Options) {
		o.Admin.Listen = "127.0.0.1:0"
		o.Testing.Patience = 5 * time.Second
	})
	c, err := dial(t, s, "anna", nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, "f", []byte("content"))
	until(t, "the server is ready", func() bool { ok, _ := ready(t, s); return ok })
	for what, store := range map[string]struct {
		stop, start func() error
	}{"registry_not_writable": {database.Stop, database.Start}, "store_fails": {func() error { objects.Kill(); return nil }, objects.Start}} {
		if err := store.stop(); err != nil {
			t.Fatal(err)
		}
		until(t, what, func() bool {
			ok, why := ready(t, s)
			return !ok && strings.Contains(why, what) && strings.Count(why, "\n") == 1
		})
		if _, err := c.Send(t.Context(), "f", strings.NewReader("x"), 1); err == nil || !strings.Contains(err.Error(), "1607") {
			t.Errorf("what is asked for longer than the server waits: %v", err)
		}
		// What is asked meanwhile waits.
		sent := make(chan error, 1)
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		go func() {
			_, err := c.Send(ctx, "f", strings.NewReader(what), int64(len(what)))
			sent <- err
		}()
		if err := store.start(); err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Errorf("%s: what came meanwhile: %v", what, err)
		}
		stop()
		until(t, "the server is ready again", func() bool { ok, _ := ready(t, s); return ok })
		if got := string(stored(t, s, c, "f")); got != what {
			t.Errorf("f has %q", got)
		}
	}
	if n := s.loops.Stats().Admitted; n != 1 {
		t.Errorf("the client connected %d times", n)
	}
}

// Events of all servers are told by one of them, in the order of each client, and by another
// one when that has ended.
func TestEventsOfServersThatShare(t *testing.T) {
	stores := sharedStores(t)
	told := make(chan string, 100)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var event struct {
			Type string
			Data struct{ File struct{ Path string } }
		}
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
			t.Errorf("an event: %v", err)
		}
		told <- event.Type + " " + event.Data.File.Path
	}))
	defer hook.Close()
	events := func(o *Options) { o.Events.URL = hook.URL }
	o := options(t.TempDir())
	o.Storage = stores
	events(&o)
	a := open(t, o)
	stop := run(t, a)
	until(t, "the first server tells", func() bool { return taken(a, lockEvents) })
	b := serveOn(t, stores, events)

	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			select {
			case got := <-told:
				if !strings.HasSuffix(got, w) {
					t.Fatalf("told is %q, not %q", got, w)
				}
			case <-time.After(time.Minute):
				t.Fatalf("%q is not told", w)
			}
		}
	}
	c, err := dial(t, b, "anna", nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, "1", []byte("content"))
	put(t, c, "2", []byte("content"))
	expect("registered ", "received 1", "verified 1", "received 2", "verified 2")
	if n := b.events.Stats()[0].Told; n > 0 {
		t.Errorf("the second server has told %d", n)
	}
	stop()
	put(t, c, "3", []byte("content"))
	expect("received 3", "verified 3")
	until(t, "the server that goes on has told them", func() bool { return b.events.Stats()[0].Told >= 2 })
}

// A PostgreSQL serves one server whose content is in a directory; another one is told which.
func TestPostgresAndADirectory(t *testing.T) {
	stores := Storage{Registry: testservices.SharedPostgres(t)}
	dir := t.TempDir()
	o := options(dir)
	o.Storage = stores
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	c, err := dial(t, s, "anna", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 { // fewer may be gone
		put(t, c, fmt.Sprint(i), []byte("content"))
	}
	second := options(t.TempDir())
	second.Storage = stores
	refused := func(want error) {
		t.Helper()
		other, err := Open(t.Context(), second)
		if err == nil {
			_ = other.Close()
		}
		if !errors.Is(err, want) || want == postgres.ErrHeld && (!strings.Contains(err.Error(), dir) || Hint(err) == "") {
			t.Errorf("another server: %v", err)
		}
	}
	refused(postgres.ErrHeld)
	stop()
	refused(postgres.ErrHeld) // it is not closed
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var gone *audit.FilesGoneError
	if other, err := Open(t.Context(), second); !errors.As(err, &gone) {
		t.Errorf("in another directory: %v, %v", other, err)
	}
	s = serveOn(t, stores, func(o *Options) { o.Dir = dir })
	if got := string(stored(t, s, c, "0")); got != "content" {
		t.Errorf("0 has %q", got)
	}
}

// A server whose registry another one has ends at once, and says why.
func TestServerIsReplaced(t *testing.T) {
	s := open(t, options(t.TempDir()))
	lost := make(chan struct{})
	s.lost = lost
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	<-s.Ready()
	if _, err := dial(t, s, "anna", nil); err != nil {
		t.Fatal(err)
	}
	close(lost)
	if err := <-ended; !errors.Is(err, errReplaced) {
		t.Errorf("it ends with %v", err)
	}
}

// config check asks the database, makes nothing in it, and tells no password.
func TestCheckOfAPostgres(t *testing.T) {
	o := options(t.TempDir())
	o.Storage.Registry = testservices.SharedPostgres(t)
	for range 2 { // without tables
		if err := o.CheckFiles(); err != nil {
			t.Error(err)
		}
	}
	u, err := url.Parse(o.Storage.Registry)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), "another secret")
	o.Storage.Registry = u.String()
	if err := o.CheckFiles(); err == nil || strings.Contains(err.Error(), "secret") || !strings.HasPrefix(err.Error(), "--registry: ") || Hint(err) == "" {
		t.Errorf("with a wrong password: %v", err)
	}
}

// A server without the event targets of others warns that nobody records events for these any more.
func TestTargetsOfOthersGo(t *testing.T) {
	stores := sharedStores(t)
	warned := func(command string) bool {
		core, logs := observer.New(zap.WarnLevel)
		serveOn(t, stores, func(o *Options) {
			o.Log = zap.New(core)
			o.Events.Command = command
		})
		return logs.FilterMessageSnippet("no server records events").FilterField(zap.String("target", "command")).Len() > 0
	}
	for i, server := range []struct {
		command string
		warns   bool
	}{{"true", false}, {"true", false}, {"", true}, {"", false}} {
		if got := warned(server.command); got != server.warns {
			t.Errorf("server %d, which tells %q, warns: %v, want %v", i+1, server.command, got, server.warns)
		}
	}
}
