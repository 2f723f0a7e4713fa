package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// Apply does batch in one transaction. It implements storage.Registry.
//
// A batch that only reads (see storage.Reads) goes over the
// reading connection and waits for no writer.
func (r *Registry) Apply(ctx context.Context, batch []storage.Operation) error {
	if err := ctx.Err(); err != nil || len(batch) == 0 {
		return err
	}
	slot := r.writer
	if onlyReads(batch) {
		slot = r.reader
	} else if slot == nil {
		return r.failure("write", ErrReadOnly)
	}
	c, err := r.take(ctx, slot)
	if err != nil {
		return r.failure("open", err)
	}
	if slot == r.reader {
		if err = r.atHome(c); err == nil {
			err = (&transaction{c: c}).do(batch)
		}
	} else {
		err = r.write(ctx, c, batch)
	}
	r.release(ctx, slot, c, err)
	if err != nil {
		return r.failure("commit", err)
	}
	return nil
}

func onlyReads(batch []storage.Operation) bool {
	return !slices.ContainsFunc(batch, func(op storage.Operation) bool { return !storage.Reads(op) })
}

// write does batch in a transaction on c.
func (r *Registry) write(ctx context.Context, c *conn, batch []storage.Operation) error {
	t := &transaction{
		c: c, seen: make(map[codec.ClientID]time.Time, len(batch)), partials: r.partials, tells: r.tells, now: r.now,
	}
	r.partials = true // also after a commit that failed: it may have been done
	err := r.transact(ctx, c, func() error {
		if err := t.do(batch); err != nil {
			return err
		}
		return t.flushSeen()
	})
	if err != nil {
		return err
	}
	r.partials = t.partials || r.beside
	if t.recorded {
		r.tellRecorded()
	}
	return err
}

// transact does what writes in a transaction on c. After an error there is none open.
func (r *Registry) transact(ctx context.Context, c *conn, do func() error) error {
	_, err := c.execContext(ctx, begin)
	if err == nil {
		err = do()
		if err == nil {
			err = ctx.Err() // the last chance: a commit is not interrupted
		}
		if err == nil {
			err = r.atHome(c)
		}
		if err == nil {
			_, err = c.exec(commit)
		}
	}
	if err == nil {
		return r.atHome(c) // moved while it was being written
	}
	// Fails where SQLite has rolled back by itself already, or where the
	// transaction never began.
	_, _ = c.exec(rollback)
	return err
}

// release gives c back, after an error or nil. Waiting for a lock in vain leaves a
// connection as good as it was, and one whose files were moved must stay open. Anything
// else that fails is a reason to begin with a new one.
func (r *Registry) release(ctx context.Context, slot chan *conn, c *conn, err error) {
	r.give(slot, c, err != nil && !isBusy(err) && !errors.Is(err, ErrMoved) && ctx.Err() == nil)
}

// transaction carries out the operations of one batch.
type transaction struct {
	c *conn
	// seen is what the batch makes of the clients' LastSeen, written once at its
	// end: connections often come with several operations at once. AddClient,
	// SetKeys and SetAESKey write it themselves, and take the client out. Nil in a
	// batch that only reads.
	seen map[codec.ClientID]time.Time
	// partials: there may be partial files on record.
	partials bool
	// tells: there may be targets of events.
	tells    bool
	recorded bool // an event was
	now      func() time.Time
}

func (t *transaction) do(batch []storage.Operation) error {
	for _, op := range batch {
		if err := t.apply(op); err != nil {
			return err
		}
	}
	return nil
}

