package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math"
	"strings"

	"sealift/codec"
	"sealift/storage"
)

func (t *transaction) putPartial(op *storage.PutPartial) (refused, failed error) {
	op.Replaced = nil
	p := &op.Partial
	if refused, failed = t.mayAct(p.ID, op.By); refused != nil || failed != nil {
		return refused, failed
	}
	path := pathName(p.ID, p.Path)
	old, err := t.partial(p.ID, path)
	if err != nil {
		return nil, err
	}
	if whole, err := t.exists(hasVersion, p.ID[:], path, p.Incoming); whole || err != nil {
		return storage.ErrSuperseded, err
	}
	if op.From != "" && !isOf(old, op.From, p.Generation) {
		return storage.ErrSuperseded, nil
	}
	if op.Leased && (old == nil || old.Incoming != p.Incoming) {
		if refused, failed = t.mustBeLeased(p.Incoming); refused != nil || failed != nil {
			return refused, failed
		}
	}
	deleted := p.Deleted
	switch {
	case old == nil:
	case old.Incoming != p.Incoming:
		op.Replaced = old
		if op.From != "" {
			deleted = old.Deleted
			if err := t.endLease(op.From); err != nil {
				return nil, err
			}
		}
	case old.Generation != p.Generation:
		return storage.ErrSuperseded, nil
	default:
		deleted = old.Deleted
	}
	t.partials = true
	_, err = t.c.exec(putPartial, p.ID[:], p.FileName, path, p.Incoming, p.Total, p.Length, int64(p.State), p.Boot,
		p.Generation, timestamp(p.Changed), deleted)
	return nil, err
}

// isOf reports whether p is there, and has that key and generation.
func isOf(p *storage.Partial, key string, generation int64) bool {
	return p != nil && p.Incoming == key && p.Generation == generation
}

func (t *transaction) continueFile(op *storage.ContinueFile) (refused, failed error) {
	op.Partial = storage.Partial{}
	path := pathName(op.ID, op.Path)
	if _, err := t.partial(op.ID, path); err != nil { // before anything changes
		return nil, err
	}
	refused, failed = t.changeFor(op.ID, op.By, storage.ErrNoFile, continuePartial,
		op.ID[:], path, op.Incoming, timestamp(op.Changed), actor(op.By))
	if refused != nil || failed != nil {
		return refused, failed
	}
	p, err := t.partial(op.ID, path)
	if p != nil {
		op.Partial = *p
	}
	return nil, err
}

func (t *transaction) dropPartial(op *storage.DropPartial) (refused, failed error) {
	refused, failed = t.changeFor(op.ID, op.By, storage.ErrNoFile, dropPartial,
		op.ID[:], pathName(op.ID, op.Path), op.Incoming, op.Generation, actor(op.By))
	if refused == nil && failed == nil && op.Leased {
		failed = t.endLease(op.Incoming)
	}
	if refused == nil && failed == nil {
		failed = t.lookForPartials()
	}
	return refused, failed
}

// takePartial forgets the partial file that became the whole file of op, or that it
// replaces, and the lease of its content.
func (t *transaction) takePartial(op *storage.PutFile, path string) (refused, failed error) {
	id := op.File.ID
	p, err := t.partial(id, path)
	if p == nil && op.Generation == 0 && !op.Leased || err != nil {
		return nil, err
	}
	if refused, failed = t.mayAct(id, op.By); refused != nil || failed != nil {
		return refused, failed
	}
	if op.Generation != 0 {
		whole, err := t.exists(hasVersion, id[:], path, op.File.Incoming)
		if whole || err != nil || p != nil && p.Incoming == op.File.Incoming && p.Generation != op.Generation {
			return storage.ErrSuperseded, err
		}
	}
	if op.From != "" && !isOf(p, op.From, op.Generation) {
		return storage.ErrSuperseded, nil
	}
	if op.Leased && (p == nil || p.Incoming != op.File.Incoming) {
		if refused, failed = t.mustBeLeased(op.File.Incoming); refused != nil || failed != nil {
			return refused, failed
		}
	}
	if p == nil && !op.Leased {
		return nil, nil
	}
	if _, refused, failed = t.admit(op); refused != nil || failed != nil {
		return refused, failed
	}
	if op.Leased {
		for _, key := range []string{op.File.Incoming, op.From} {
			if err := t.endLease(key); err != nil {
				return nil, err
			}
		}
		if p == nil {
			return nil, nil
		}
	}
	op.Partial = p
	if _, err := t.c.exec(forgetPartial, id[:], path); err != nil {
		return nil, err
	}
	return nil, t.lookForPartials()
}

// partial reads the partial file of a client under path, what the column PathName
// holds; nil if there is none.
func (t *transaction) partial(id codec.ClientID, path string) (*storage.Partial, error) {
	var found *storage.Partial
	err := t.c.rows(background, selectPartial, []any{id[:], path}, partialColumnCount, func(row []driver.Value) error {
		p, err := partialOf(row)
		found = &p
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// lookForPartials finds out whether there are partial files on record.
func (t *transaction) lookForPartials() (err error) {
	t.partials, err = t.exists(hasPartials)
	return err
}

// lookForPartials does the same for the transactions to come, on the writing connection.
func (r *Registry) lookForPartials(ctx context.Context, c *conn) error {
	r.partials = r.beside
	return c.rows(ctx, hasPartials, nil, 1, func([]driver.Value) error {
		r.partials = true
		return nil
	})
}

// maxTotal is the size from which on a row is no file's: a sum of two sizes is an int64.
const maxTotal = math.MaxInt64 / 2

// partialOf makes a Partial of a row of partialColumns.
func partialOf(row []driver.Value) (storage.Partial, error) {
	id, okID := row[0].([]byte)
	fileName, okName := row[1].(string)
	path, okPath := row[2].(string)
	incoming, okIncoming := row[3].(string)
	total, okTotal := row[4].(int64)
	length, okLength := row[5].(int64)
	state, okState := row[6].(int64)
	boot, okBoot := row[7].(string)
	generation, okGeneration := row[8].(int64)
	changed, okTime := timeOf(row[9])
	deleted, okDeleted := boolOf(row[10])
	ok := okID && len(id) == codec.IDSize && okName && okPath && okIncoming && incoming != "" &&
		okTotal && okLength && 0 <= length && length <= total && total <= maxTotal && okState && 0 <= state && state <= math.MaxUint32 &&
		okBoot && okGeneration && 0 <= generation && generation < math.MaxInt64 && okTime && okDeleted
	if ok {
		path, ok = strings.CutPrefix(path, pathName(codec.ClientID(id), ""))
	}
	if !ok {
		return storage.Partial{}, fmt.Errorf("%w: partials, ID %x, PathName %q", errRow, id, path)
	}
	return storage.Partial{
		ID: codec.ClientID(id), FileName: fileName, Path: path, Incoming: incoming, Total: total, Length: length,
		State: uint32(state), Boot: boot, Generation: generation, Changed: changed, Deleted: deleted,
	}, nil
}
