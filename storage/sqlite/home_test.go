package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sealift/storage"
)

// tables of the schema with that version, as that version's program made them.
var oldSchemas = map[int][]string{
	1: {
		"CREATE TABLE clients (ID BLOB NOT NULL PRIMARY KEY CHECK (length(ID) = 16), Name TEXT NOT NULL UNIQUE," +
			" PublicKey BLOB, LastSeen DATETIME, AESKey BLOB)",
		"CREATE TABLE files (ID BLOB NOT NULL REFERENCES clients (ID), FileName TEXT NOT NULL, PathName TEXT NOT NULL," +
			" Verified BOOLEAN NOT NULL CHECK (Verified IN (0, 1)), Size INTEGER NOT NULL, Cksum INTEGER NOT NULL," +
			" Incoming TEXT, Received DATETIME, PRIMARY KEY (ID, PathName, Verified))",
	},
	2: {
		"CREATE TABLE clients (ID BLOB NOT NULL PRIMARY KEY CHECK (length(ID) = 16), Name TEXT NOT NULL UNIQUE," +
			" PublicKey BLOB, LastSeen DATETIME, AESKey BLOB)",
		"CREATE TABLE files (ID BLOB NOT NULL REFERENCES clients (ID), FileName TEXT NOT NULL, PathName TEXT NOT NULL," +
			" Verified BOOLEAN NOT NULL CHECK (Verified IN (0, 1)), Size INTEGER NOT NULL, Cksum INTEGER NOT NULL," +
			" Incoming TEXT, Received DATETIME, Missing BOOLEAN NOT NULL DEFAULT 0 CHECK (Missing IN (0, 1))," +
			" Lapsed BOOLEAN NOT NULL DEFAULT 0 CHECK (Lapsed IN (0, 1)), PRIMARY KEY (ID, PathName, Verified))",
	},
	3: {
		"CREATE TABLE clients (ID BLOB NOT NULL PRIMARY KEY CHECK (length(ID) = 16), Name TEXT NOT NULL UNIQUE," +
			" PublicKey BLOB, LastSeen DATETIME, AESKey BLOB, TLSKey BLOB CHECK (length(TLSKey) = 32))",
		"CREATE TABLE files (ID BLOB NOT NULL REFERENCES clients (ID), FileName TEXT NOT NULL, PathName TEXT NOT NULL," +
			" Verified BOOLEAN NOT NULL CHECK (Verified IN (0, 1)), Size INTEGER NOT NULL, Cksum INTEGER NOT NULL," +
			" Incoming TEXT, Received DATETIME, Missing BOOLEAN NOT NULL DEFAULT 0 CHECK (Missing IN (0, 1))," +
			" Lapsed BOOLEAN NOT NULL DEFAULT 0 CHECK (Lapsed IN (0, 1)), PRIMARY KEY (ID, PathName, Verified))",
	},
	4: {
		"CREATE TABLE clients (ID BLOB NOT NULL PRIMARY KEY CHECK (length(ID) = 16), Name TEXT NOT NULL UNIQUE," +
			" PublicKey BLOB, LastSeen DATETIME, AESKey BLOB, TLSKey BLOB CHECK (length(TLSKey) = 32)," +
			" Disabled BOOLEAN NOT NULL DEFAULT 0 CHECK (Disabled IN (0, 1)))",
		"CREATE TABLE files (ID BLOB NOT NULL REFERENCES clients (ID), FileName TEXT NOT NULL, PathName TEXT NOT NULL," +
			" Verified BOOLEAN NOT NULL CHECK (Verified IN (0, 1)), Size INTEGER NOT NULL, Cksum INTEGER NOT NULL," +
			" Incoming TEXT, Received DATETIME, Missing BOOLEAN NOT NULL DEFAULT 0 CHECK (Missing IN (0, 1))," +
			" Lapsed BOOLEAN NOT NULL DEFAULT 0 CHECK (Lapsed IN (0, 1)), Taken DATETIME," +
			" Deleted BOOLEAN NOT NULL DEFAULT 0 CHECK (Deleted IN (0, 1)), PRIMARY KEY (ID, PathName, Verified))",
		"CREATE TABLE names (Name TEXT NOT NULL PRIMARY KEY)",
		"CREATE INDEX leaving ON files (ID, PathName, Verified DESC) WHERE Deleted <> 0 OR Taken IS NOT NULL AND Missing = 0",
	},
	5: {
		"CREATE TABLE clients (ID BLOB NOT NULL PRIMARY KEY CHECK (length(ID) = 16), Name TEXT NOT NULL UNIQUE," +
			" PublicKey BLOB, LastSeen DATETIME, AESKey BLOB, TLSKey BLOB CHECK (length(TLSKey) = 32)," +
			" Disabled BOOLEAN NOT NULL DEFAULT 0 CHECK (Disabled IN (0, 1)), QuotaBytes INTEGER NOT NULL DEFAULT 0," +
			" QuotaFiles INTEGER NOT NULL DEFAULT 0, UsedBytes INTEGER, UsedFiles INTEGER, KeepFor INTEGER NOT NULL DEFAULT 0," +
			" Expires DATETIME)",
		"CREATE TABLE files (ID BLOB NOT NULL REFERENCES clients (ID), FileName TEXT NOT NULL, PathName TEXT NOT NULL," +
			" Verified BOOLEAN NOT NULL CHECK (Verified IN (0, 1)), Size INTEGER NOT NULL, Cksum INTEGER NOT NULL," +
			" Incoming TEXT, Received DATETIME, Missing BOOLEAN NOT NULL DEFAULT 0 CHECK (Missing IN (0, 1))," +
			" Lapsed BOOLEAN NOT NULL DEFAULT 0 CHECK (Lapsed IN (0, 1)), Taken DATETIME," +
			" Deleted BOOLEAN NOT NULL DEFAULT 0 CHECK (Deleted IN (0, 1)), PRIMARY KEY (ID, PathName, Verified))",
		"CREATE TABLE names (Name TEXT NOT NULL PRIMARY KEY)",
		"CREATE INDEX leaving ON files (ID, PathName, Verified DESC) WHERE Deleted <> 0 OR Taken IS NOT NULL AND Missing = 0",
		"CREATE TABLE partials (ID BLOB NOT NULL REFERENCES clients (ID), FileName TEXT NOT NULL, PathName TEXT NOT NULL," +
			" Incoming TEXT NOT NULL, Total INTEGER NOT NULL, Length INTEGER NOT NULL, State INTEGER NOT NULL, Boot TEXT NOT NULL," +
			" Generation INTEGER NOT NULL, Changed DATETIME, Deleted BOOLEAN NOT NULL DEFAULT 0 CHECK (Deleted IN (0, 1))," +
			" PRIMARY KEY (ID, PathName))",
		"CREATE INDEX expiring ON clients (Expires) WHERE Expires IS NOT NULL",
		"CREATE TABLE eventTargets (Name TEXT NOT NULL PRIMARY KEY)",
		"CREATE TABLE events (Seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, Target TEXT NOT NULL, EventID TEXT NOT NULL," +
			" Kind TEXT NOT NULL, Why TEXT NOT NULL, Happened DATETIME NOT NULL, ID BLOB NOT NULL, ClientName TEXT NOT NULL," +
			" FileName TEXT NOT NULL, Path TEXT NOT NULL, Version TEXT NOT NULL, Size INTEGER NOT NULL, Cksum INTEGER NOT NULL," +
			" Attempts INTEGER NOT NULL DEFAULT 0, Failure TEXT NOT NULL DEFAULT '', Due INTEGER)",
		"CREATE INDEX eventsDue ON events (Target, Due) WHERE Due IS NOT NULL",
		"CREATE INDEX eventsOfClient ON events (Target, ID, Seq)",
	},
}

