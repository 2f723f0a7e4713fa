package postgres

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
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

// durable returns an empty registry in a PostgreSQL that syncs.
func durable(b *testing.B) *Registry {
	p := testservices.NewPostgres(b, testservices.PostgresOptions{Fsync: true})
	url, err := p.Database()
	if err != nil {
		b.Fatal(err)
	}
	return open(b, url)
}

func BenchmarkRegistry(b *testing.B) { storagetest.BenchmarkRegistry(b, durable(b)) }

func BenchmarkSessions(b *testing.B) { storagetest.BenchmarkSessions(b, durable(b)) }

// two are two servers' registries on one database: each batch goes to the next one.
type two struct {
	*Registry
	other *Registry
	n     atomic.Int64
}

func (r *two) Apply(ctx context.Context, batch []storage.Operation) error {
	if r.n.Add(1)%2 == 0 {
		return r.other.Apply(ctx, batch)
	}
	return r.Registry.Apply(ctx, batch)
}

func (r *two) SetTargets(ctx context.Context, targets []string) error {
	if err := r.Registry.SetTargets(ctx, targets); err != nil {
		return err
	}
	_, err := r.other.Changed(ctx)
	return err
}

func (r *two) Close() error { return errors.Join(r.Registry.Close(), r.other.Close()) }

// Two servers are as one.
func TestTwo(t *testing.T) {
	storagetest.TestRegistry(t, func(t *testing.T) storage.Registry {
		url := schema(t)
		r := &two{Registry: open(t, url), other: open(t, url)}
		r.other.recorded = r.Registry.recorded
		return r
	})
}
