package postgres

import (
	"context"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"

	"sealift/internal/testservices"
	"sealift/storage"
)

// Where a URL names several hosts, a server asks the one that takes writes, also when it only reads: a replica
// may be behind, and what a sweep does not find there would be removed. A command that only reads takes any.
func TestOnlyPrimary(t *testing.T) {
	replica, primary := testservices.NewPostgres(t, testservices.PostgresOptions{}), testservices.NewPostgres(t, testservices.PostgresOptions{})
	var addresses []string
	for _, p := range []*testservices.Postgres{replica, primary} {
		address, err := p.Database()
		if err != nil {
			t.Fatal(err)
		}
		r := open(t, address)
		apply(t, r, addClient(1, "anna"))
		if p == primary {
			apply(t, r, &storage.PutFile{File: file(1, "late", "k")})
		}
		addresses = append(addresses, address)
	}
	c, err := pgx.Connect(t.Context(), addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), "ALTER USER sealift SET default_transaction_read_only = on"); err != nil { // as a replica
		t.Fatal(err)
	}
	u, err := url.Parse(addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	u.Host += "," + primary.Address()

	find := &storage.FindUpload{Upload: storage.Uploaded{Place: storage.Place{ID: clientID(1), Path: "late"}, Key: "k"}}
	apply(t, open(t, u.String()), find)
	if !find.Found {
		t.Error("a server does not find what is on record: it has asked the replica")
	}
	r, err := OpenReadOnly(t.Context(), addresses[0], Options{})
	if err != nil {
		t.Fatalf("to read from a replica alone: %v", err)
	}
	defer r.Close()
	apply(t, r, &storage.GetClient{ID: clientID(1)})
}
