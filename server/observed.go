package server

import (
	"context"
	"sync"
	"time"

	"sealift/admin"
	"sealift/storage"
	"sealift/storage/files"
)

// observedRegistry measures what goes to a registry, and remembers how it went.
type observedRegistry struct {
	storage.Registry
	metrics *admin.Metrics

	mu     sync.Mutex
	wrote  time.Time // when something was made durable last
	failed error     // why the last try to write failed, nil if it went well
}

// Apply implements [storage.Registry].
func (r *observedRegistry) Apply(ctx context.Context, batch []storage.Operation) error {
	began := time.Now()
	err := r.Registry.Apply(ctx, batch)
	took := time.Since(began)
	kind := admin.Read
	for _, op := range batch {
		if !storage.Reads(op) {
			kind = admin.Write
			r.note(ctx, batch, err)
			break
		}
	}
	r.metrics.Applied(kind, len(batch), took)
	return err
}

// note remembers how it went to write batch.
func (r *observedRegistry) note(ctx context.Context, batch []storage.Operation, err error) {
	if err != nil {
		if ctx.Err() == nil {
			r.came(err)
		}
		return
	}
	for _, op := range batch {
		if op.Result().Err == nil {
			r.came(nil)
			return
		}
	} // nothing was written
}

func (r *observedRegistry) came(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed = err; err == nil {
		r.wrote = time.Now()
	}
}

// trustWrites is how long a write that went well speaks for the next.
const trustWrites = 10 * time.Second

// writable returns nil if what is applied now would be durable, as far as can be told. It
// writes only where the last try failed, or is long ago. It may take long.
func (r *observedRegistry) writable(ctx context.Context) error {
	// The zero id is no client's. A database that is not in its place says so.
	look := &storage.GetClient{Outcome: storage.Outcome{By: storage.Server}}
	if err := r.Registry.Apply(ctx, []storage.Operation{look}); err != nil {
		return err
	}
	r.mu.Lock()
	trusted := r.failed == nil && time.Since(r.wrote) < trustWrites
	r.mu.Unlock()
	tried, ok := r.Registry.(interface{ Writable(context.Context) error })
	if trusted || !ok {
		return nil
	}
	err := tried.Writable(ctx)
	r.came(err)
	return err
}

// observedFiles measures commits, and keeps what they were about.
type observedFiles struct {
	storage.Files
	metrics *admin.Metrics
	recent  *admin.Recent
}

// Commit implements [storage.Files].
func (f *observedFiles) Commit(ctx context.Context, file *storage.File) error {
	began := time.Now()
	err := f.Files.Commit(ctx, file)
	f.metrics.Committed(time.Since(began))
	if err == nil {
		about := fileOf(file)
		about.State = "verified"
		f.recent.Add(about)
	}
	return err
}

// synced is files.Options.Synced.
func (w *watched) synced() func(files.Op, time.Duration) {
	if w == nil {
		return nil
	}
	return func(op files.Op, took time.Duration) {
		of := admin.File
		if op == files.SyncFolder {
			of = admin.Folder
		}
		w.metrics.Synced(of, took)
	}
}

// observe puts measures between the sessions and their stores.
func (w *watched) observe(registry storage.Registry, store storage.Files) (storage.Registry, storage.Files) {
	if w == nil {
		return registry, store
	}
	w.registry = &observedRegistry{Registry: registry, metrics: w.metrics}
	return w.registry, &observedFiles{store, w.metrics, &w.recent}
}
