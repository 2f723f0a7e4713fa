package postgres

import (
	"os"
	"testing"

	"sealift/internal/testservices"
	"sealift/storage"
	"sealift/storage/storagetest"
)

func TestMain(m *testing.M) { os.Exit(testservices.Main(m)) }

func open(t testing.TB, url string) *Registry {
	t.Helper()
	r, err := Open(t.Context(), url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestRegistry(t *testing.T) {
	storagetest.TestRegistry(t, func(t *testing.T) storage.Registry { return open(t, schema(t)) })
}

func TestShared(t *testing.T) {
	storagetest.TestShared(t, func(t *testing.T) (a, b storage.Registry) {
		url := schema(t)
		return open(t, url), open(t, url)
	})
}

func BenchmarkRegistry(b *testing.B) {
	p := testservices.NewPostgres(b, testservices.PostgresOptions{Fsync: true})
	url, err := p.Database()
	if err != nil {
		b.Fatal(err)
	}
	storagetest.BenchmarkRegistry(b, open(b, url))
}
