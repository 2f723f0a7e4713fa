package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sealift/internal/testservices"
	"sealift/storage"
)

func openWith(t testing.TB, url string, o Options) *Registry {
	t.Helper()
	r, err := Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// A batch is one round trip, whatever is in it.
func TestOneRoundTrip(t *testing.T) {
	p, url := through(t, database(t))
	r := openWith(t, url, Options{Connections: 1})
	prepare(t, r)
	batch := func(round int) (mixed, reads []storage.Operation) {
		for i := range 20 {
			n, path, key := 10+i, fmt.Sprint("f", round), fmt.Sprint("k", round)
			mixed = append(mixed, addClient(n, fmt.Sprint("client ", n)),
				&storage.SetKeys{ID: clientID(n), Name: fmt.Sprint("client ", n), PublicKey: make([]byte, 160), AESKey: make([]byte, 32)},
				&storage.PutFile{Outcome: storage.Outcome{At: moment}, File: file(n, path, key)},
				&storage.VerifyFile{Outcome: storage.Outcome{At: moment}, ID: clientID(n), Path: path, Incoming: key},
				&storage.GetFile{ID: clientID(n), Path: path})
			reads = append(reads, &storage.GetClient{ID: clientID(n)}, &storage.GetFile{ID: clientID(n), Path: path, WithPartial: true})
		}
		return mixed, reads
	}
	for round := range 4 {
		mixed, reads := batch(round)
		for what, b := range map[string][]storage.Operation{"mixed": mixed, "reads": reads} {
			before := p.answers.Load()
			try(t, r, b...)
			if n := p.answers.Load() - before; n != 1 && round > 0 { // the first prepares the statements
				t.Errorf("round %d: %d operations, %s, took %d round trips", round, len(b), what, n)
			}
		}
	}
}

// Two batches that register the same names in opposite order wait for each other: PostgreSQL
// ends one, which is repeated.
func TestDeadlock(t *testing.T) {
	p := testservices.NewPostgres(t, testservices.PostgresOptions{Settings: []string{"deadlock_timeout = 20ms"}})
	address, err := p.Database()
	if err != nil {
		t.Fatal(err)
	}
	var deadlocks atomic.Int64
	o := Options{Log: func(err error) {
		if code(err) == deadlockDetected {
			deadlocks.Add(1)
		}
	}}
	sides := []*Registry{openWith(t, address, o), openWith(t, address, o)}
	const names = 50
	for round := 0; deadlocks.Load() == 0; round++ {
		if round == 100 {
			t.Fatal("no deadlock came about")
		}
		var g sync.WaitGroup
		var won [2][names]bool
		for s, r := range sides {
			batch := make([]storage.Operation, names)
			for i := range names {
				n := i
				if s == 1 {
					n = names - 1 - i
				}
				add := addClient(n, fmt.Sprint("name ", round, " ", n))
				add.ID[0], add.ID[1] = byte(s), byte(round)
				batch[i] = add
			}
			g.Go(func() {
				if err := r.Apply(context.Background(), batch); err != nil {
					t.Error(err)
				}
				for _, op := range batch {
					won[s][op.(*storage.AddClient).ID[15]] = op.Result().Err == nil
				}
			})
		}
		g.Wait()
		for n := range names {
			if won[0][n] == won[1][n] {
				t.Fatalf("round %d: both, or neither, have name %d", round, n)
			}
		}
	}
}

// The database restarts, is stopped and crashes under load: what is asked meanwhile waits,
// and each operation is done once.
func TestRestart(t *testing.T) {
	p := testservices.NewPostgres(t, testservices.PostgresOptions{Fsync: true})
	address, err := p.Database()
	if err != nil {
		t.Fatal(err)
	}
	r := openWith(t, address, Options{Patience: 2 * time.Minute})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var g sync.WaitGroup
	var rounds atomic.Int64
	const sides = 6
	for s := range sides {
		g.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				add := addClient(s, fmt.Sprint("client ", s, " ", n))
				add.ID[0], add.ID[1], add.ID[2] = 1, byte(n>>8), byte(n)
				f := file(s, "f", "k")
				f.ID = add.ID
				put, verify := &storage.PutFile{File: f}, &storage.VerifyFile{ID: f.ID, Path: "f", Incoming: "k"}
				for _, batch := range [][]storage.Operation{{add}, {put}, {verify, &storage.GetClient{ID: f.ID}}} {
					if err := r.Apply(context.Background(), batch); err != nil {
						t.Errorf("side %d, %d: %T: %v", s, n, batch[0], err)
						return
					}
					if err := batch[0].Result().Err; err != nil || put.Replaced != nil {
						t.Errorf("side %d, %d: %T: %v, replaced %v", s, n, batch[0], err, put.Replaced)
						return
					}
				}
				rounds.Add(1)
			}
		})
	}
	more := func() { // until the load is under way again
		for want := rounds.Load() + 3*sides; rounds.Load() < want && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	more()
	for _, end := range []func() error{p.Restart, p.Crash, p.Restart, p.Crash} {
		if err := errors.Join(end(), p.Start()); err != nil {
			t.Fatal(err)
		}
		more()
	}
	cancel()
	g.Wait()
	clients, files := int64(0), int64(0)
	if err := r.Clients(t.Context(), func(storage.Client) error { clients++; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := r.Files(t.Context(), func(f storage.File) error {
		files++
		if !f.Verified {
			t.Errorf("%+v waits", f)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if clients != rounds.Load() || files != clients {
		t.Errorf("%d clients and %d files, want %d", clients, files, rounds.Load())
	}

	// One that stays away is waited for until Patience is over, or the caller's context ends.
	impatient := openWith(t, address, Options{Patience: 300 * time.Millisecond})
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := impatient.Apply(t.Context(), []storage.Operation{addClient(99, "late")}); err == nil {
		t.Error("a batch succeeded without a database")
	}
	if err := impatient.Files(t.Context(), func(storage.File) error { return nil }); err == nil {
		t.Error("a list came without a database")
	}
	short, done := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer done()
	if err := r.Writable(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Writable: %v, want the end of its context", err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	try(t, r, addClient(99, "late"))
	if err := r.Writable(t.Context()); err != nil {
		t.Error(err)
	}
}

// Eight servers that begin at once make the tables once.
func TestMigrateAtOnce(t *testing.T) {
	address := database(t)
	var g sync.WaitGroup
	for n := range 8 {
		g.Go(func() {
			r, err := Open(context.Background(), address, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			if err := r.Apply(context.Background(), []storage.Operation{addClient(n, fmt.Sprint("client ", n))}); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	n := 0
	if err := open(t, address).Clients(t.Context(), func(storage.Client) error { n++; return nil }); err != nil || n != 8 {
		t.Errorf("%d clients, %v, want 8", n, err)
	}
}

// A database that is not ours, or is of another version, stays as it is.
func TestRefusedDatabases(t *testing.T) {
	run := func(t *testing.T, address, text string) {
		t.Helper()
		c, err := pgx.Connect(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		if _, err := c.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, setup  string
		write, read  error
		afterMigrate bool
	}{
		{name: "empty", read: ErrOlder},
		{name: "newer", setup: "UPDATE sealift.sealift_schema SET version = 99", write: ErrNewer, read: ErrNewer, afterMigrate: true},
		{name: "another program's", setup: "CREATE SCHEMA sealift; CREATE TABLE sealift.clients (a int)", write: ErrForeign, read: ErrForeign},
		{name: "half", setup: "DELETE FROM sealift.sealift_schema", write: ErrForeign, read: ErrForeign, afterMigrate: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address := database(t)
			if tt.afterMigrate {
				_ = open(t, address).Close()
			}
			if tt.setup != "" {
				run(t, address, tt.setup)
			}
			if r, err := OpenReadOnly(t.Context(), address, Options{}); !errors.Is(err, tt.read) {
				t.Errorf("to read: %v, want %v", err, tt.read)
			} else if err == nil {
				_ = r.Close()
			}
			if r, err := Open(t.Context(), address, Options{}); !errors.Is(err, tt.write) {
				t.Errorf("to write: %v, want %v", err, tt.write)
			} else if err == nil {
				_ = r.Close()
			}
		})
	}
	t.Run("another encoding", func(t *testing.T) {
		address := database(t)
		run(t, address, "CREATE DATABASE latin1 ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
		u, _ := url.Parse(address)
		u.Path = "/latin1"
		if _, err := Open(t.Context(), u.String(), Options{}); !errors.Is(err, ErrEncoding) {
			t.Errorf("%v, want ErrEncoding", err)
		}
	})
	t.Run("read only", func(t *testing.T) {
		address := database(t)
		apply(t, open(t, address), addClient(1, "anna"))
		r, err := OpenReadOnly(t.Context(), address, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		apply(t, r, &storage.GetClient{ID: clientID(1)})
		if err := r.Apply(t.Context(), []storage.Operation{addClient(2, "ben")}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%v, want ErrReadOnly", err)
		}
	})
	t.Run("a schema of another name", func(t *testing.T) {
		address := database(t)
		a, b := open(t, address+"&search_path=one"), open(t, address+"&search_path=two")
		apply(t, a, addClient(1, "anna"))
		apply(t, b, addClient(1, "anna"))
		if _, err := Open(t.Context(), address+"&search_path=one,two", Options{}); !errors.Is(err, ErrURL) {
			t.Errorf("%v, want ErrURL", err)
		}
	})
}

// No error has a part of the password in it.
func TestPasswordIsNotTold(t *testing.T) {
	good := database(t)
	u, err := url.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(u *url.URL)) string {
		v := *u
		change(&v)
		return v.String()
	}
	const secret = "geheim"
	other := func(u *url.URL) { u.User = url.UserPassword("sealift", secret+"%41") }
	for name, address := range map[string]string{
		"wrong password":    with(other),
		"wrong host":        with(func(u *url.URL) { other(u); u.Host = "127.0.0.1:1" }),
		"no URL":            "postgres://sealift:" + secret + "/x%zz@127.0.0.1:5432/test",
		"a port":            "postgres://sealift:" + secret + "@127.0.0.1:x" + secret + "/test",
		"unknown sslmode":   with(func(u *url.URL) { other(u); u.RawQuery = "sslmode=" + "often" }),
		"no database":       with(func(u *url.URL) { u.Path = "/none" }),
		"password in query": "postgres://127.0.0.1:1/test?user=a&password=" + secret,
		"another scheme":    "mysql://sealift:" + secret + "@127.0.0.1/test",
	} {
		_, err := Open(t.Context(), address, Options{Patience: 100 * time.Millisecond})
		if err == nil {
			t.Errorf("%s: it was opened", name)
			continue
		}
		for _, part := range []string{secret, "pass word", "pass%20word"} {
			if strings.Contains(err.Error(), part) || strings.Contains(Name(address), part) {
				t.Errorf("%s: %v; %s", name, err, Name(address))
			}
		}
		t.Logf("%s: %v", name, err)
	}
	if got := Name(good); got != "postgres://sealift@"+u.Host+u.Path {
		t.Errorf("the name is %q", got)
	}
}

// A text that PostgreSQL cannot keep is refused by itself, and the rest of its batch is done.
func TestTextIsChecked(t *testing.T) {
	r := open(t, database(t))
	bad := []storage.Operation{addClient(2, "zero\x00"), addClient(3, "latin1 \xe9"), &storage.GetFile{ID: clientID(1), Path: "\xff"},
		&storage.PutFile{File: file(1, "x\x00", "k1")}, &storage.RenewLeases{Server: "a", Keys: []string{"k", "\xff"}}}
	good := []storage.Operation{addClient(1, "NaN"), addClient(4, "NULL"), addClient(5, `\N`), addClient(6, "'"), addClient(7, "\uFFFD\U0010FFFE")}
	try(t, r, append(append(good[:1:1], bad...), good[1:]...)...)
	for _, op := range bad {
		if !errors.Is(op.Result().Err, errText) {
			t.Errorf("%+v: %v, want errText", op, op.Result().Err)
		}
	}
	for _, op := range good {
		get := &storage.GetClient{ID: op.(*storage.AddClient).ID}
		apply(t, r, get)
		if op.Result().Err != nil || get.Client.Name != op.(*storage.AddClient).Name {
			t.Errorf("%+v: %v; %q", op, op.Result().Err, get.Client.Name)
		}
	}
	one := &storage.GetFile{ID: clientID(1), Path: "\xff"}
	try(t, r, one)
	if !errors.Is(one.Err, errText) {
		t.Errorf("alone: %v", one.Err)
	}
}

// What a server's steering is to another one: uploads are not, and the targets of events are,
// whose events it is told of.
func TestSteering(t *testing.T) {
	address := schema(t)
	a, b := open(t, address), open(t, address)
	changed := func(what string, want bool) {
		t.Helper()
		if got, err := a.Changed(t.Context()); err != nil || got != want {
			t.Errorf("%s: changed is %v, %v, want %v", what, got, err, want)
		}
	}
	changed("at first", true)
	apply(t, b, addClient(1, "anna"), &storage.SetKeys{ID: clientID(1), Name: "anna", PublicKey: make([]byte, 160), AESKey: make([]byte, 32)},
		&storage.PutFile{File: file(1, "a", "k1")}, &storage.VerifyFile{ID: clientID(1), Path: "a", Incoming: "k1"}, &storage.GetClient{ID: clientID(1)})
	changed("by an upload", false)
	if err := b.SetTargets(t.Context(), []string{"x"}); err != nil {
		t.Fatal(err)
	}
	changed("by targets", true)
	if err := b.SetTargets(t.Context(), []string{"x"}); err != nil {
		t.Fatal(err)
	}
	changed("by the same targets", false)
	apply(t, a, &storage.PutFile{File: file(1, "b", "k2")})
	if n := len(a.Recorded()); n != 1 {
		t.Error("a records nothing for the targets that b has set")
	}
	<-a.Recorded()
	changed("by its own upload", false)
	select {
	case <-a.Recorded(): // it may be told of its own
	default:
	}
	apply(t, b, &storage.PutFile{File: file(1, "c", "k3")})
	changed("by an upload, with events", false)
	if n := len(a.Recorded()); n != 1 {
		t.Error("a is not told of an event that b has recorded")
	}
}

// Who listens is told of another server's steering without a look, and again after the connection was
// lost; of uploads, and of what happens in another schema, it is not.
func TestSteeringIsAnnounced(t *testing.T) {
	address := schema(t)
	a, b, other := open(t, address), open(t, address), open(t, schema(t))
	steered := a.Steered()
	<-steered // it listens
	apply(t, b, addClient(1, "anna"), &storage.PutFile{File: file(1, "a", "k1")})
	apply(t, other, addClient(1, "anna"), &storage.DisableClient{ID: clientID(1), Disabled: true, Outcome: storage.Outcome{By: storage.Server}})
	if len(steered) > 0 {
		t.Error("an upload, or another schema, is announced")
	}
	for _, lost := range []bool{false, true} {
		if lost {
			_, err := b.pool.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
			if err != nil {
				t.Fatal(err)
			}
			<-steered // it listens again
		}
		apply(t, b, &storage.DisableClient{ID: clientID(1), Disabled: !lost, Outcome: storage.Outcome{By: storage.Server}})
		<-steered
		if changed, err := a.Changed(t.Context()); err != nil || !changed {
			t.Errorf("what is announced is %v, %v", changed, err)
		}
	}
}

// A server is told of the events that are due, however they became so: another one has made them due
// again, or committed them behind later ones.
func TestDueEventsAreTold(t *testing.T) {
	address := schema(t)
	a, b := open(t, address), open(t, address)
	if err := b.SetTargets(t.Context(), []string{"x"}); err != nil {
		t.Fatal(err)
	}
	told := func(what string, want bool) {
		t.Helper()
		if _, err := a.Changed(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-a.Recorded():
			if !want {
				t.Errorf("%s: a is told of events", what)
			}
		default:
			if want {
				t.Errorf("%s: a is not told", what)
			}
		}
	}
	told("before there is any", false)
	late, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Rollback(context.Background())
	if _, err := late.Exec(t.Context(), "SELECT record_event('registered', '', $1, 'ben', NULL)", id(clientID(2))); err != nil {
		t.Fatal(err)
	}
	apply(t, b, addClient(1, "anna"))
	told("the second event", true)
	next, err := b.NextEvents(t.Context(), "x", 10)
	if err != nil || len(next) != 1 {
		t.Fatalf("%d events, %v", len(next), err)
	}
	postpone := &storage.PostponeEvent{Seq: next[0].Seq, Due: time.Now().Add(time.Hour), Failure: "no"}
	apply(t, b, postpone)
	told("put off", false)
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	told("the first event, committed behind the second", true)
	if next, err = b.NextEvents(t.Context(), "x", 1); err != nil || next[0].Client != clientID(2) {
		t.Fatalf("%+v, %v", next, err)
	}
	apply(t, b, &storage.EventTold{Event: next[0]})
	told("told", false)
	apply(t, b, &storage.RetryEvents{})
	told("due again", true)
}

// A commit is durable also where the database was told not to wait for the disk.
func TestDurable(t *testing.T) {
	p := testservices.NewPostgres(t, testservices.PostgresOptions{Settings: []string{
		"synchronous_commit = off", "default_transaction_isolation = 'serializable'", "timezone = 'Asia/Kathmandu'", "datestyle = 'SQL, DMY'"}})
	address, err := p.Database()
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, address)
	prepare(t, r)
	var commit, isolation string
	err = r.pool.QueryRow(t.Context(), "SELECT current_setting('synchronous_commit'), current_setting('transaction_isolation')").Scan(&commit, &isolation)
	if err != nil || commit != "on" || isolation != "read committed" {
		t.Errorf("synchronous_commit %s, isolation %s, %v", commit, isolation, err)
	}
	put := &storage.PutFile{File: file(1, "waits", "w2")}
	apply(t, r, put)
	if put.Replaced == nil || !put.Replaced.Received.Equal(moment) {
		t.Errorf("replaced %+v, want a file received at %v", put.Replaced, moment)
	}
}

// The database looks whether the machine of a server is still there. Else a batch of which half has come would keep the
// rows of its clients locked for hours.
func TestDeadMachineIsNoticed(t *testing.T) {
	r := open(t, schema(t))
	var idle, interval, count string
	err := r.pool.QueryRow(t.Context(), "SELECT current_setting('tcp_keepalives_idle'), current_setting('tcp_keepalives_interval'),"+
		" current_setting('tcp_keepalives_count')").Scan(&idle, &interval, &count)
	if err != nil || idle != "10" || interval != "5" || count != "3" {
		t.Errorf("keepalive after %s s, then every %s s, %s times, %v", idle, interval, count, err)
	}
}
