package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sealift/codec"
	"sealift/storage"
)

// page is how many rows a list reads at once. Between two pages no transaction is open.
const page = 500

const (
	clientColumns  = "id, name, public_key, aes_key, last_seen, tls_key, disabled, quota_bytes, quota_files, keep_for, expires"
	fileColumns    = "id, file_name, path, waiting, size, cksum, incoming, received, missing, lapsed, taken, deleted"
	partialColumns = "id, file_name, path, incoming, total, length, state, boot, generation, changed, deleted"
	leaseColumns   = "key, id, path, server, ends"

	listClients = "SELECT " + clientColumns + " FROM clients WHERE name > $1 ORDER BY name LIMIT $2"
	listFiles   = "SELECT " + fileColumns + " FROM files WHERE (id, path, waiting) > ($1, $2, $3) ORDER BY id, path, waiting LIMIT $4"
	listLeaving = "SELECT " + fileColumns + " FROM files WHERE (deleted OR taken IS NOT NULL AND NOT missing)" +
		" AND (id, path, waiting) > ($1, $2, $3) ORDER BY id, path, waiting LIMIT $4"
	listPartials = "SELECT " + partialColumns + " FROM partials WHERE (id, path) > ($1, $2) ORDER BY id, path LIMIT $3"
	listAdded    = "SELECT name FROM names WHERE name > $1 ORDER BY name LIMIT $2"
	listLeases   = "SELECT " + leaseColumns + " FROM leases WHERE key > $1 ORDER BY key LIMIT $2"
)

// fileRow is a row of files, as columns or as JSON.
type fileRow struct {
	ID       uuid.UUID
	FileName string `json:"file_name"`
	Path     string
	Waiting  bool
	Size     int64
	Cksum    int64
	Incoming string
	Received *time.Time
	Missing  bool
	Lapsed   bool
	Taken    *time.Time
	Deleted  bool
}

// scan returns where the columns of fileColumns go.
func (f *fileRow) scan() []any {
	return []any{&f.ID, &f.FileName, &f.Path, &f.Waiting, &f.Size, &f.Cksum, &f.Incoming, &f.Received, &f.Missing, &f.Lapsed, &f.Taken, &f.Deleted}
}

// file makes a File of f; nil of nil.
func (f *fileRow) file() *storage.File {
	if f == nil {
		return nil
	}
	return &storage.File{
		ID: codec.ClientID(f.ID), FileName: f.FileName, Path: f.Path, Incoming: f.Incoming, Verified: !f.Waiting,
		Missing: f.Missing, Lapsed: f.Lapsed, Taken: timeOf(f.Taken), Deleted: f.Deleted, Size: f.Size, Cksum: uint32(f.Cksum), Received: timeOf(f.Received),
	}
}

// partialRow is a row of partials, as columns or as JSON.
type partialRow struct {
	ID         uuid.UUID
	FileName   string `json:"file_name"`
	Path       string
	Incoming   string
	Total      int64
	Length     int64
	State      int64
	Boot       string
	Generation int64
	Changed    *time.Time
	Deleted    bool
}

func (p *partialRow) scan() []any {
	return []any{&p.ID, &p.FileName, &p.Path, &p.Incoming, &p.Total, &p.Length, &p.State, &p.Boot, &p.Generation, &p.Changed, &p.Deleted}
}

// partial makes a Partial of p; nil of nil.
func (p *partialRow) partial() *storage.Partial {
	if p == nil {
		return nil
	}
	return &storage.Partial{
		ID: codec.ClientID(p.ID), FileName: p.FileName, Path: p.Path, Incoming: p.Incoming, Total: p.Total, Length: p.Length,
		State: uint32(p.State), Boot: p.Boot, Generation: p.Generation, Changed: timeOf(p.Changed), Deleted: p.Deleted,
	}
}

// leaseRow is a row of leases, as columns or as JSON.
type leaseRow struct {
	Key    string
	ID     uuid.UUID
	Path   string
	Server string
	Ends   time.Time
}

func (l *leaseRow) scan() []any { return []any{&l.Key, &l.ID, &l.Path, &l.Server, &l.Ends} }

func (l *leaseRow) lease() storage.Lease {
	return storage.Lease{
		Upload: storage.Uploaded{Place: storage.Place{ID: codec.ClientID(l.ID), Path: l.Path}, Key: l.Key},
		Server: l.Server, Ends: roundTime(l.Ends),
	}
}

