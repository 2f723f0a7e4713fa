package testservices

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A PostgreSQL keeps what it has over a restart and a crash, and leaves nothing behind.
func TestPostgres(t *testing.T) {
	p := NewPostgres(t, PostgresOptions{Fsync: true})
	u, err := p.Database()
	if err != nil {
		t.Fatal(err)
	}
	query := func(text string) (n int) {
		t.Helper()
		c, err := pgx.Connect(context.Background(), u)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		if err := c.QueryRow(context.Background(), text).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	query("WITH x AS (SELECT 1) SELECT 1 FROM x")
	c, err := pgx.Connect(context.Background(), u)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(context.Background(), "CREATE TABLE a AS SELECT 7 AS n"); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func() error{p.Stop, p.Crash} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if p.Running() {
			t.Error("it runs after its end")
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		if n := query("SELECT n FROM a"); n != 7 {
			t.Errorf("%d after a restart, want 7", n)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.dir); !os.IsNotExist(err) {
		t.Errorf("after Close its directory is there: %v", err)
	}
}
