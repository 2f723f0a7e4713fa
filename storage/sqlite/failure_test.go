package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/storage"
)

var moment = time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

func add(n int, name string) *storage.AddClient {
	return &storage.AddClient{Outcome: storage.Outcome{At: moment}, ID: codec.ClientID{15: byte(n)}, Name: name}
}

func apply(t testing.TB, r *Registry, batch ...storage.Operation) {
	t.Helper()
	if err := r.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

// names returns the names of all clients.
func names(t testing.TB, r *Registry) string {
	t.Helper()
	var all []string
	err := r.Clients(t.Context(), func(c storage.Client) error { all = append(all, c.Name); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func wantNames(t testing.TB, r *Registry, want string) {
	t.Helper()
	if got := names(t, r); got != want {
		t.Errorf("clients %q, want %q", got, want)
	}
}

// other is another process's connection to the database.
func other(t testing.TB, path string) *conn {
	t.Helper()
	r, err := newRegistry(path, "rw", time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.connect(t.Context(), checkSchema)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c
}

func run(t testing.TB, c *conn, text string) {
	t.Helper()
	if err := c.run(t.Context(), text); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a database? with 100% of #odd; characters'.db")
	r := open(t, path)
	f := storage.File{
		ID: codec.ClientID{15: 1}, FileName: `C:\a.txt`, Path: "a.txt", Incoming: "00ff",
		Size: 7, Cksum: 4_294_967_295, Received: moment,
	}
	apply(t, r, add(1, "anna"), &storage.PutFile{File: f},
		&storage.SetKeys{ID: f.ID, Name: "anna", PublicKey: make([]byte, 160), AESKey: make([]byte, 32)})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: the database holds keys and must be its owner's alone", info.Mode(), err)
	}
	r = open(t, path)
	get := &storage.GetFile{ID: f.ID, Path: f.Path}
	apply(t, r, get)
	if get.Unverified == nil || *get.Unverified != f {
		t.Errorf("got %+v, want %+v", get.Unverified, f)
	}
	taken := add(2, "anna")
	apply(t, r, taken)
	if !errors.Is(taken.Err, storage.ErrNameTaken) {
		t.Errorf("the name again: %v", taken.Err)
	}
}

// What a batch did is in the database when Apply returns, and not only when
// the registry is closed: the files are copied as a kill would leave them.
func TestDurableWithoutClose(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	r := open(t, filepath.Join(dir, "defensive.db"))
	apply(t, r, add(1, "anna"))
	apply(t, r, add(2, "ben"))
	for _, name := range []string{"defensive.db", "defensive.db-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wantNames(t, open(t, filepath.Join(copied, "defensive.db")), "anna ben")
}

// The tables and columns of the protocol documents, as other programs see them.
func TestSchemaOfTheDocuments(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r := open(t, path)
	f := storage.File{
		ID: codec.ClientID{15: 1}, FileName: "Ä.txt", Path: "d/a.txt", Incoming: "00ff", Received: moment,
	}
	apply(t, r, add(1, "anna"), &storage.PutFile{File: f}, &storage.VerifyFile{ID: f.ID, Path: f.Path, Incoming: "00ff"})
	c := other(t, path)
	for query, want := range map[string]any{
		"SELECT hex(ID) || Name || (PublicKey IS NULL) || (AESKey IS NULL) || LastSeen || '' FROM clients": "00000000000000000000000000000001anna112026-03-04T05:06:07.089Z",
		"SELECT hex(ID) || FileName || Verified || PathName FROM files":                                    "00000000000000000000000000000001Ä.txt1files/00000000000000000000000000000001/d/a.txt",
		"SELECT datetime(LastSeen) || '' FROM clients":                                                     "2026-03-04 05:06:07",
		"PRAGMA journal_mode": "wal",
	} {
		if got, err := c.value(t.Context(), query); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", query, got, err, want)
		}
	}
}

// A row that somebody edited beyond recognition is an error, not a panic, and
// hides no other.
func TestEditedRows(t *testing.T) {
	for _, edit := range []string{
		"UPDATE clients SET LastSeen = 'yesterday' WHERE Name = 'anna'",
		"UPDATE clients SET Name = x'ff' WHERE Name = 'anna'",
		"UPDATE files SET PathName = '../../etc/passwd' WHERE FileName = 'a'",
		"UPDATE files SET PathName = x'00' WHERE FileName = 'a'",
		"UPDATE files SET ID = x'01' WHERE FileName = 'a'",
		"UPDATE files SET Size = 'large' WHERE FileName = 'a'",
		"UPDATE files SET Size = -1 WHERE FileName = 'a'",
		"UPDATE files SET Cksum = 4294967296 WHERE FileName = 'a'",
		"UPDATE files SET Incoming = NULL WHERE FileName = 'a'",
		"UPDATE files SET Received = 7 WHERE FileName = 'a'",
		"UPDATE partials SET PathName = x'00' WHERE FileName = 'p'",
		"UPDATE partials SET PathName = 'p' WHERE FileName = 'p'",
		"UPDATE partials SET Incoming = '' WHERE FileName = 'p'",
		"UPDATE partials SET Length = -1 WHERE FileName = 'p'",
		"UPDATE partials SET Length = Total + 1 WHERE FileName = 'p'",
		"UPDATE partials SET Total = 9223372036854775807 WHERE FileName = 'p'",
		"UPDATE partials SET Total = 'large' WHERE FileName = 'p'",
		"UPDATE partials SET State = 4294967296 WHERE FileName = 'p'",
		"UPDATE partials SET Boot = 7.5, Generation = x'ff' WHERE FileName = 'p'",
		"UPDATE partials SET Generation = 9223372036854775807 WHERE FileName = 'p'",
		"UPDATE partials SET Changed = 'later' WHERE FileName = 'p'",
	} {
		t.Run(edit, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "defensive.db")
			r := open(t, path)
			f := storage.File{ID: codec.ClientID{15: 1}, FileName: "a", Path: "a", Incoming: "00ff", Received: moment}
			apply(t, r, add(1, "anna"), add(3, "carl"), &storage.PutFile{File: f})
			const more = 2*page + 1
			for i := range more { // before it and behind it
				g := f
				g.ID[0], g.FileName, g.Path = byte(i%2), "another", fmt.Sprint(i)
				if g.ID[0] == 1 {
					g.ID = codec.ClientID{15: 3}
				}
				apply(t, r, &storage.PutFile{File: g})
			}
			var batch []storage.Operation
			for i := range more {
				p := storage.Partial{ID: f.ID, FileName: "p", Path: "p", Incoming: "00fe", Total: 9, Generation: 1, Changed: moment}
				if i > 0 {
					p.FileName, p.Path = "another", fmt.Sprint(i)
				}
				batch = append(batch, &storage.PutPartial{Partial: p})
			}
			apply(t, r, batch...)
			run(t, other(t, path), edit)
			clients, files := 0, 0
			err := errors.Join(
				r.Clients(t.Context(), func(storage.Client) error { clients++; return nil }),
				r.Files(t.Context(), func(storage.File) error { files++; return nil }),
				r.Partials(t.Context(), func(storage.Partial) error { files++; return nil }))
			if !errors.Is(err, storage.ErrBadRows) || !strings.Contains(err.Error(), "is not one that Sealift wrote") {
				t.Errorf("listing: %v", err)
			}
			if clients+files != 2+1+2*more-1 {
				t.Errorf("listed %d clients and %d files, want all but one", clients, files)
			}
			// Whoever asks for it gets the error, and others in the batch none.
			client, file := &storage.GetClient{ID: f.ID}, &storage.GetFile{ID: f.ID, Path: "a"}
			part := &storage.GetFile{ID: f.ID, Path: "p", WithPartial: true}
			ben := add(2, "ben")
			apply(t, r, client, file, part, ben)
			if client.Err == nil && file.Err == nil && part.Err == nil || ben.Err != nil {
				t.Errorf("GetClient: %v, GetFile: %v, %v, AddClient of another: %v", client.Err, file.Err, part.Err, ben.Err)
			}
		})
	}
}

// Whole pages of such rows are passed over, each is counted once, and the first few
// are named.
func TestNothingButEditedRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r := open(t, path)
	apply(t, r, add(1, "anna"))
	const all = 2*page + 1
	for i := range all {
		apply(t, r, &storage.PutFile{File: storage.File{ID: codec.ClientID{15: 1}, FileName: "a", Path: fmt.Sprint(i), Incoming: "00ff"}})
	}
	run(t, other(t, path), "UPDATE files SET Size = -1")
	err := r.Files(t.Context(), func(f storage.File) error { t.Errorf("%+v", f); return nil })
	if !errors.Is(err, storage.ErrBadRows) || !strings.Contains(err.Error(), fmt.Sprintf(" %d records", all)) {
		t.Errorf("listing: %v", err)
	}
	if n := strings.Count(fmt.Sprint(err), errRow.Error()); n != maxBadTold {
		t.Errorf("the error names %d rows, want %d", n, maxBadTold)
	}
}

func TestOpenWhatIsNoRegistry(t *testing.T) {
	tests := map[string]struct {
		make func(path string) error
		want error
	}{
		"rubbish": {func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("This is no database. ", 500)), 0o600)
		}, ErrNotDatabase},
		"short rubbish": {func(path string) error { return os.WriteFile(path, []byte("no"), 0o600) }, ErrNotDatabase},
		"newer": {func(path string) error {
			return foreign(path, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion+1))
		}, ErrNewer},
		"another program's": {func(path string) error {
			return foreign(path, "CREATE TABLE clients (ID, Name, PublicKey, LastSeen, AESKey)")
		}, ErrForeign},
		"another program's, of a version": {func(path string) error {
			return foreign(path, "CREATE TABLE notes (text)", "PRAGMA user_version = 1")
		}, ErrForeign},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "defensive.db")
			if err := tt.make(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Open(t.Context(), path, Options{})
			if !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), path) {
				t.Errorf("Open: %v, %v, want %v and the path", r, err, tt.want)
			}
			if _, err := OpenReadOnly(t.Context(), path); !errors.Is(err, tt.want) {
				t.Errorf("OpenReadOnly: %v, want %v", err, tt.want)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
				t.Errorf("the file changed (%v)", err)
			}
		})
	}
	t.Run("a directory", func(t *testing.T) {
		if r, err := Open(t.Context(), t.TempDir(), Options{}); err == nil {
			t.Errorf("Open: %v, no error", r)
		}
	})
	t.Run("no such directory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "none", "defensive.db")
		if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open: %v, want ErrNotExist", err)
		}
	})
}