// apply does one operation and sets its results. An error is the store's.
func (t *transaction) apply(op storage.Operation) error {
	var refused, failed error
	var id codec.ClientID
	var was *storage.File      // as it was before op, where an event
	var client *storage.Client // needs that
	if t.tells {
		if was, client, failed = t.subject(op); failed != nil {
			return failed
		}
	}
	switch op := op.(type) {
	case *storage.AddClient:
		id = op.ID
		refused, failed = t.addClient(op)
	case *storage.GetClient:
		id = op.ID
		refused, failed = t.getClient(op)
	case *storage.PinClient:
		id = op.ID
		refused, failed = t.changeFor(op.ID, op.By, storage.ErrNoClient, updateTLSKey, op.ID[:], blob(op.TLSKey), actor(op.By))
	case *storage.SetKeys:
		id = op.ID
		refused, failed = t.setKeys(op)
	case *storage.SetAESKey:
		id = op.ID
		refused, failed = t.changeFor(op.ID, op.By, storage.ErrNoClient, updateAESKey, op.ID[:], blob(op.AESKey), blob(op.If), actor(op.By), timestamp(op.At))
	case *storage.Seen:
		id = op.ID
		refused, failed = t.mayAct(op.ID, op.By)
	case *storage.PutFile:
		id = op.File.ID
		refused, failed = t.putFile(op)
	case *storage.GetFile:
		id = op.ID
		refused, failed = t.getFile(op)
	case *storage.FindAlike:
		id = op.ID
		refused, failed = t.findAlike(op)
	case *storage.PutPartial:
		id = op.Partial.ID
		refused, failed = t.putPartial(op)
	case *storage.ContinueFile:
		id = op.ID
		refused, failed = t.continueFile(op)
	case *storage.DropPartial:
		id = op.ID
		refused, failed = t.dropPartial(op)
	case *storage.DeletePartial:
		id = op.ID
		refused, failed = t.change(storage.ErrNoFile, deletePartial, op.ID[:], pathName(op.ID, op.Path), op.Incoming)
	case *storage.VerifyFile:
		id = op.ID
		refused, failed = t.verifyFile(op)
	case *storage.DropFile:
		id = op.ID
		refused, failed = t.count(op.ID, op.Path, func() (refused, failed error) { return t.dropFile(op) })
	case *storage.MarkFile:
		id = op.ID
		refused, failed = t.count(op.ID, op.Path, func() (refused, failed error) {
			return t.change(storage.ErrNoFile, markMissing, op.ID[:], pathName(op.ID, op.Path), op.Incoming, op.Missing)
		})
	case *storage.ForgetFile:
		id = op.ID
		refused, failed = t.count(op.ID, op.Path, func() (refused, failed error) { return t.forgetFile(op) })
	case *storage.TakeFile:
		id = op.ID
		refused, failed = t.change(storage.ErrNoFile, takeFile, op.ID[:], pathName(op.ID, op.Path), op.Incoming, timestamp(op.Taken))
	case *storage.DeleteFile:
		id = op.ID
		refused, failed = t.change(storage.ErrNoFile, deleteFile, op.ID[:], pathName(op.ID, op.Path), op.Incoming, op.Verified)
	case *storage.LeaseUpload:
		refused, failed = t.leaseUpload(op)
	case *storage.RenewLeases:
		failed = t.renewLeases(op)
	case *storage.EndLease:
		failed = t.endLease(op.Key)
	case *storage.ReapLeases:
		failed = t.reapLeases(op)
	case *storage.FindUpload:
		op.Found, failed = t.knows(&op.Upload)
	case *storage.AddName:
		refused, failed = t.addName(op)
	case *storage.DropName:
		refused, failed = t.change(storage.ErrNoClient, dropName, op.Name)
	case *storage.DisableClient:
		id = op.ID
		refused, failed = t.change(storage.ErrNoClient, updateDisabled, op.ID[:], op.Disabled)
	case *storage.DropClient:
		id = op.ID
		refused, failed = t.dropClient(op)
	case *storage.DropKeyless:
		id = op.ID
		refused, failed = t.forgetClient(dropKeyless, op.ID[:], timestamp(op.Before))
	case *storage.SetQuota:
		id = op.ID
		refused, failed = t.setQuota(op)
	case *storage.SetKeepFor:
		id = op.ID
		refused, failed = t.change(storage.ErrNoClient, updateKeepFor, op.ID[:], keepSeconds(op.KeepFor))
	case *storage.SetExpires:
		id = op.ID
		refused, failed = t.change(storage.ErrNoClient, updateExpires, op.ID[:], timestamp(op.Expires))
	case *storage.FindExpired:
		refused, failed = t.findExpired(op)
	case *storage.ExpireClient:
		id = op.ID
		refused, failed = t.change(storage.ErrNoClient, expireClient, op.ID[:], timestamp(op.Now))
	case *storage.GetUsage:
		id = op.ID
		refused, failed = t.getUsage(op)
	case *storage.RaiseEvent:
		id = op.Event.Client
		refused, failed = t.mayAct(id, op.By)
	case *storage.RestoreEvent:
		failed = t.restoreEvent(&op.Event)
	case *storage.EventTold:
		refused, failed = t.eventTold(op)
	case *storage.PostponeEvent:
		refused, failed = t.change(storage.ErrNoEvent, postponeEvent, op.Seq, due(op.Due), op.Failure)
	case *storage.RetryEvents:
		failed = t.retryEvents(op)
	case *storage.DropEvents:
		failed = t.dropEvents(op)
	default:
		refused = fmt.Errorf("unknown operation %T", op)
	}
	if errors.Is(failed, errRow) {
		refused, failed = failed, nil
	}
	if t.tells && refused == nil && failed == nil {
		failed = t.record(op, was, client)
	}
	if failed != nil {
		return failed
	}
	out := op.Result()
	out.Err = refused
	if refused == nil && !out.At.IsZero() {
		switch op.(type) {
		case *storage.AddClient, *storage.SetKeys, *storage.SetAESKey: // have written it
			delete(t.seen, id)
		default:
			t.seen[id] = out.At
		}
	}
	return nil
}

