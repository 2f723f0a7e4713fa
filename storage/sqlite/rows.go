package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// errRow is a row that makes no sense, which is no reason to give up others.
var errRow = errors.New("this row is not one that Sealift wrote")

var background = context.Background()

// page is how many rows Clients and Files read at once. Between two pages no
// transaction is open, so that a slow reader does not keep the WAL from being
// folded into the database.
const page = 256

// Clients implements storage.Registry. Clients that come or go meanwhile may be
// among those yielded or not.
func (r *Registry) Clients(ctx context.Context, yield func(storage.Client) error) error {
	from := []any{""} // Name
	return each(ctx, r, listClients, from, clientColumnCount, clientOf, yield, func(row []driver.Value) []any {
		return []any{row[1]}
	})
}

// Files implements storage.Registry. Files that come or go meanwhile may be
// among those yielded or not.
func (r *Registry) Files(ctx context.Context, yield func(storage.File) error) error {
	return r.files(ctx, listFiles, yield)
}

// Leaving implements storage.Registry. It reads an index that has no others.
func (r *Registry) Leaving(ctx context.Context, yield func(storage.File) error) error {
	return r.files(ctx, listLeaving, yield)
}

// Partials implements storage.Registry. Partial files that come or go meanwhile may be
// among those yielded or not.
func (r *Registry) Partials(ctx context.Context, yield func(storage.Partial) error) error {
	return each(ctx, r, listPartials, []any{[]byte{}, ""}, partialColumnCount, partialOf, yield,
		func(row []driver.Value) []any { return []any{row[0], row[2]} })
}

// Added implements storage.Registry.
func (r *Registry) Added(ctx context.Context, yield func(name string) error) error {
	return each(ctx, r, listAdded, []any{""}, 1, nameOf, yield, func(row []driver.Value) []any { return []any{row[0]} })
}

// Emptied reports whether a client was forgotten once: a database without clients has lost
// nothing then.
func (r *Registry) Emptied(ctx context.Context) (emptied bool, err error) {
	err = r.list(ctx, isEmptied, nil, 1, func(row []driver.Value) error {
		emptied = row[0] != int64(0)
		return nil
	})
	return emptied, err
}

func nameOf(row []driver.Value) (string, error) {
	name, ok := row[0].(string)
	if !ok {
		return "", fmt.Errorf("%w: names, Name %x", errRow, row[0])
	}
	return name, nil
}

// files yields what s lists, in the order of Files.
func (r *Registry) files(ctx context.Context, s statement, yield func(storage.File) error) error {
	from := []any{[]byte{}, "", int64(0)} // ID, PathName, 1 if unverified
	return each(ctx, r, s, from, fileColumnCount, fileOf, yield, func(row []driver.Value) []any {
		unverified := int64(1)
		if verified, _ := boolOf(row[3]); verified {
			unverified = 0
		}
		return []any{row[0], row[2], unverified}
	})
}

// each yields what of makes of the rows that s lists, a page at a time. s lists
// those behind its first arguments, which are those that key makes of the last
// row. A row that cannot be understood is passed over, for an error at the end.
func each[T any](ctx context.Context, r *Registry, s statement, from []any, columns int,
	of func(row []driver.Value) (T, error), yield func(T) error, key func(row []driver.Value) []any) error {
	var bad []error // the first few
	badCount := 0
	for {
		found, rows := make([]T, 0, page), 0
		err := r.list(ctx, s, append(from, int64(page)), columns, func(row []driver.Value) error {
			rows++
			from = key(row)
			v, err := of(row)
			if err != nil {
				if badCount++; len(bad) < maxBadTold {
					bad = append(bad, err)
				}
				return nil
			}
			found = append(found, v)
			return nil
		})
		if err != nil {
			return err
		}
		for _, v := range found {
			if err := yield(v); err != nil {
				return err
			}
		}
		if rows == page {
			continue
		}
		if badCount > 0 {
			return fmt.Errorf("database %s: %d %w: %w", r.path, badCount, storage.ErrBadRows, errors.Join(bad...))
		}
		return nil
	}
}