// fileColumns1 are the columns of files in schema 1, which every later one has too.
const fileColumns1 = "ID, FileName, PathName, Verified, Size, Cksum, Incoming, Received"

// A database of each earlier schema is brought up to date, with what is in it.
func TestMigration(t *testing.T) {
	for version, schema := range oldSchemas {
		path := filepath.Join(t.TempDir(), "defensive.db")
		id := add(1, "").ID
		at := "'" + moment.Format(timeFormat) + "'"
		statements := append(schema,
			fmt.Sprintf("INSERT INTO clients (ID, Name, LastSeen) VALUES (x'%s', 'anna', %s)", id, at),
			fmt.Sprintf("INSERT INTO files ("+fileColumns1+") VALUES (x'%s', 'a', 'files/%s/a', 1, 10, 11, NULL, %s)", id, id, at),
			fmt.Sprintf("INSERT INTO files ("+fileColumns1+") VALUES (x'%s', 'a', 'files/%s/a', 0, 20, 21, 'k2', %s)", id, id, at),
			fmt.Sprintf("PRAGMA user_version = %d", version))
		if err := foreign(path, statements...); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenReadOnly(t.Context(), path); !errors.Is(err, ErrOlder) {
			t.Errorf("schema %d, for reading only: %v, want ErrOlder", version, err)
		}
		r := open(t, path)
		wantNames(t, r, "anna")
		get := &storage.GetFile{ID: id, Path: "a"}
		apply(t, r, get)
		old := storage.File{ID: id, FileName: "a", Path: "a", Verified: true, Size: 10, Cksum: 11, Received: moment}
		waiting := storage.File{ID: id, FileName: "a", Path: "a", Incoming: "k2", Size: 20, Cksum: 21, Received: moment}
		if *get.Verified != old || *get.Unverified != waiting {
			t.Errorf("schema %d: %+v, %+v", version, get.Verified, get.Unverified)
		}
		apply(t, r, &storage.DropFile{ID: id, Path: "a", Incoming: "k2"}, &storage.MarkFile{ID: id, Path: "a", Missing: true}, get)
		if old.Missing, old.Lapsed = true, true; *get.Verified != old {
			t.Errorf("schema %d: %+v", version, get.Verified)
		}
		pin := &storage.PinClient{ID: id, TLSKey: bytes.Repeat([]byte{7}, 32)}
		client := &storage.GetClient{Outcome: storage.Outcome{By: storage.OverChannel(pin.TLSKey)}, ID: id}
		apply(t, r, pin, client)
		if !bytes.Equal(client.Client.TLSKey, pin.TLSKey) {
			t.Errorf("schema %d: pinned to %x", version, client.Client.TLSKey)
		}
		p := storage.Partial{ID: id, FileName: "b", Path: "b", Incoming: "k3", Total: 30, Length: 7, State: 8, Generation: 1, Changed: moment}
		apply(t, r, &storage.PutPartial{Outcome: client.Outcome, Partial: p})
		wantPartials(t, r, p)
		steered(t, r, version, old)
		apply(t, r, &storage.LeaseUpload{Upload: storage.Uploaded{Place: p.Place(), Key: "k4"}, For: time.Hour}, &storage.EndLease{Key: "k4"})
		if err := r.SetTargets(t.Context(), []string{"x"}); err != nil {
			t.Errorf("schema %d: %v", version, err)
		}
		apply(t, r, add(9, "carl"))
		if next, err := r.NextEvents(t.Context(), "x", 9); err != nil || len(next) != 1 || next[0].ClientName != "carl" {
			t.Errorf("schema %d: next to be told %+v, %v", version, next, err)
		}
		apply(t, r, &storage.DropClient{ID: add(9, "").ID})
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = open(t, path) // and the next start finds it in order
		wantNames(t, r, "anna")
		wantPartials(t, r, p)
	}
}