// change runs a statement that changes one row, or is refused if it changed
// none.
func (t *transaction) change(none error, s statement, args ...any) (refused, failed error) {
	n, err := t.c.exec(s, args...)
	if err == nil && n == 0 {
		refused = none
	}
	return refused, err
}

// changeFor is change for a statement that is refused with ErrPinned or ErrDisabled
// where by may not act for the client.
func (t *transaction) changeFor(id codec.ClientID, by storage.Actor, none error, s statement, args ...any) (refused, failed error) {
	refused, failed = t.change(none, s, args...)
	if refused != nil && failed == nil {
		if why, err := t.mayActFor(id, by); why != nil || err != nil {
			return why, err
		}
	}
	return refused, failed
}

// mayAct is refused with ErrNoClient, or with ErrPinned or ErrDisabled if by may not
// act for the client.
func (t *transaction) mayAct(id codec.ClientID, by storage.Actor) (refused, failed error) {
	refused = storage.ErrNoClient
	err := t.c.rows(background, selectAccess, []any{id[:]}, 2, func(row []driver.Value) error {
		pin, understood := row[0].([]byte)
		disabled, okDisabled := boolOf(row[1])
		if refused = by.Refused(pin, disabled || !okDisabled); !understood && row[0] != nil && !by.IsServer() {
			refused = storage.ErrPinned
		}
		return nil
	})
	return refused, err
}

// mayActFor is mayAct for what needs no client on record.
func (t *transaction) mayActFor(id codec.ClientID, by storage.Actor) (refused, failed error) {
	if by.IsServer() {
		return nil, nil
	}
	if refused, failed = t.mayAct(id, by); errors.Is(refused, storage.ErrNoClient) {
		refused = nil
	}
	return refused, failed
}

func (t *transaction) addClient(op *storage.AddClient) (refused, failed error) {
	n, err := t.c.exec(insertClient, op.ID[:], op.Name, timestamp(op.At), blob(op.TLSKey), op.OnlyAdded)
	if err != nil || n == 1 {
		return nil, err
	}
	taken, err := t.exists(hasName, op.Name)
	if taken || err != nil {
		return storage.ErrNameTaken, err
	}
	if op.OnlyAdded {
		if added, err := t.exists(isAdded, op.Name); !added || err != nil {
			return storage.ErrNotAdded, err
		}
	}
	return storage.ErrIDTaken, nil
}

