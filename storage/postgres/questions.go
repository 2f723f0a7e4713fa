package postgres

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"sealift/codec"
	"sealift/storage"
)

// The questions of operations that only read: one statement each, which sees one moment. Who
// may ask is told by the client's row, which comes with the answer.
const (
	selectClient = "SELECT " + clientColumns + " FROM clients WHERE id = $1"

	// A row for each file, with the partial file beside it; one without a file if there is none. The
	// columns of a file are not in JSON: a server asks this for each verdict.
	selectFile           = "SELECT " + accessColumns + ", " + joinedFile + ", NULL::jsonb" + fromFiles
	selectFileAndPartial = "SELECT " + accessColumns + ", " + joinedFile + ", to_jsonb(p)" + fromFiles + " LEFT JOIN partials p ON p.id = v.id AND p.path = $2"
	accessColumns        = "c.id IS NOT NULL, c.tls_key, c.disabled IS TRUE"
	joinedFile           = "f.id IS NOT NULL, v.id, coalesce(f.file_name, ''), coalesce(f.path, ''), coalesce(f.waiting, false), coalesce(f.size, 0)," +
		" coalesce(f.cksum, 0), coalesce(f.incoming, ''), f.received, coalesce(f.missing, false), coalesce(f.lapsed, false), f.taken," +
		" coalesce(f.deleted, false)"
	fromFiles = " FROM (VALUES ($1::uuid)) v (id) LEFT JOIN clients c ON c.id = v.id LEFT JOIN files f ON f.id = v.id AND f.path = $2"

	selectPaths = "SELECT " + accessColumns + ", f.path" +
		" FROM (VALUES ($1::uuid)) v (id) LEFT JOIN clients c ON c.id = v.id" +
		" LEFT JOIN (SELECT DISTINCT path FROM files WHERE id = $1 AND (taken IS NULL OR NOT missing)) f ON true"

	selectExpired = "SELECT id FROM clients WHERE expires <= $1"

	selectUpload = "SELECT EXISTS (SELECT FROM leases WHERE key = $3)" +
		" OR EXISTS (SELECT FROM files WHERE id = $1 AND path = $2 AND incoming = $3)" +
		" OR EXISTS (SELECT FROM partials WHERE id = $1 AND path = $2 AND incoming = $3)"

	selectUsage = "SELECT tls_key, disabled, quota_bytes, quota_files, used_bytes, used_files," +
		" (SELECT max(size) FROM files WHERE id = $1 AND path = $2 AND (waiting OR NOT missing))," +
		" a.bytes, a.files FROM clients LEFT JOIN LATERAL (SELECT coalesce(sum(most), 0)::bigint AS bytes, count(*) AS files FROM" +
		" (SELECT max(size) AS most FROM files WHERE files.id = $1 AND $3 AND (waiting OR NOT missing) GROUP BY path) places) a ON true" +
		" WHERE clients.id = $1"
)

// one scans the only row of rows, and reports whether there is one.
func one(rows pgx.Rows, into ...any) (bool, error) {
	if !rows.Next() {
		return false, rows.Err()
	}
	return true, rows.Scan(into...)
}

func (p *plan) getClient(op *storage.GetClient) {
	p.ask(op, selectClient, func(rows pgx.Rows) error {
		op.Client, op.Err = storage.Client{}, nil
		var c clientRow
		there, err := one(rows, c.scan()...)
		if err != nil {
			return err
		}
		if !there {
			op.Err = storage.ErrNoClient
		} else if op.Err = op.By.Refused(c.TLSKey, c.Disabled); op.Err == nil {
			op.Client = c.client()
		}
		return nil
	}, id(op.ID))
}

// access is what decides who may ask for a client's files.
type access struct {
	there    bool // a client of that id
	tlsKey   []byte
	disabled bool
}

func (a *access) scan() []any { return []any{&a.there, &a.tlsKey, &a.disabled} }

// refused returns why the actor may not ask. Without a client everybody may.
func (a *access) refused(by storage.Actor) error {
	if !a.there {
		return nil
	}
	return by.Refused(a.tlsKey, a.disabled)
}

