package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// eventTables are a part of the schema, and of the step of migrations that brought it.
//
// An event is a row for each target. Due is in milliseconds since 1970, 0 for at once, and
// NULL while an earlier event of the client waits for the same target: so the index eventsDue
// has one row of each client, and what is to be told next costs the same however much waits.
var eventTables = []string{
	"CREATE TABLE eventTargets (Name TEXT NOT NULL PRIMARY KEY)",
	`CREATE TABLE events (
	Seq        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	Target     TEXT NOT NULL,
	EventID    TEXT NOT NULL,
	Kind       TEXT NOT NULL,
	Why        TEXT NOT NULL,
	Happened   DATETIME NOT NULL,
	ID         BLOB NOT NULL,
	ClientName TEXT NOT NULL,
	FileName   TEXT NOT NULL,
	Path       TEXT NOT NULL,
	Version    TEXT NOT NULL,
	Size       INTEGER NOT NULL,
	Cksum      INTEGER NOT NULL,
	Attempts   INTEGER NOT NULL DEFAULT 0,
	Failure    TEXT NOT NULL DEFAULT '',
	Due        INTEGER
)`,
	"CREATE INDEX eventsDue ON events (Target, Due) WHERE Due IS NOT NULL",
	"CREATE INDEX eventsOfClient ON events (Target, ID, Seq)",
}

const (
	eventColumns     = "Seq, Target, EventID, Kind, Why, Happened, ID, ClientName, FileName, Path, Version, Size, Cksum, Attempts, Failure, Due"
	eventColumnCount = 16

	chosenEvents = "(?1 = '' OR Target = ?1) AND (?2 = '' OR EventID = ?2)"
)

// eventStatements are the statements about events.
var eventStatements = map[statement]string{
	insertEvent: "INSERT INTO events (Target, EventID, Kind, Why, Happened, ID, ClientName, FileName, Path, Version, Size, Cksum, Due)" +
		" SELECT t.Name, ?1, ?2, ?3, ?4, ?5, coalesce(?6, (SELECT Name FROM clients WHERE ID = ?5), ''), ?7, ?8, ?9, ?10, ?11," +
		" CASE WHEN EXISTS (SELECT 1 FROM events e WHERE e.Target = t.Name AND e.ID = ?5) THEN NULL ELSE 0 END" +
		" FROM eventTargets t",
	restoreEvent: "INSERT INTO events (Target, EventID, Kind, Why, Happened, ID, ClientName, FileName, Path, Version, Size, Cksum, Attempts, Failure, Due)" +
		" SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14," +
		" CASE WHEN EXISTS (SELECT 1 FROM events WHERE Target = ?1 AND ID = ?6) THEN NULL ELSE 0 END" +
		" WHERE NOT EXISTS (SELECT 1 FROM events WHERE Target = ?1 AND ID = ?6 AND EventID = ?2)",
	tellEvent: "DELETE FROM events WHERE Seq = ?1",
	releaseEvent: "UPDATE events SET Due = 0 WHERE Due IS NULL AND Seq =" +
		" (SELECT Seq FROM events WHERE Target = ?1 AND ID = ?2 ORDER BY Seq LIMIT 1)",
	releaseEvents: "UPDATE events SET Due = 0 WHERE Due IS NULL AND NOT EXISTS (SELECT 1 FROM events e" +
		" WHERE e.Target = events.Target AND e.ID = events.ID AND e.Seq < events.Seq)",
	postponeEvent: "UPDATE events SET Attempts = Attempts + 1, Due = ?2, Failure = ?3 WHERE Seq = ?1",
	retryEvents:   "UPDATE events SET Due = 0 WHERE Due > 0 AND " + chosenEvents,
	dropEvents: "DELETE FROM events WHERE " + chosenEvents + " AND (?3 IS NULL OR Happened < ?3)" +
		" AND (?4 = 0 OR Seq <= (SELECT Seq FROM events WHERE Target = ?1 ORDER BY Seq DESC LIMIT 1 OFFSET ?4))",
	// INDEXED BY: it is prepared only if it can go by the index.
	nextEvents: "SELECT " + eventColumns + " FROM events INDEXED BY eventsDue WHERE Target = ?1 AND Due IS NOT NULL" +
		" ORDER BY Due, Seq LIMIT ?2",
	listEvents: "SELECT " + eventColumns + " FROM events WHERE Seq > ?1 ORDER BY Seq LIMIT ?2",
	listBacklogs: "SELECT b.Target, b.Count, e.Happened FROM (SELECT Target, count(*) AS Count, min(Seq) AS Oldest FROM events" +
		" GROUP BY Target) b JOIN events e ON e.Seq = b.Oldest ORDER BY b.Target",
	addEventTarget:   "INSERT INTO eventTargets (Name) VALUES (?1)",
	clearTargets:     "DELETE FROM eventTargets",
	listEventTargets: "SELECT Name FROM eventTargets ORDER BY Name",
}