func (t *transaction) addName(op *storage.AddName) (refused, failed error) {
	n, err := t.c.exec(addName, op.Name)
	if err != nil || n == 1 {
		return nil, err
	}
	if taken, err := t.exists(hasName, op.Name); taken || err != nil {
		return storage.ErrNameTaken, err
	}
	return nil, nil // it was added before
}

func (t *transaction) dropClient(op *storage.DropClient) (refused, failed error) {
	for _, s := range []statement{hasFiles, clientHasPartials} {
		if has, err := t.exists(s, op.ID[:]); has || err != nil {
			return storage.ErrHasFiles, err
		}
	}
	for _, s := range []statement{dropFiles, dropAdded} {
		if _, err := t.c.exec(s, op.ID[:]); err != nil {
			return nil, err
		}
	}
	return t.forgetClient(dropClient, op.ID[:])
}

// forgetClient is change for a statement that deletes a client.
func (t *transaction) forgetClient(s statement, args ...any) (refused, failed error) {
	if refused, failed = t.change(storage.ErrNoClient, s, args...); refused == nil && failed == nil {
		_, failed = t.c.exec(markEmptied)
	}
	return refused, failed
}

func (t *transaction) getClient(op *storage.GetClient) (refused, failed error) {
	op.Client = storage.Client{}
	client, err := t.client(op.ID)
	switch {
	case err != nil:
		return nil, err
	case client == nil:
		return storage.ErrNoClient, nil
	}
	if refused = op.By.Refused(client.TLSKey, client.Disabled); refused == nil {
		op.Client = *client
	}
	return refused, nil
}

func (t *transaction) setKeys(op *storage.SetKeys) (refused, failed error) {
	n, err := t.c.exec(updateKeys, op.ID[:], op.Name, blob(op.PublicKey), blob(op.AESKey), op.Replace, actor(op.By), timestamp(op.At))
	if err != nil || n == 1 {
		return nil, err
	}
	client, err := t.client(op.ID)
	switch {
	case err != nil:
		return nil, err
	case client == nil:
		return storage.ErrNoClient, nil
	}
	if refused = op.By.Refused(client.TLSKey, client.Disabled); refused != nil {
		return refused, nil
	}
	if client.Name != op.Name {
		return storage.ErrWrongName, nil
	}
	return storage.ErrKeyPinned, nil
}

func (t *transaction) putFile(op *storage.PutFile) (refused, failed error) {
	f := &op.File
	path := pathName(f.ID, f.Path)
	op.Replaced, op.Partial = nil, nil
	if t.partials || op.Generation != 0 || op.Leased {
		if refused, failed = t.takePartial(op, path); refused != nil || failed != nil {
			return refused, failed
		}
	}
	args := []any{
		f.ID[:], f.FileName, path, f.Size, int64(f.Cksum), f.Incoming, timestamp(f.Received), f.Lapsed, actor(op.By),
	}
	if !op.Quota.Bounds() {
		// Most often no version waits, and no question needs to be asked.
		if n, err := t.c.exec(addFile, args...); n > 0 || err != nil {
			return nil, err
		}
	}
	a, refused, failed := t.admit(op)
	if refused != nil || failed != nil {
		return refused, failed
	}
	if !a.counted {
		return t.replaceFile(op, args)
	}
	return t.countFrom(a.here, f.ID, f.Path, func() (refused, failed error) { return t.replaceFile(op, args) })
}

// replaceFile is putFile where a version may wait. args are those of the statement.
func (t *transaction) replaceFile(op *storage.PutFile, args []any) (refused, failed error) {
	f := &op.File
	path := pathName(f.ID, f.Path)
	err := t.c.rows(background, selectUnverified, []any{f.ID[:], path}, fileColumnCount, func(row []driver.Value) error {
		was, err := fileOf(row)
		op.Replaced = &was
		return err
	})
	if err != nil {
		return nil, err
	}
	args[len(args)-2] = f.Lapsed || op.Replaced != nil
	if refused, failed = t.changeFor(f.ID, op.By, storage.ErrNoClient, putFile, args...); refused != nil {
		op.Replaced = nil
	}
	return refused, failed
}