// steered checks that a database which had that schema can do what schema 4 brought.
func steered(t *testing.T, r *Registry, version int, f storage.File) {
	own := storage.Outcome{By: storage.Server}
	apply(t, r, &storage.MarkFile{ID: f.ID, Path: f.Path}, &storage.TakeFile{ID: f.ID, Path: f.Path, Taken: moment},
		&storage.DisableClient{ID: f.ID, Disabled: true}, &storage.AddName{Name: "ben"})
	client := &storage.GetClient{Outcome: own, ID: f.ID}
	apply(t, r, client)
	f.Missing, f.Taken = false, moment
	var leaving []storage.File
	var added []string
	err := errors.Join(
		r.Leaving(t.Context(), func(f storage.File) error { leaving = append(leaving, f); return nil }),
		r.Added(t.Context(), func(name string) error { added = append(added, name); return nil }))
	if err != nil || !slices.Equal(leaving, []storage.File{f}) || !slices.Equal(added, []string{"ben"}) || !client.Client.Disabled {
		t.Errorf("schema %d: %v, leaving %+v, added %q, disabled %v", version, err, leaving, added, client.Client.Disabled)
	}
}

// What a batch is written to must be what the next start finds. Each way to take
// the database away under a running server fails the batches until it is back.
func TestMoved(t *testing.T) {
	type step func(path, aside string) error
	both := func(from, to string) error {
		return errors.Join(os.Rename(from, to), os.Rename(from+"-wal", to+"-wal"), os.Rename(from+"-shm", to+"-shm"))
	}
	tests := map[string]struct{ take, back step }{
		"renamed": {both, func(path, aside string) error { return both(aside, path) }},
		"its folder renamed, and a new one made": {
			func(path, aside string) error {
				dir := filepath.Dir(path)
				old, err := os.Stat(dir)
				if err != nil {
					return err
				}
				return errors.Join(os.Rename(dir, aside), os.Mkdir(dir, 0o700), os.Chtimes(dir, old.ModTime(), old.ModTime()))
			},
			func(path, aside string) error {
				return errors.Join(os.Remove(filepath.Dir(path)), os.Rename(aside, filepath.Dir(path)))
			},
		},
		"another in its place": {
			func(path, aside string) error {
				if err := both(path, aside); err != nil {
					return err
				}
				r, err := Open(background, path, Options{})
				if err != nil {
					return err
				}
				return errors.Join(r.Apply(background, []storage.Operation{add(9, "other")}), r.Close())
			},
			func(path, aside string) error { return both(aside, path) },
		},
		"another in its place, and its folder with the time that it had, as rsync -a leaves it": {
			func(path, aside string) error {
				dir := filepath.Dir(path)
				old, err := os.Stat(dir)
				if err != nil {
					return err
				}
				content, err := os.ReadFile(path)
				return errors.Join(err, both(path, aside), os.WriteFile(path, content, 0o600), os.Chtimes(dir, old.ModTime(), old.ModTime()))
			},
			func(path, aside string) error { return both(aside, path) },
		},
		"its index renamed": {
			func(path, aside string) error { return os.Rename(path+"-shm", aside) },
			func(path, aside string) error { return os.Rename(aside, path+"-shm") },
		},
		"deleted":           {func(path, _ string) error { return os.Remove(path) }, nil},
		"its WAL deleted":   {func(path, _ string) error { return os.Remove(path + "-wal") }, nil},
		"its index deleted": {func(path, _ string) error { return os.Remove(path + "-shm") }, nil},
	}
	for name, tt := range tests {
		move := func(t *testing.T, quiet bool) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "srv"), 0o700); err != nil {
				t.Fatal(err)
			}
			path, aside := filepath.Join(dir, "srv", "defensive.db"), filepath.Join(dir, "aside")
			r, err := Open(t.Context(), path, Options{Fsync: true})
			if err != nil {
				t.Fatal(err)
			}
			apply(t, r, add(1, "anna"))
			get := &storage.GetClient{ID: add(1, "").ID}
			apply(t, r, get) // the reading connection is open, too
			if quiet {
				r.now = func() time.Time { return time.Now().Add(time.Hour) }
				apply(t, r, &storage.PutFile{File: storage.File{ID: add(1, "").ID, FileName: "a", Path: "a", Incoming: "k", Size: 1}})
				apply(t, r, get)
				awaitAnotherTime(t, filepath.Dir(path))
			}
			if err := tt.take(path, aside); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := r.Apply(t.Context(), []storage.Operation{add(2, "ben")}); !errors.Is(err, ErrMoved) {
					t.Errorf("a batch gets %v, want ErrMoved", err)
				}
				if err := r.Apply(t.Context(), []storage.Operation{get}); !errors.Is(err, ErrMoved) {
					t.Errorf("a question gets %v, want ErrMoved", err)
				}
			}
			if tt.back == nil {
				_ = r.Close()
				if name != "deleted" {
					wantNames(t, open(t, path), "anna")
				}
				return
			}
			if err := tt.back(path, aside); err != nil {
				t.Fatal(err)
			}
			apply(t, r, add(3, "carl"))
			wantNames(t, r, "anna carl")
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			wantNames(t, open(t, path), "anna carl")
		}
		t.Run(name, func(t *testing.T) { move(t, false) })
		t.Run(name+", long after a change in its folder", func(t *testing.T) { move(t, true) })
	}
}