func (p *plan) getFile(op *storage.GetFile) {
	text := selectFile
	if op.WithPartial {
		text = selectFileAndPartial
	}
	p.ask(op, text, func(rows pgx.Rows) error {
		op.Verified, op.Unverified, op.Partial, op.Err = nil, nil, nil, nil
		var a access
		for rows.Next() {
			var isFile bool
			var f fileRow
			var q *partialRow
			if err := rows.Scan(append(append(append(a.scan(), &isFile), f.scan()...), &q)...); err != nil {
				return err
			}
			switch {
			case !isFile:
			case f.Waiting:
				op.Unverified = f.file()
			default:
				op.Verified = f.file()
			}
			op.Partial = q.partial()
		}
		if op.Err = a.refused(op.By); op.Err != nil {
			op.Verified, op.Unverified, op.Partial = nil, nil, nil
		} else if op.Verified == nil && op.Unverified == nil && op.Partial == nil {
			op.Err = storage.ErrNoFile
		}
		return nil
	}, id(op.ID), op.Path)
}

func (p *plan) findAlike(op *storage.FindAlike) {
	p.ask(op, selectPaths, func(rows pgx.Rows) error {
		op.Found, op.Err = "", nil
		var a access
		key := op.Folds(op.Path)
		for rows.Next() {
			var path *string
			if err := rows.Scan(append(a.scan(), &path)...); err != nil {
				return err
			}
			if path != nil && op.Found == "" && *path != op.Path && op.Folds(*path) == key {
				op.Found = *path
			}
		}
		if op.Err = a.refused(op.By); op.Err != nil {
			op.Found = ""
		} else if op.Found == "" {
			op.Err = storage.ErrNoFile
		}
		return nil
	}, id(op.ID))
}

// seeAlike sets LastSeen for each FindAlike of a batch that has found something: only the
// caller's function can tell, so that takes another batch.
func (r *Registry) seeAlike(ctx context.Context, batch []storage.Operation) error {
	var seen []storage.Operation
	for _, op := range batch {
		if op, ok := op.(*storage.FindAlike); ok && op.Err == nil && !op.At.IsZero() {
			seen = append(seen, &storage.Seen{Outcome: storage.Outcome{At: op.At, By: op.By}, ID: op.ID})
		}
	}
	return r.Apply(ctx, seen)
}

func (p *plan) findExpired(op *storage.FindExpired) {
	p.ask(op, selectExpired, func(rows pgx.Rows) error {
		op.IDs, op.Err = nil, nil
		for rows.Next() {
			var id uuid.UUID
			if err := rows.Scan(&id); err != nil {
				return err
			}
			op.IDs = append(op.IDs, codec.ClientID(id))
		}
		return nil
	}, timestamp(op.Now))
}

func (p *plan) findUpload(op *storage.FindUpload) {
	p.ask(op, selectUpload, func(rows pgx.Rows) error {
		op.Err = nil
		there, err := one(rows, &op.Found)
		if err == nil && !there {
			err = errors.Join(errResult, rows.Err())
		}
		return err
	}, id(op.Upload.ID), op.Upload.Path, op.Upload.Key)
}

func (p *plan) getUsage(op *storage.GetUsage) {
	p.ask(op, selectUsage, func(rows pgx.Rows) error {
		op.Own, op.Counted, op.Err = storage.Quota{}, false, nil
		op.Used, op.Here, op.Actual = storage.Usage{}, storage.Usage{}, storage.Usage{}
		a := access{there: true}
		var own storage.Quota
		var usedBytes, usedFiles, here *int64
		var actual storage.Usage
		there, err := one(rows, &a.tlsKey, &a.disabled, &own.Bytes, &own.Files, &usedBytes, &usedFiles, &here, &actual.Bytes, &actual.Files)
		if err != nil {
			return err
		}
		if !there {
			op.Err = storage.ErrNoClient
			return nil
		}
		if op.Err = a.refused(op.By); op.Err != nil {
			return nil
		}
		op.Own, op.Actual = own, actual
		if usedBytes != nil && usedFiles != nil {
			op.Counted, op.Used = true, storage.Usage{Bytes: *usedBytes, Files: *usedFiles}
		}
		if here != nil {
			op.Here = storage.Usage{Bytes: *here, Files: 1}
		}
		return nil
	}, id(op.ID), op.Path, op.Recount)
}