// maxBadTold is how many rows that cannot be understood an error names.
const maxBadTold = 5

func (r *Registry) list(ctx context.Context, s statement, args []any, columns int, each func(row []driver.Value) error) error {
	c, err := r.take(ctx, r.reader)
	if err != nil {
		return r.failure("open", err)
	}
	err = c.rows(ctx, s, args, columns, each)
	r.give(r.reader, c, err != nil)
	if err != nil {
		return r.failure("read", err)
	}
	return nil
}

// clientOf makes a Client of a row of clientColumns. The row may have been
// edited by hand, so nothing in it is sure.
func clientOf(row []driver.Value) (storage.Client, error) {
	id, okID := row[0].([]byte)
	name, okName := row[1].(string)
	publicKey, _ := row[2].([]byte)
	aesKey, _ := row[3].([]byte)
	lastSeen, okTime := timeOf(row[4])
	tlsKey, okPin := row[5].([]byte) // a pin that cannot be understood is not none
	disabled, okDisabled := boolOf(row[6])
	if !okID || len(id) != codec.IDSize || !okName || !okTime || !okPin && row[5] != nil || !okDisabled {
		return storage.Client{}, fmt.Errorf("%w: clients, ID %x, Name %q", errRow, id, name)
	}
	return storage.Client{
		ID: codec.ClientID(id), Name: name, PublicKey: publicKey, AESKey: aesKey, LastSeen: lastSeen,
		TLSKey: tlsKey, Disabled: disabled,
	}, nil
}

// fileOf makes a File of a row of fileColumns.
func fileOf(row []driver.Value) (storage.File, error) {
	id, okID := row[0].([]byte)
	fileName, okName := row[1].(string)
	path, okPath := row[2].(string)
	verified, okVerified := boolOf(row[3])
	size, okSize := row[4].(int64)
	cksum, okCksum := row[5].(int64)
	incoming, _ := row[6].(string)
	received, okTime := timeOf(row[7])
	missing, okMissing := boolOf(row[8])
	lapsed, okLapsed := boolOf(row[9])
	taken, okTaken := timeOf(row[10])
	deleted, okDeleted := boolOf(row[11])
	ok := okTaken && okDeleted && okID && len(id) == codec.IDSize && okName && okPath && okVerified && okSize && size >= 0 &&
		okCksum && cksum >= 0 && cksum <= math.MaxUint32 && okTime && (verified || incoming != "") && okMissing && okLapsed
	if ok {
		path, ok = strings.CutPrefix(path, pathName(codec.ClientID(id), ""))
	}
	if !ok {
		return storage.File{}, fmt.Errorf("%w: files, ID %x, PathName %q", errRow, id, path)
	}
	return storage.File{
		ID: codec.ClientID(id), FileName: fileName, Path: path, Incoming: incoming, Verified: verified,
		Missing: missing, Lapsed: lapsed, Taken: taken, Deleted: deleted, Size: size, Cksum: uint32(cksum), Received: received,
	}, nil
}

// pathName is what the column PathName holds for path.
func pathName(id codec.ClientID, path string) string { return "files/" + id.String() + "/" + path }

// blob makes NULL of a key that is not there.
func blob(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// actor is a as the statements take it, see mayAct.
func actor(a storage.Actor) any {
	if a.IsServer() {
		return int64(1)
	}
	return blob(a.Key())
}

// timeFormat is RFC 3339 in UTC, to the millisecond: sorted as text it is sorted
// by time, and SQLite's date functions understand it.
const timeFormat = "2006-01-02T15:04:05.000Z"

// timestamp makes NULL of a time that is not there.
func timestamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(timeFormat)
}

func roundTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// timeOf understands what the driver makes of a column declared DATETIME: a
// time.Time of text that it can read, the text otherwise.
func timeOf(v any) (time.Time, bool) {
	switch v := v.(type) {
	case nil:
		return time.Time{}, true
	case time.Time:
		return v.UTC(), true
	}
	return time.Time{}, false
}

func boolOf(v any) (b, ok bool) {
	switch v := v.(type) {
	case bool:
		return v, true
	case int64:
		return v != 0, true
	}
	return false, false
}