// awaitAnotherTime waits until a change of a folder gives it another time.
func awaitAnotherTime(t *testing.T, path string) {
	t.Helper()
	other := t.TempDir()
	for {
		last, err1 := lookAtFolder(path)
		now, err2 := lookAtFolder(other)
		if err1 != nil || err2 != nil { // where the system does not say
			return
		}
		if now.changed.After(last.changed) {
			return
		}
		if err := errors.Join(os.Mkdir(filepath.Join(other, "x"), 0o700), os.Remove(filepath.Join(other, "x"))); err != nil {
			t.Fatal(err)
		}
	}
}

// A change of a folder that has just changed may not show in its time, which has steps of
// up to 2 s on some disks.
func TestFolderSettles(t *testing.T) {
	whole, fine := time.Unix(1000, 0), time.Unix(1000, 1e7)
	for _, tc := range []struct {
		changed time.Time
		after   time.Duration
		want    bool
	}{
		{whole, -time.Hour, false}, {whole, 0, false}, {whole, 1999 * time.Millisecond, false}, {whole, time.Minute, true},
		{fine, -time.Hour, false}, {fine, 0, false}, {fine, 20 * time.Millisecond, false}, {fine, time.Second, true},
	} {
		if got := (folder{changed: tc.changed}).settled(tc.changed.Add(tc.after)); got != tc.want {
			t.Errorf("%v after a change at %v: settled is %v, want %v", tc.after, tc.changed, got, tc.want)
		}
	}
}

