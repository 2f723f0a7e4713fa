package sqlite

import (
	"database/sql"
	"path/filepath"
	"testing"

	"sealift/storage"
	"sealift/storage/storagetest"
)

func open(t testing.TB, path string) *Registry {
	t.Helper()
	r, err := Open(t.Context(), path, Options{Fsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestRegistry(t *testing.T) {
	storagetest.TestRegistry(t, func(t *testing.T) storage.Registry {
		return open(t, filepath.Join(t.TempDir(), "defensive.db"))
	})
}

func TestShared(t *testing.T) {
	storagetest.TestShared(t, func(t *testing.T) (a, b storage.Registry) {
		path := filepath.Join(t.TempDir(), "defensive.db")
		return open(t, path), open(t, path)
	})
}

func BenchmarkRegistry(b *testing.B) {
	storagetest.BenchmarkRegistry(b, open(b, filepath.Join(b.TempDir(), "defensive.db")))
}

func BenchmarkSessions(b *testing.B) {
	storagetest.BenchmarkSessions(b, open(b, filepath.Join(b.TempDir(), "defensive.db")))
}

// BenchmarkStatement compares one statement as a conn runs it with the same by
// database/sql.
func BenchmarkStatement(b *testing.B) {
	path := filepath.Join(b.TempDir(), "defensive.db")
	r := open(b, path)
	apply(b, r, add(1, "anna"))
	c := other(b, path)
	id := make([]byte, 16)
	id[15] = 1
	b.Run("conn", func(b *testing.B) {
		run(b, c, "BEGIN")
		defer run(b, c, "ROLLBACK")
		b.ReportAllocs()
		for b.Loop() {
			if n, err := c.exec(updateLastSeen, id, timestamp(moment)); n != 1 || err != nil {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("database/sql", func(b *testing.B) {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		defer tx.Rollback()
		st, err := tx.Prepare(statements[updateLastSeen])
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			res, err := st.Exec(id, timestamp(moment))
			if err != nil {
				b.Fatal(err)
			}
			if n, err := res.RowsAffected(); n != 1 || err != nil {
				b.Fatal(n, err)
			}
		}
	})
}