func (t *transaction) dropFile(op *storage.DropFile) (refused, failed error) {
	path := pathName(op.ID, op.Path)
	refused, failed = t.changeFor(op.ID, op.By, storage.ErrNoFile, dropFile, op.ID[:], path, op.Incoming, actor(op.By))
	op.Marked = false
	if refused == nil && failed == nil {
		var n int64
		n, failed = t.c.exec(markLapsed, op.ID[:], path)
		op.Marked = n > 0
	}
	return refused, failed
}

func (t *transaction) forgetFile(op *storage.ForgetFile) (refused, failed error) {
	path := pathName(op.ID, op.Path)
	refused, op.Lapsed = storage.ErrNoFile, false
	err := t.c.rows(background, selectForgettable, []any{op.ID[:], path, op.Incoming}, 1, func(row []driver.Value) error {
		refused = nil
		op.Lapsed, _ = boolOf(row[0])
		return nil
	})
	if refused != nil || err != nil {
		return refused, err
	}
	if op.Lapsed {
		n, err := t.c.exec(markWaiting, op.ID[:], path)
		if err != nil {
			return nil, err
		}
		op.Lapsed = n == 0
	}
	return t.change(storage.ErrNoFile, forgetFile, op.ID[:], path)
}

func (t *transaction) getFile(op *storage.GetFile) (refused, failed error) {
	op.Verified, op.Unverified, op.Partial = nil, nil, nil
	if refused, failed = t.mayActFor(op.ID, op.By); refused != nil || failed != nil {
		return refused, failed
	}
	err := t.c.rows(background, selectFile, []any{op.ID[:], pathName(op.ID, op.Path)}, fileColumnCount,
		func(row []driver.Value) error {
			f, err := fileOf(row)
			if f.Verified {
				op.Verified = &f
			} else {
				op.Unverified = &f
			}
			return err
		})
	if err == nil && op.WithPartial {
		op.Partial, err = t.partial(op.ID, pathName(op.ID, op.Path))
	}
	if err == nil && op.Verified == nil && op.Unverified == nil && op.Partial == nil {
		refused = storage.ErrNoFile
	}
	return refused, err
}

func (t *transaction) findAlike(op *storage.FindAlike) (refused, failed error) {
	op.Found = ""
	if refused, failed = t.mayActFor(op.ID, op.By); refused != nil || failed != nil {
		return refused, failed
	}
	key, below := op.Folds(op.Path), pathName(op.ID, "")
	err := t.c.rows(background, selectPaths, []any{op.ID[:]}, 1, func(row []driver.Value) error {
		name, _ := row[0].(string) // one that was edited is of no place
		path, ok := strings.CutPrefix(name, below)
		if ok && op.Found == "" && path != op.Path && op.Folds(path) == key {
			op.Found = path
		}
		return nil
	})
	if err == nil && op.Found == "" {
		refused = storage.ErrNoFile
	}
	return refused, err
}

// client reads a client, with what the batch has made of its LastSeen so far;
// nil if there is none.
func (t *transaction) client(id codec.ClientID) (*storage.Client, error) {
	var found *storage.Client
	err := t.c.rows(background, selectClient, []any{id[:]}, clientColumnCount, func(row []driver.Value) error {
		client, err := clientOf(row)
		if at, ok := t.seen[id]; ok {
			client.LastSeen = roundTime(at)
		}
		found = &client
		return err
	})
	return found, err
}

func (t *transaction) exists(s statement, args ...any) (bool, error) {
	found := false
	err := t.c.rows(background, s, args, 1, func([]driver.Value) error {
		found = true
		return nil
	})
	return found, err
}

func (t *transaction) flushSeen() error {
	for id, at := range t.seen {
		if _, err := t.c.exec(updateLastSeen, id[:], timestamp(at)); err != nil {
			return err
		}
	}
	return nil
}