// foreign runs statements in a database that need not be Sealift's.
func foreign(path string, statements ...string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			return err
		}
	}
	return nil
}

func TestLockedByAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r, err := Open(t.Context(), path, Options{BusyTimeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	apply(t, r, add(1, "anna"))
	c := other(t, path)
	run(t, c, "BEGIN EXCLUSIVE")
	for range 3 {
		if err := r.Apply(t.Context(), []storage.Operation{add(2, "ben")}); !errors.Is(err, ErrLocked) {
			t.Errorf("Apply: %v, want ErrLocked", err)
		}
	}
	wantNames(t, r, "anna") // reading goes on
	run(t, c, "ROLLBACK")
	apply(t, r, add(2, "ben"))
	wantNames(t, r, "anna ben")
}

// The longest wait for a lock is the busy timeout or the context's, whichever
// ends first.
func TestContextEndsTheWaitForALock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r, err := Open(t.Context(), path, Options{BusyTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	apply(t, r, add(1, "anna"))
	c := other(t, path)
	run(t, c, "BEGIN EXCLUSIVE")
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := r.Apply(ctx, []storage.Operation{add(2, "ben")}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Apply: %v, want DeadlineExceeded", err)
		}
		cancel()
	}
	// And the wait ends well when the other lets go.
	done := make(chan error)
	go func() { done <- r.Apply(t.Context(), []storage.Operation{add(2, "ben")}) }()
	run(t, c, "ROLLBACK")
	if err := <-done; err != nil {
		t.Errorf("Apply: %v", err)
	}
	wantNames(t, r, "anna ben")
}

func TestOpenOfALocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r := open(t, path)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	c := other(t, path)
	run(t, c, "PRAGMA locking_mode = EXCLUSIVE")
	run(t, c, "BEGIN EXCLUSIVE")
	if _, err := Open(t.Context(), path, Options{BusyTimeout: 10 * time.Millisecond}); !errors.Is(err, ErrLocked) {
		t.Errorf("Open: %v, want ErrLocked", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, path, Options{BusyTimeout: time.Hour}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open: %v, want DeadlineExceeded", err)
	}
}

// A server does not start on a WAL that cannot be folded into the database, because
// another process reads what is before its end.
func TestOpenWhileAnotherReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r := open(t, path)
	apply(t, r, add(1, "anna"))
	reading := other(t, path)
	run(t, reading, "BEGIN")
	if _, err := reading.value(t.Context(), "SELECT count(*) FROM clients"); err != nil {
		t.Fatal(err)
	}
	apply(t, r, add(2, "ben"))
	if second, err := Open(t.Context(), path, Options{BusyTimeout: time.Millisecond}); !errors.Is(err, ErrLocked) {
		t.Errorf("Open: %v, %v, want ErrLocked", second, err)
	}
	run(t, reading, "COMMIT")
	second, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	wantNames(t, second, "anna ben")
}

