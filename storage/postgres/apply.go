package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sealift/codec"
	"sealift/storage"
)

// writersAtOnce is how many batches that write a registry has under way at most. A queue has
// one; others come from maintenance.
const writersAtOnce = 4

// writer is a row of the table writers: it has one batch under way at a time.
type writer struct {
	id  uuid.UUID
	seq int64 // of the last batch
}

// Codes of errors of the database.
const (
	doneBefore          = "SL001" // see begin_batch
	serializationFailed = "40001"
	deadlockDetected    = "40P01"
	readOnlyTransaction = "25006" // a server that is not the primary any more
	tooManyConnections  = "53300"
	cannotConnectNow    = "57P03"
)

// Apply does batch in one transaction and one round trip. It implements storage.Registry.
//
// Where the connection is lost, or the database restarts, the batch is repeated until
// Options.Patience is over. What was sent is not interrupted by ctx.
func (r *Registry) Apply(ctx context.Context, batch []storage.Operation) error {
	if err := ctx.Err(); err != nil || len(batch) == 0 {
		return err
	}
	var err error
	if slices.ContainsFunc(batch, func(op storage.Operation) bool { return !storage.Reads(op) }) {
		if err = r.write(ctx, batch); err == nil {
			err = r.seeAlike(ctx, batch)
		}
	} else {
		err = r.persist(ctx, func(ctx context.Context) error { return r.ask(ctx, steps(batch, false)) })
	}
	if err != nil {
		return r.failure("batch", err)
	}
	return nil
}

// write does a batch that changes something.
func (r *Registry) write(ctx context.Context, batch []storage.Operation) error {
	if r.readOnly {
		return ErrReadOnly
	}
	var w *writer
	select {
	case w = <-r.writers:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.closed:
		return ErrClosed
	}
	defer func() { r.writers <- w }()
	w.seq++
	todo := steps(batch, r.tells.Load())
	clients, steers := concerned(batch)
	err := r.persist(ctx, func(ctx context.Context) error {
		err := r.change(ctx, w, todo, clients, steers)
		if code(err) == doneBefore {
			err = r.recall(ctx, w, todo)
		}
		return err
	})
	if err != nil {
		return err
	}
	if r.tells.Load() && slices.ContainsFunc(batch, func(op storage.Operation) bool { return op.Result().Err == nil && isTold(op) }) {
		r.tellRecorded()
	}
	return nil
}

// change sends a batch, and takes its results if it was committed.
func (r *Registry) change(ctx context.Context, w *writer, todo []step, clients []uuid.UUID, steers bool) error {
	b := new(pgx.Batch)
	b.Queue("SELECT begin_batch($1, $2, $3, $4, $5)", w.id, r.instance, w.seq, steers, clients)
	for i := range todo {
		s := &todo[i]
		if s.changes {
			b.Queue(s.text, append([]any{w.id, int32(i)}, s.args...)...)
		} else {
			b.Queue(s.text, s.args...)
		}
	}
	c, err := r.acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	if err := ctx.Err(); err != nil {
		return err
	}
	// From here on it is not interrupted.
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), end)
		defer cancel()
	}
	results := c.SendBatch(ctx, b)
	if _, err = results.Exec(); err == nil {
		err = takeAll(results, todo)
	}
	// The commit is the end of the pipeline: what Close returns is its result.
	return cmp.Or(err, results.Close())
}

// ask sends the questions among todo, and takes their results.
func (r *Registry) ask(ctx context.Context, todo []step) error {
	todo = slices.DeleteFunc(slices.Clone(todo), func(s step) bool { return s.changes || s.touches })
	if len(todo) == 0 {
		return nil
	}
	b := new(pgx.Batch)
	for _, s := range todo {
		b.Queue(s.text, s.args...)
	}
	c, err := r.acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	results := c.SendBatch(ctx, b)
	err = takeAll(results, todo)
	return cmp.Or(err, results.Close())
}