// clientRow is a row of clients.
type clientRow struct {
	storage.Client
	id       uuid.UUID
	lastSeen *time.Time
	keepFor  int64
	expires  *time.Time
}

func (c *clientRow) scan() []any {
	return []any{&c.id, &c.Name, &c.PublicKey, &c.AESKey, &c.lastSeen, &c.TLSKey, &c.Disabled, &c.Quota.Bytes, &c.Quota.Files, &c.keepFor, &c.expires}
}

func (c *clientRow) client() storage.Client {
	c.ID, c.LastSeen, c.KeepFor, c.Expires = codec.ClientID(c.id), timeOf(c.lastSeen), keepForOf(c.keepFor), timeOf(c.expires)
	return c.Client
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return roundTime(*t)
}

// Clients implements storage.Registry. Clients that come or go meanwhile may be among those
// yielded or not. What is in the tables is checked by the database, so there is no
// storage.ErrBadRows.
func (r *Registry) Clients(ctx context.Context, yield func(storage.Client) error) error {
	return each(ctx, r, listClients, []any{""}, yield, func(row pgx.CollectableRow) (storage.Client, []any, error) {
		var c clientRow
		err := row.Scan(c.scan()...)
		return c.client(), []any{c.Name}, err
	})
}

// Files implements storage.Registry. Files that come or go meanwhile may be among those yielded
// or not.
func (r *Registry) Files(ctx context.Context, yield func(storage.File) error) error {
	return r.files(ctx, listFiles, yield)
}

// Leaving implements storage.Registry. It reads an index that has no others.
func (r *Registry) Leaving(ctx context.Context, yield func(storage.File) error) error {
	return r.files(ctx, listLeaving, yield)
}

func (r *Registry) files(ctx context.Context, list string, yield func(storage.File) error) error {
	return each(ctx, r, list, []any{uuid.UUID{}, "", false}, yield, func(row pgx.CollectableRow) (storage.File, []any, error) {
		var f fileRow
		if err := row.Scan(f.scan()...); err != nil {
			return storage.File{}, nil, err
		}
		return *f.file(), []any{f.ID, f.Path, f.Waiting}, nil
	})
}

// Partials implements storage.Registry. Partial files that come or go meanwhile may be among
// those yielded or not.
func (r *Registry) Partials(ctx context.Context, yield func(storage.Partial) error) error {
	return each(ctx, r, listPartials, []any{uuid.UUID{}, ""}, yield, func(row pgx.CollectableRow) (storage.Partial, []any, error) {
		var p partialRow
		if err := row.Scan(p.scan()...); err != nil {
			return storage.Partial{}, nil, err
		}
		return *p.partial(), []any{p.ID, p.Path}, nil
	})
}

// Added implements storage.Registry.
func (r *Registry) Added(ctx context.Context, yield func(name string) error) error {
	return each(ctx, r, listAdded, []any{""}, yield, func(row pgx.CollectableRow) (string, []any, error) {
		var name string
		err := row.Scan(&name)
		return name, []any{name}, err
	})
}

// EachLease implements storage.Leases.
func (r *Registry) EachLease(ctx context.Context, yield func(storage.Lease) error) error {
	return each(ctx, r, listLeases, []any{""}, yield, func(row pgx.CollectableRow) (storage.Lease, []any, error) {
		var l leaseRow
		err := row.Scan(l.scan()...)
		return l.lease(), []any{l.Key}, err
	})
}

// each yields what of makes of the rows that list lists, a page at a time. list lists those
// behind its first arguments, which of makes of a row, too.
func each[T any](ctx context.Context, r *Registry, list string, from []any, yield func(T) error,
	of func(pgx.CollectableRow) (T, []any, error)) error {
	for {
		var found []T
		behind := from
		err := r.persist(ctx, func(ctx context.Context) error {
			behind = from
			rows, err := r.query(ctx, list, append(from[:len(from):len(from)], page)...)
			if err != nil {
				return err
			}
			found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (v T, err error) {
				v, behind, err = of(row)
				return v, err
			})
			return err
		})
		if err != nil {
			return r.failure("read", err)
		}
		from = behind
		for _, v := range found {
			if err := yield(v); err != nil {
				return err
			}
		}
		if len(found) < page {
			return nil
		}
	}
}

func (r *Registry) query(ctx context.Context, text string, args ...any) (pgx.Rows, error) {
	select {
	case <-r.closed:
		return nil, ErrClosed
	default:
		return r.pool.Query(ctx, text, args...)
	}
}
