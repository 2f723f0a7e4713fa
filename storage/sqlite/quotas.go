package sqlite

import (
	"database/sql/driver"
	"fmt"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// What a client has is kept count of in its row, UsedBytes and UsedFiles, from the moment
// at which a quota stands for it. Both are NULL where none does. Then neither a file's
// record nor its verdict takes a statement more: the statements themselves do nothing
// for a client that is counted, and only then more is asked.

// usage is what is on record of a client's quota.
type usage struct {
	own     storage.Quota
	used    storage.Usage
	counted bool
}

// usage reads what is on record of a client; nil: there is no such client.
func (t *transaction) usage(id codec.ClientID) (*usage, error) {
	var found *usage
	err := t.c.rows(background, selectUsage, []any{id[:]}, 4, func(row []driver.Value) error {
		u := &usage{counted: row[3] != nil}
		var ok, okBytes, okFiles bool
		u.own, ok = quotaOf(row[0], row[1])
		u.used.Bytes, okBytes = row[2].(int64)
		u.used.Files, okFiles = row[3].(int64)
		if !ok || u.counted && (!okBytes || !okFiles) {
			return fmt.Errorf("%w: clients, ID %x", errRow, id[:])
		}
		found = u
		return nil
	})
	return found, err
}

// here is what a place counts as.
func (t *transaction) here(id codec.ClientID, path string) (u storage.Usage, err error) {
	err = t.c.rows(background, selectHere, []any{id[:], pathName(id, path)}, 1, func(row []driver.Value) error {
		if row[0] != nil {
			u.Files = 1
			u.Bytes, _ = row[0].(int64)
		}
		return nil
	})
	return u, err
}

// count has change change what is stored in a place, and keeps count of it if the client
// is counted.
func (t *transaction) count(id codec.ClientID, path string, change func() (refused, failed error)) (refused, failed error) {
	u, err := t.usage(id)
	if err != nil {
		return nil, err
	}
	if u == nil || !u.counted {
		return change()
	}
	before, err := t.here(id, path)
	if err != nil {
		return nil, err
	}
	return t.countFrom(before, id, path, change)
}

// countFrom is count for a client that is counted, in a place that counts as before.
func (t *transaction) countFrom(before storage.Usage, id codec.ClientID, path string, change func() (refused, failed error)) (refused, failed error) {
	if refused, failed = change(); refused != nil || failed != nil {
		return refused, failed
	}
	after, err := t.here(id, path)
	if more := after.Sub(before); err == nil && more != (storage.Usage{}) {
		_, err = t.c.exec(addUsage, id[:], more.Bytes, more.Files)
	}
	return nil, err
}

// admission is what admit has found out: whether the client is counted, and what the place
// of the file counts as.
type admission struct {
	counted bool
	here    storage.Usage
}

// admit is refused with ErrQuota if the file of op would take its client beyond the quota.
// It begins to count what the client has if a quota stands, and ends that if none does.
func (t *transaction) admit(op *storage.PutFile) (a admission, refused, failed error) {
	f := &op.File
	u, err := t.usage(f.ID)
	if err != nil || u == nil {
		return a, nil, err
	}
	quota := u.own.Or(op.Quota)
	switch own := op.By.IsServer(); {
	case !own && !quota.Bounds():
		if u.counted {
			_, err = t.c.exec(uncount, f.ID[:])
		}
		return a, nil, err
	case !own && !u.counted:
		if _, err = t.c.exec(recount, f.ID[:]); err == nil {
			u, err = t.usage(f.ID)
		}
		if err != nil {
			return a, nil, err
		}
	case !u.counted:
		return a, nil, nil
	}
	a.counted = true
	if a.here, err = t.here(f.ID, f.Path); err != nil || op.By.IsServer() {
		return a, nil, err
	}
	if refused = quota.Refuses(u.used, a.here, f.Size); refused != nil {
		// Whoever may not act for the client is told that, and nothing else.
		if why, err := t.mayAct(f.ID, op.By); why != nil || err != nil {
			refused, failed = why, err
		}
	}
	return a, refused, failed
}

func (t *transaction) verifyFile(op *storage.VerifyFile) (refused, failed error) {
	args := []any{op.ID[:], pathName(op.ID, op.Path), op.Incoming, op.Missing, actor(op.By)}
	op.Replaced = nil
	if op.Versions {
		was, err := t.verified(op.ID, op.Path)
		if err != nil {
			return nil, err
		}
		defer func() {
			if refused == nil && failed == nil {
				op.Replaced = was
			}
		}()
	}
	if n, err := t.c.exec(verifyFile, args...); n > 0 || err != nil {
		return nil, err
	}
	return t.count(op.ID, op.Path, func() (refused, failed error) {
		return t.changeFor(op.ID, op.By, storage.ErrNoFile, verifyCounted, args...)
	})
}

// verified reads the verified file under a path; nil if there is none.
func (t *transaction) verified(id codec.ClientID, path string) (found *storage.File, err error) {
	err = t.c.rows(background, selectVerified, []any{id[:], pathName(id, path)}, fileColumnCount, func(row []driver.Value) error {
		f, err := fileOf(row)
		found = &f
		return err
	})
	return found, err
}

func (t *transaction) setQuota(op *storage.SetQuota) (refused, failed error) {
	value := func(n *int64) any {
		if n == nil {
			return nil
		}
		return *n
	}
	refused, failed = t.change(storage.ErrNoClient, updateQuota, op.ID[:], value(op.Bytes), value(op.Files))
	if refused == nil && failed == nil {
		// Where no quota stands any more, the next file ends the count.
		_, failed = t.c.exec(recount, op.ID[:])
	}
	return refused, failed
}

func (t *transaction) findExpired(op *storage.FindExpired) (refused, failed error) {
	op.IDs = nil
	return nil, t.c.rows(background, selectExpired, []any{timestamp(op.Now)}, 1, func(row []driver.Value) error {
		if id, _ := row[0].([]byte); len(id) == codec.IDSize {
			op.IDs = append(op.IDs, codec.ClientID(id))
		}
		return nil
	})
}

func (t *transaction) getUsage(op *storage.GetUsage) (refused, failed error) {
	op.Own, op.Counted = storage.Quota{}, false
	op.Used, op.Here, op.Actual = storage.Usage{}, storage.Usage{}, storage.Usage{}
	if refused, failed = t.mayAct(op.ID, op.By); refused != nil || failed != nil {
		return refused, failed
	}
	u, err := t.usage(op.ID)
	if err != nil || u == nil {
		return storage.ErrNoClient, err
	}
	op.Own, op.Used, op.Counted = u.own, u.used, u.counted
	if op.Here, err = t.here(op.ID, op.Path); err == nil && op.Recount {
		err = t.c.rows(background, sumUsage, []any{op.ID[:]}, 4, func(row []driver.Value) error {
			op.Counted = row[1] != nil
			for i, n := range []*int64{&op.Used.Bytes, &op.Used.Files, &op.Actual.Bytes, &op.Actual.Files} {
				*n, _ = row[i].(int64)
			}
			return nil
		})
	}
	return nil, err
}

func quotaOf(bytes, files driver.Value) (q storage.Quota, ok bool) {
	b, okBytes := bytes.(int64)
	f, okFiles := files.(int64)
	return storage.Quota{Bytes: b, Files: f}, okBytes && okFiles && b >= storage.Unlimited && f >= storage.Unlimited
}

// keepSeconds is what the column KeepFor has for a time, and keepForOf the reverse.
func keepSeconds(d time.Duration) int64 {
	if d < 0 {
		return storage.Unlimited
	}
	return int64(d / time.Second)
}

func keepForOf(seconds int64) time.Duration {
	if seconds < 0 {
		return storage.Unlimited
	}
	return time.Duration(seconds) * time.Second
}