func takeAll(results pgx.BatchResults, todo []step) error {
	for i := range todo {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		err = todo[i].takeRows(rows)
		rows.Close()
		if err = cmp.Or(rows.Err(), err); err != nil {
			return err
		}
	}
	return nil
}

// recall takes the results of w's last batch, which was committed and whose answer was lost. What
// was read in it is read anew.
func (r *Registry) recall(ctx context.Context, w *writer, todo []step) error {
	c, err := r.acquire(ctx)
	if err != nil {
		return err
	}
	var n int
	var result []byte
	results := make(map[int][]byte)
	rows, err := c.Query(ctx, "SELECT n, result FROM results WHERE writer = $1", w.id)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&n, &result}, func() error {
			results[n] = bytes.Clone(result)
			return nil
		})
	}
	c.Release()
	if err != nil {
		return err
	}
	for i := range todo {
		if todo[i].changes {
			if err := todo[i].takeResult(results[i]); err != nil {
				return err
			}
		}
	}
	return r.ask(ctx, todo)
}

func (r *Registry) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	select {
	case <-r.closed:
		return nil, ErrClosed
	default:
	}
	return r.pool.Acquire(ctx)
}

// Between two attempts, at first and at most.
const (
	firstPause = 20 * time.Millisecond
	longPause  = time.Second
)

// persist calls do until it succeeds, fails for good, ctx ends, or Patience is over. The context
// of do ends after half of Patience at the latest: what a dead connection keeps waiting gets a
// fresh one.
func (r *Registry) persist(ctx context.Context, do func(ctx context.Context) error) error {
	end := time.Now().Add(r.patience)
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := r.attempt(ctx, end, do)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case ctx.Err() != nil || !passes(err):
			return err
		}
		wait := pause/2 + rand.N(pause)
		if code(err) == deadlockDetected || code(err) == serializationFailed {
			wait = rand.N(firstPause) // the other one goes on meanwhile
		}
		if time.Now().Add(wait).After(end) {
			return fmt.Errorf("tried for %v: %w", r.patience, err)
		}
		r.log(r.failure("repeated", err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-r.closed:
			return ErrClosed
		}
	}
}

// attempt calls do once. If it was kept waiting until its time was over, the connections that
// nobody uses are closed: they go the same way.
func (r *Registry) attempt(ctx context.Context, end time.Time, do func(ctx context.Context) error) error {
	if half := time.Now().Add(r.patience / 2); half.Before(end) {
		end = half
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	err := do(ctx)
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		r.pool.Reset()
	}
	return err
}

// passes reports whether what failed with err may succeed later.
func passes(err error) bool {
	if errors.Is(err, ErrClosed) || errors.Is(err, errResult) {
		return false
	}
	c := code(err)
	switch c {
	case "": // it does not come from the database: the connection
		return !isOurs(err)
	case serializationFailed, deadlockDetected, readOnlyTransaction, tooManyConnections, cannotConnectNow:
		return true
	}
	// 08: the connection. 57P: an operator ended it, or the server ends.
	return strings.HasPrefix(c, "08") || strings.HasPrefix(c, "57P")
}

// isOurs reports whether err says that a database was looked at and is not the right one.
func isOurs(err error) bool {
	for _, e := range []error{ErrEncoding, ErrVersion, ErrForeign, ErrNewer, ErrOlder, ErrReadOnly, ErrURL, ErrHeld} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// code is that of an error of the database; "": it is none.
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// concerned returns the clients whose rows the batch changes, each once, in order, and
// whether it steers any.
func concerned(batch []storage.Operation) (clients []uuid.UUID, steers bool) {
	clients = make([]uuid.UUID, 0, len(batch))
	for _, op := range batch {
		id, s := subject(op)
		steers = steers || s
		if id != (codec.ClientID{}) {
			clients = append(clients, uuid.UUID(id))
		}
	}
	slices.SortFunc(clients, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(clients), steers
}