// A process beside a server waits for nobody who reads, and the server writes on.
func TestOpenBesideWhileAnotherReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r := open(t, path)
	apply(t, r, add(1, "anna"))
	reading := other(t, path)
	run(t, reading, "BEGIN")
	if _, err := reading.value(t.Context(), "SELECT count(*) FROM clients"); err != nil {
		t.Fatal(err)
	}
	apply(t, r, add(2, "ben"))
	beside, err := Open(t.Context(), path, Options{Fsync: true, BusyTimeout: time.Millisecond, Beside: true})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, beside, add(3, "cleo"))
	apply(t, r, add(4, "dora"))
	if err := beside.Close(); err != nil {
		t.Error(err)
	}
	wantNames(t, r, "anna ben cleo dora")
}

// A full disk fails the batch as a whole, and the one after it works again.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r := open(t, path)
	apply(t, r, add(1, "anna"))
	limit := func(c *conn) {
		run(t, c, "PRAGMA max_page_count = 1") // rounds up to what there is
	}
	var batch []storage.Operation
	batch = append(batch, add(2, "ben"))
	for i := range 100 {
		f := storage.File{
			ID: codec.ClientID{15: 1}, FileName: strings.Repeat("f", 250), Path: fmt.Sprint("f", i),
			Incoming: "00ff", Received: moment,
		}
		batch = append(batch, &storage.PutFile{File: f})
	}
	c := <-r.writer
	limit(c)
	r.writer <- c
	if err := r.Apply(t.Context(), batch); err == nil || !strings.Contains(err.Error(), "full") {
		t.Fatalf("Apply: %v, want that it is full", err)
	}
	wantNames(t, r, "anna")
	// The failure cost the connection its limit: there is room again.
	apply(t, r, batch...)
	for i, op := range batch[1:] {
		if err := op.(*storage.PutFile).Err; err != nil {
			t.Errorf("operation %d: %v", i, err)
		}
	}
	wantNames(t, r, "anna ben")
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "defensive.db")
	if _, err := OpenReadOnly(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a database: %v, want ErrNotExist", err)
	}
	r := open(t, path)
	apply(t, r, add(1, "anna"))
	ro, err := OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatalf("beside a server: %v", err)
	}
	defer ro.Close()
	wantNames(t, ro, "anna")
	apply(t, r, add(2, "ben"))
	wantNames(t, ro, "anna ben") // it keeps up
	get := &storage.GetClient{ID: codec.ClientID{15: 2}}
	apply(t, ro, get)
	if get.Client.Name != "ben" {
		t.Errorf("GetClient: %+v, %v", get.Client, get.Err)
	}
	if err := ro.Apply(t.Context(), []storage.Operation{add(3, "carl")}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("AddClient: %v, want ErrReadOnly", err)
	}
	seen := &storage.GetClient{ID: codec.ClientID{15: 2}}
	seen.At = moment
	if err := ro.Apply(t.Context(), []storage.Operation{seen}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("GetClient that sets LastSeen: %v, want ErrReadOnly", err)
	}
	if err := errors.Join(ro.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}

	// And without a server, when the WAL is gone.
	ro, err = OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatalf("without a server: %v", err)
	}
	wantNames(t, ro, "anna ben")
	if err := ro.Close(); err != nil {
		t.Error(err)
	}
}

// SQLite opens a file that it may only read without a word.
func TestOpenOfAReadOnlyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	open(t, path)
	r, err := newRegistry(path, "ro", 0)
	if err != nil {
		t.Fatal(err)
	}
	r.writes = true
	if _, err := r.connect(t.Context(), r.prepareSchema); !errors.Is(err, ErrReadOnly) {
		t.Errorf("connect: %v, want ErrReadOnly", err)
	}
}

func TestOpenReadOnlyChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReadOnly(t.Context(), path); !errors.Is(err, ErrForeign) {
		t.Errorf("an empty file: %v, want ErrForeign", err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// Two processes that make the same database at the same time both get it.
func TestOpenAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	errs := make(chan error)
	const n = 8
	for i := range n {
		go func() {
			r, err := Open(t.Context(), path, Options{})
			if err == nil {
				err = r.Apply(t.Context(), []storage.Operation{add(i, fmt.Sprint("client", i))})
				err = errors.Join(err, r.Close())
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := len(strings.Fields(names(t, open(t, path)))); got != n {
		t.Errorf("%d clients, want %d", got, n)
	}
}
