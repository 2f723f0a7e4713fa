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
	storagetest.TestRegistry(t, func(t *testing.T) storage.Registry { return open(t, testservices.SharedPostgres(t)) })
}

func TestShared(t *testing.T) {
	storagetest.TestShared(t, func(t *testing.T) (a, b storage.Registry) {
		url := testservices.SharedPostgres(t)
		return open(t, url), open(t, url)
	})
}