// While a file stands where the database's folder was, nothing is acknowledged.
func TestFileWhereTheDatabaseWas(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "srv")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := open(t, filepath.Join(dir, "defensive.db"))
	apply(t, r, add(1, "anna"))
	if err := errors.Join(os.Rename(dir, dir+" away"), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Apply(t.Context(), []storage.Operation{add(2, "ben")}); err == nil {
			t.Error("a batch was acknowledged")
		}
	}
	if err := errors.Join(os.Remove(dir), os.Rename(dir+" away", dir)); err != nil {
		t.Fatal(err)
	}
	apply(t, r, add(3, "carl"))
	wantNames(t, r, "anna carl")
}

// Another process that opens the database after its index was deleted makes a
// new one, and the two know nothing of each other. Each batch is in the database
// afterwards, or failed.
func TestIndexDeletedBesideAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "defensive.db")
	r := open(t, path)
	apply(t, r, add(1, "anna"))
	if err := os.Remove(path + "-shm"); err != nil {
		t.Fatal(err)
	}
	another := exec.Command(os.Args[0], "-test.run=^TestAnotherProcess$")
	another.Env = append(os.Environ(), anotherDatabase+"="+path)
	if out, err := another.CombinedOutput(); err != nil {
		t.Fatalf("the other process: %v\n%s", err, out)
	}
	if err := r.Apply(t.Context(), []storage.Operation{add(3, "carl")}); !errors.Is(err, ErrMoved) {
		t.Errorf("a batch gets %v, want ErrMoved", err)
	}
	if err := r.Close(); !errors.Is(err, ErrMoved) {
		t.Errorf("Close: %v, want ErrMoved", err)
	}
	wantNames(t, open(t, path), "anna ben")
}

// anotherDatabase names, in the environment of a process that is started for it,
// the database for TestAnotherProcess.
const anotherDatabase = "SEALIFT_TEST_DATABASE"

// TestAnotherProcess is the other process of TestIndexDeletedBesideAnother. By
// itself it does its work on a database of its own.
func TestAnotherProcess(t *testing.T) {
	path := os.Getenv(anotherDatabase)
	if path == "" {
		path = filepath.Join(t.TempDir(), "defensive.db")
	}
	r, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, r, add(2, "ben"))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// A registry whose place was taken by another database does not touch that one
// when it closes.
func TestMovedAndClosed(t *testing.T) {
	dir := t.TempDir()
	path, aside := filepath.Join(dir, "defensive.db"), filepath.Join(dir, "aside.db")
	r := open(t, path)
	apply(t, r, add(1, "anna"))
	for _, end := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(path+end, aside+end); err != nil {
			t.Fatal(err)
		}
	}
	second := open(t, path)
	apply(t, second, add(2, "ben"))
	if err := r.Close(); !errors.Is(err, ErrMoved) {
		t.Errorf("Close: %v, want ErrMoved", err)
	}
	db, err := sql.Open("sqlite", path) // another process, as far as SQLite can tell
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var name string
	if err := db.QueryRow("SELECT Name FROM clients").Scan(&name); err != nil || name != "ben" {
		t.Errorf("in the other database: %q, %v", name, err)
	}
	if _, err := os.Stat(path + "-wal"); err != nil {
		t.Error("the other's WAL is gone:", err)
	}
}