// subject reads what the events of op need, before it is done.
func (t *transaction) subject(op storage.Operation) (was *storage.File, client *storage.Client, err error) {
	s, ok := storage.SubjectOf(op)
	if !ok {
		return nil, nil, nil
	}
	if s.Client {
		client, err = t.client(s.Place.ID)
	} else {
		path := pathName(s.Place.ID, s.Place.Path)
		err = t.c.rows(background, selectFile, []any{s.Place.ID[:], path}, fileColumnCount, func(row []driver.Value) error {
			f, err := fileOf(row)
			if err == nil && f.Verified == s.Verified && f.Incoming == s.Incoming {
				was = &f
			}
			return nil
		})
	}
	if errors.Is(err, errRow) { // the operation itself says so, where it matters
		err = nil
	}
	return was, client, err
}

// record records the events of op, which has succeeded.
func (t *transaction) record(op storage.Operation, was *storage.File, client *storage.Client) error {
	for _, e := range storage.EventsOf(op, was, client) {
		var name any
		if e.ClientName != "" {
			name = e.ClientName
		}
		n, err := t.c.exec(insertEvent, storage.NewEventID(), string(e.Kind), string(e.Why), timestamp(t.now()), e.Client[:], name,
			e.FileName, e.Path, e.Version, e.Size, int64(e.Cksum))
		if err != nil {
			return err
		}
		t.recorded = t.recorded || n > 0
	}
	return nil
}

func (t *transaction) restoreEvent(e *storage.Event) error {
	n, err := t.c.exec(restoreEvent, e.Target, e.ID, string(e.Kind), string(e.Why), timestamp(e.Happened), e.Client[:], e.ClientName,
		e.FileName, e.Path, e.Version, e.Size, int64(e.Cksum), int64(e.Attempts), e.Failure)
	t.recorded = t.recorded || n > 0
	return err
}

func (t *transaction) eventTold(op *storage.EventTold) (refused, failed error) {
	e := &op.Event
	if refused, failed = t.change(storage.ErrNoEvent, tellEvent, e.Seq); refused == nil && failed == nil {
		_, failed = t.c.exec(releaseEvent, e.Target, e.Client[:])
	}
	return refused, failed
}

func (t *transaction) retryEvents(op *storage.RetryEvents) error {
	n, err := t.c.exec(retryEvents, op.Target, op.EventID)
	op.Retried = int(n)
	return err
}

func (t *transaction) dropEvents(op *storage.DropEvents) error {
	n, err := t.c.exec(dropEvents, op.Target, op.EventID, timestamp(op.Before), int64(op.Keep))
	if op.Dropped = int(n); n > 0 && err == nil {
		_, err = t.c.exec(releaseEvents)
	}
	return err
}

// SetTargets implements storage.Events.
func (r *Registry) SetTargets(ctx context.Context, targets []string) error {
	if r.writer == nil {
		return r.failure("write", ErrReadOnly)
	}
	c, err := r.take(ctx, r.writer)
	if err != nil {
		return r.failure("open", err)
	}
	on, err := c.eventTargets(ctx)
	if err == nil && !slices.Equal(on, slices.Sorted(slices.Values(targets))) {
		err = r.transact(ctx, c, func() error {
			_, err := c.exec(clearTargets)
			for _, name := range targets {
				if err == nil {
					_, err = c.exec(addEventTarget, name)
				}
			}
			return err
		})
	}
	if err == nil {
		r.tells = len(targets) > 0 || r.beside
	}
	r.release(ctx, r.writer, c, err)
	if err != nil {
		return r.failure("commit", err)
	}
	return nil
}

