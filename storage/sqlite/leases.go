package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strings"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// leasesTable is a part of the schema, and of the step of migrations that brought it.
//
// PathName is as in files. Ends is in milliseconds since 1970. ID refers to no row: a lease
// may outlive its client.
const leasesTable = `CREATE TABLE leases (
	Incoming TEXT NOT NULL PRIMARY KEY,
	ID       BLOB NOT NULL CHECK (length(ID) = 16),
	PathName TEXT NOT NULL,
	Server   TEXT NOT NULL,
	Ends     INTEGER NOT NULL
)`

const (
	leaseColumns     = "Incoming, ID, PathName, Server, Ends"
	leaseColumnCount = 5
)

// leaseStatements are the statements about leases.
var leaseStatements = map[statement]string{
	putLease:   "INSERT OR REPLACE INTO leases (" + leaseColumns + ") VALUES (?1, ?2, ?3, ?4, ?5)",
	renewLease: "UPDATE leases SET Ends = ?3 WHERE Incoming = ?1 AND Server = ?2",
	endLease:   "DELETE FROM leases WHERE Incoming = ?1",
	hasLease:   "SELECT 1 FROM leases WHERE Incoming = ?1",
	listEnded:  "SELECT " + leaseColumns + " FROM leases WHERE Ends <= ?1 ORDER BY Ends LIMIT ?2",
	listLeases: "SELECT " + leaseColumns + " FROM leases WHERE Incoming > ?1 ORDER BY Incoming LIMIT ?2",
	findUpload: "SELECT 1 WHERE EXISTS (SELECT 1 FROM leases WHERE Incoming = ?3)" +
		" OR EXISTS (SELECT 1 FROM files" + ofPath + " AND Incoming = ?3)" +
		" OR EXISTS (SELECT 1 FROM partials" + ofPath + " AND Incoming = ?3)",
}

func (t *transaction) leaseUpload(op *storage.LeaseUpload) (refused, failed error) {
	up := &op.Upload
	if op.Again {
		if known, err := t.knows(up); !known || err != nil {
			return storage.ErrNoLease, err
		}
	}
	_, err := t.c.exec(putLease, up.Key, up.ID[:], pathName(up.ID, up.Path), op.Server, t.now().Add(op.For).UnixMilli())
	return nil, err
}

func (t *transaction) renewLeases(op *storage.RenewLeases) error {
	op.Lost = nil
	ends := t.now().Add(op.For).UnixMilli()
	for _, key := range op.Keys {
		n, err := t.c.exec(renewLease, key, op.Server, ends)
		if err != nil {
			return err
		}
		if n == 0 {
			op.Lost = append(op.Lost, key)
		}
	}
	return nil
}

func (t *transaction) endLease(key string) error {
	_, err := t.c.exec(endLease, key)
	return err
}

func (t *transaction) reapLeases(op *storage.ReapLeases) error {
	op.Reaped = nil
	var keys []string
	until := t.now().Add(-op.Ago).UnixMilli()
	err := t.c.rows(background, listEnded, []any{until, int64(op.Limit)}, leaseColumnCount, func(row []driver.Value) error {
		key, _ := row[0].(string)
		keys = append(keys, key)
		if l, err := leaseOf(row); err == nil { // else it goes all the same
			op.Reaped = append(op.Reaped, l)
		}
		return nil
	})
	for _, key := range keys {
		if err == nil {
			err = t.endLease(key)
		}
	}
	return err
}

// knows reports whether anything is on record of content.
func (t *transaction) knows(up *storage.Uploaded) (bool, error) {
	return t.exists(findUpload, up.ID[:], pathName(up.ID, up.Path), up.Key)
}

// mustBeLeased is refused with ErrNoLease if the content with that key has no lease.
func (t *transaction) mustBeLeased(key string) (refused, failed error) {
	leased, err := t.exists(hasLease, key)
	if !leased {
		refused = storage.ErrNoLease
	}
	return refused, err
}

// EachLease implements storage.Leases. It yields the leases in the order of their keys.
func (r *Registry) EachLease(ctx context.Context, yield func(storage.Lease) error) error {
	return each(ctx, r, listLeases, []any{""}, leaseColumnCount, leaseOf, yield, func(row []driver.Value) []any { return []any{row[0]} })
}

// leaseOf makes a Lease of a row of leaseColumns.
func leaseOf(row []driver.Value) (storage.Lease, error) {
	key, okKey := row[0].(string)
	id, okID := row[1].([]byte)
	path, okPath := row[2].(string)
	server, okServer := row[3].(string)
	ends, okEnds := row[4].(int64)
	ok := okKey && okID && len(id) == codec.IDSize && okPath && okServer && okEnds
	if ok {
		path, ok = strings.CutPrefix(path, pathName(codec.ClientID(id), ""))
	}
	if !ok {
		return storage.Lease{}, fmt.Errorf("%w: leases, Incoming %q", errRow, key)
	}
	return storage.Lease{
		Upload: storage.Uploaded{Place: storage.Place{ID: codec.ClientID(id), Path: path}, Key: key},
		Server: server, Ends: time.UnixMilli(ends).UTC(),
	}, nil
}