// Targets returns the targets that events are recorded for, in order.
func (r *Registry) Targets(ctx context.Context) (names []string, err error) {
	err = r.list(ctx, listEventTargets, nil, 1, func(row []driver.Value) error {
		name, _ := row[0].(string)
		names = append(names, name)
		return nil
	})
	return names, err
}

// eventTargets returns the targets on record, in order.
func (c *conn) eventTargets(ctx context.Context) (names []string, err error) {
	err = c.rows(ctx, listEventTargets, nil, 1, func(row []driver.Value) error {
		name, _ := row[0].(string)
		names = append(names, name)
		return nil
	})
	return names, err
}

// NextEvents implements storage.Events.
func (r *Registry) NextEvents(ctx context.Context, target string, limit int) (found []storage.Event, err error) {
	err = r.list(ctx, nextEvents, []any{target, int64(limit)}, eventColumnCount, func(row []driver.Value) error {
		e, err := eventOf(row)
		found = append(found, e)
		return err
	})
	return found, err
}

// ListEvents implements storage.Events. Events that come or go meanwhile may be among those
// yielded or not.
func (r *Registry) ListEvents(ctx context.Context, yield func(storage.Event) error) error {
	return each(ctx, r, listEvents, []any{int64(0)}, eventColumnCount, eventOf, yield, func(row []driver.Value) []any {
		return []any{row[0]}
	})
}

// Backlogs implements storage.Events.
func (r *Registry) Backlogs(ctx context.Context) (all []storage.Backlog, err error) {
	err = r.list(ctx, listBacklogs, nil, 3, func(row []driver.Value) error {
		target, _ := row[0].(string)
		n, _ := row[1].(int64)
		oldest, _ := timeOf(row[2])
		all = append(all, storage.Backlog{Target: target, Events: int(n), Oldest: oldest})
		return nil
	})
	return all, err
}

// Recorded implements storage.Events.
func (r *Registry) Recorded() <-chan struct{} { return r.recorded }

// tellRecorded sends to Recorded.
func (r *Registry) tellRecorded() {
	select {
	case r.recorded <- struct{}{}:
	default: // whoever listens will look anyway
	}
}

// due is what the column Due holds for t.
func due(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(1, t.UnixMilli())
}

// eventOf makes an Event of a row of eventColumns.
func eventOf(row []driver.Value) (storage.Event, error) {
	var text [8]string
	ok := true
	for i, column := range []int{1, 2, 3, 4, 7, 8, 9, 10} {
		var isText bool
		text[i], isText = row[column].(string)
		ok = ok && isText
	}
	seq, okSeq := row[0].(int64)
	happened, okTime := timeOf(row[5])
	id, okID := row[6].([]byte)
	size, okSize := row[11].(int64)
	cksum, okCksum := row[12].(int64)
	attempts, okAttempts := row[13].(int64)
	failure, _ := row[14].(string)
	next, waits := row[15].(int64)
	if !ok || !okSeq || !okTime || !okID || len(id) != codec.IDSize || !okSize || !okCksum || cksum < 0 || cksum > math.MaxUint32 || !okAttempts {
		return storage.Event{}, fmt.Errorf("%w: events, Seq %v", errRow, row[0])
	}
	e := storage.Event{
		Seq: seq, Target: text[0], ID: text[1], Kind: storage.EventKind(text[2]), Why: storage.Why(text[3]), Happened: happened,
		Client: codec.ClientID(id), ClientName: text[4], FileName: text[5], Path: text[6], Version: text[7],
		Size: size, Cksum: uint32(cksum), Attempts: int(attempts), Failure: failure, Behind: !waits,
	}
	if next > 0 {
		e.Due = time.UnixMilli(next).UTC()
	}
	return e, nil
}
