package session

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"sealift/storage"
	"sealift/transfer"
)

const (
	// keepFrom is the least plaintext, in bytes, that is kept when a transfer is cut off. A
	// transfer that has so much, and so much still to come, is recorded as a partial
	// file: so it is found after the server was killed.
	keepFrom = 1 << 20
	// checkpointEvery is how much plaintext, in bytes, comes between two checkpoints. It is about
	// what has to be read again after the server was killed.
	checkpointEvery = 64 << 20
	// checkpointSealed is the same where the store is Sealed, and what came since the last
	// checkpoint is lost with the server. A file has maxCheckpoints at most.
	checkpointSealed = 16 << 20
	maxCheckpoints   = 2048
)

// progress is what an upload has that is recorded as a partial file, or that goes on with
// one.
type progress struct {
	continued *continued // what the 1608 said; nil: the transfer began without one
	claim     *claim     // nil: it was never recorded as a partial file
	row       storage.Partial
	recorded  bool   // the registry has the row, or had it
	next      int64  // the Length at which the next checkpoint is due
	marking   bool   // a checkpoint is under way
	marked    func() // is to be called after it, by way of the host; nil: nobody waits
	doubtful  bool   // the registry failed to record a row, and may have done it
	spoilt    bool   // a Flush failed: nobody knows what will be there after a power cut
	gone      bool   // the content went with it, also what is on record
}

// fate is what becomes of the content of an upload that is dropped.
type fate uint8

const (
	fateRemove fate = iota // it is removed, and its row
	fateUndo               // what came since the 1608 is removed
	fateKeep               // it is recorded as a partial file
	fateLeave              // it stays as it is: it is another one's, or may be, or nothing can be done to it
)

// total is the size of the file, if anybody has said it.
func (u *upload) total() (n int64, known bool) {
	if p := u.progress; p != nil && p.continued != nil {
		return p.continued.total, true
	}
	n = u.transfer.Plan().OrigSize
	return n, n >= 0
}

// generation is for storage.PutFile.
func (u *upload) generation() int64 {
	if u.progress == nil || u.progress.claim == nil {
		return 0
	}
	return u.progress.row.Generation
}

// keepable reports whether what has come of the transfer is to be kept when its connection is
// lost. What came on a connection that was bound by the id alone is not: whoever overheard
// the id could learn the checksum of what it decrypts to.
func (u *upload) keepable() bool {
	if u.tentative || u.guarded != nil || u.s.ousted.Load() != nil {
		return false
	}
	if p := u.progress; p != nil && p.claim != nil {
		return !p.spoilt
	}
	_, known := u.total()
	return known && u.transfer.Offset() >= u.s.svc.KeepFrom
}

// checkpointDue reports whether the transfer is to be recorded as a partial file as it is.
// No work on it is under way. It is called by whoever has the session, also by the worker that it is
// lent to.
func (u *upload) checkpointDue() bool {
	at, p := u.s.svc.KeepFrom, u.progress
	if u.s.svc.keeping.Sealed { // a row alone is of no use
		total, _ := u.total()
		at = u.s.svc.checkpointStep(total)
	}
	if p != nil && p.claim != nil {
		at = p.next
	}
	length := u.transfer.Length()
	if length < at || u.guarded != nil || p != nil && (p.marking || p.spoilt) {
		return false
	}
	total, known := u.total()
	return known && total-length >= u.s.svc.KeepFrom
}

// checkpoint has the registry record the transfer as a partial file, as far as it has come. The
// transfer goes on meanwhile. A checkpoint that fails is no matter: the next is due later.
// No work on u is under way.
func (u *upload) checkpoint() {
	s, w := u.s, u.transfer.Written()
	first := u.recordable(w)
	p := u.progress
	p.next, p.marking = w.Length+s.svc.checkpointStep(p.row.Total), true
	row := p.row
	flushes := !first || s.svc.keeping.Sealed
	if flushes {
		row.Length, row.State, row.Incoming = w.Length, w.State, w.Key
	}
	s.start(func(co *coroutine) {
		defer func() {
			p.marking = false
			if f := p.marked; f != nil {
				p.marked = nil
				s.host.Do(Compute, nil, f)
			}
		}()
		if flushes {
			if err := co.flush(&row); err != nil {
				p.spoilt = p.spoilt || !errors.Is(err, context.Canceled)
				p.gone = p.gone || isGone(err)
				s.log().Debug("checkpoint failed", s.fields(zap.String("file", u.name), zap.Error(err))...)
				return
			}
		}
		if u.dropped || u.stored || u.transfer.Complete() { // what is done then comes behind
			return
		}
		switch err := u.putPartial(co, row); {
		case !u.dropped && (errors.Is(err, storage.ErrSuperseded) || errors.Is(err, storage.ErrNoLease)):
			u.end(u.transfer.Current(), err) // it is another one's, or can't be recorded any more
		case err != nil:
			s.log().Debug("checkpoint failed", s.fields(zap.String("file", u.name), zap.Error(err))...)
		}
	})
}

// awaitCheckpoint waits until no checkpoint of u is under way, where one may give its row another key.
// No work on u is under way.
func (u *upload) awaitCheckpoint(co *coroutine) {
	for p := u.progress; p != nil && p.marking && u.s.svc.keeping.Sealed; {
		p.marked = co.resumed
		co.wait(func() {})
	}
}

// checkpointStep is how much plaintext of a file of total bytes comes between two checkpoints.
func (svc *Service) checkpointStep(total int64) int64 {
	if !svc.keeping.Sealed {
		return svc.CheckpointEvery
	}
	return max(svc.CheckpointEvery, total/maxCheckpoints)
}

// storePart records the part of a file that has come whole, durably, and sends its 1603.
func (u *upload) storePart(co *coroutine, in transfer.Received) {
	u.awaitCheckpoint(co)
	s, c, w := u.s, u.progress.continued, u.transfer.Written()
	u.recordable(w)
	p := u.progress
	row := p.row
	row.Length, row.State = w.Length, w.State
	row.Incoming = w.Key
	step, err := StepStorage, co.flush(&row)
	if err == nil && !u.dropped {
		step, err = StepRegistry, u.putPartial(co, row)
	}
	switch {
	case u.dropped: // what becomes of it, conclude sees to
		return
	case err != nil:
		u.end(u.transfer.Plan().Last(), &stepError{step, err})
		return
	}
	s.svc.tellKept()
	u.stored = true
	u.uncount()
	c.row.Incoming = row.Incoming
	if c.offset == 0 {
		c.row = row
		c.row.Length, c.row.State = 0, 0
	}
	c.claim, p.claim, c.stage = p.claim, nil, sent
	u.leaveAll()
	s.uploads.told.served(u.name)
	s.uploads.note(u.name, receipt{plan: u.transfer.Plan(), settled: true, part: true})
	u.acknowledge("segment received", &storage.File{ID: s.id, Size: in.Size, Cksum: in.Cksum}, s.host.Now().Sub(u.started))
	s.restClaim(c.claim)
}

// tellKept tells the host that there is one more partial file, or a longer one.
func (svc *Service) tellKept() {
	if svc.Kept != nil {
		svc.Kept()
	}
}

// recordable makes the progress of u such that it can be recorded, and reports whether that
// is for the first time.
func (u *upload) recordable(w transfer.Written) (first bool) {
	s := u.s
	if u.progress == nil {
		u.progress = new(progress)
	}
	p := u.progress
	if p.claim != nil {
		return false
	}
	total, _ := u.total()
	p.row = storage.Partial{
		ID: s.id, FileName: u.name, Path: u.path, Incoming: w.Key, Total: total, Boot: s.svc.Boot, Generation: 1,
	}
	p.claim = s.svc.claims.enter(s, p.row.Uploaded(), true)
	return true
}

// putPartial has the registry record the partial file of u.
func (u *upload) putPartial(co *coroutine, row storage.Partial) error {
	p := u.progress
	err := co.putPartial(&row, u.from(row.Incoming), p.claim)
	if err == nil {
		p.recorded, p.row = true, row
		if c := p.continued; c != nil && c.claim != nil {
			c.row.Incoming = row.Incoming // what the 1608 said is the beginning of that, too
		}
	} else if u.unsure(err) {
		p.doubtful = true
	}
	return err
}

// unsure reports whether the registry may have recorded content of u, though it answered err:
// over a network its answer may be lost. Then the content stays, and if it is not on record, the
// sweep removes it.
func (u *upload) unsure(err error) bool {
	return u.s.svc.swept() && !clientsDoing(err) && !errors.Is(err, storage.ErrSuperseded) && !errors.Is(err, storage.ErrNoLease)
}

// from is what content with that key goes on from, for storage.PutPartial and PutFile: the partial file
// of u, unless it has the same key or is not on record.
func (u *upload) from(key string) string {
	if p := u.progress; p != nil && p.recorded && p.row.Incoming != key {
		return p.row.Incoming
	}
	return ""
}

// putPartial has the registry record a partial file, in the place of the one with the key from, if that
// is not "". c is the claim on it, which goes with it.
func (co *coroutine) putPartial(row *storage.Partial, from string, c *claim) error {
	row.Changed = co.s.host.Now()
	op := &storage.PutPartial{Outcome: co.s.outcome(), Partial: *row, From: from, Leased: co.s.svc.keeping.Leases}
	err := co.apply(op)
	if err == nil {
		if from != "" {
			co.s.svc.claims.rename(c, row.Uploaded())
		}
		co.discardReplaced(op.Replaced)
	}
	return err
}

// flush makes the content of a partial file durable, as far as row says.
func (co *coroutine) flush(row *storage.Partial) error {
	files := co.s.svc.Files
	return co.do(Storage, func(ctx context.Context) error { return files.Flush(ctx, row.Uploaded(), row.Length) })
}

// fateBy is what becomes of the content of a transfer that ends by err.
func (u *upload) fateBy(err error) fate {
	switch {
	case errors.Is(err, storage.ErrSuperseded), errors.Is(err, context.Canceled) && u.progress != nil:
		return fateLeave
	case stepOf(err) == StepRegistry && u.unsure(err):
		return fateLeave
	case err == errTaken && u.keepable():
		return fateKeep
	}
	return u.fateUnkept()
}

// fateUnwritten is what becomes of the content of a transfer that was to be kept, and of which err
// kept the rest from being written. What is on record was promised.
func (u *upload) fateUnwritten(err error) fate {
	switch p := u.progress; {
	case errors.Is(err, storage.ErrSuperseded), errors.Is(err, context.Canceled) && p != nil:
		return fateLeave
	case p == nil || !p.recorded && !p.doubtful || isGone(err):
		return fateRemove
	case !clientsDoing(err):
		return fateLeave
	case p.continued != nil && p.continued.offset > 0:
		return fateUndo
	}
	return fateRemove
}

// fateAtCut is what becomes of the content of a transfer whose connection was lost.
func (u *upload) fateAtCut() fate {
	if u.keepable() {
		return fateKeep
	}
	return u.fateAsRecorded()
}

// fateAsRecorded is what becomes of the content of a transfer of which no more is to be kept
// than is on record.
func (u *upload) fateAsRecorded() fate {
	if p := u.progress; p != nil && p.recorded && p.row.Length > 0 && !p.gone && u.s.ousted.Load() == nil {
		return fateLeave
	}
	return fateRemove
}

// isGone reports whether err says that the content is not there any more, or will not be after
// a power cut.
func isGone(err error) bool {
	return errors.Is(err, storage.ErrNotDurable) || errors.Is(err, storage.ErrNotStored)
}

// fateUnkept is what becomes of the content of a transfer that its client ended, or that
// failed.
func (u *upload) fateUnkept() fate {
	if p := u.progress; p != nil && p.continued != nil && p.continued.offset > 0 && !u.s.closed {
		return fateUndo
	}
	return fateRemove
}

// conclude does what fate says to the content of an upload that was dropped, and that has a row,
// or is to have one. No work on it is under way.
func (u *upload) conclude(co *coroutine) {
	defer u.cease()
	u.awaitCheckpoint(co)
	if u.fate == fateKeep && u.keep(co) {
		return
	}
	switch p := u.progress; {
	case u.fate == fateUndo:
		u.undo(co)
	case u.fate == fateLeave || p == nil || p.claim == nil:
		u.close(co)
	default:
		u.forgetPartial(co)
	}
}

// cease ends the part of u in a partial file. What a 1608 gave stays if the content was brought back to that.
func (u *upload) cease() {
	p := u.progress
	if p == nil {
		return
	}
	if c := p.continued; c != nil {
		if c.stage == undoing {
			c.stage = given
		}
		if u.fate == fateUndo && !u.s.closed {
			u.s.restClaim(p.claim)
			return
		}
	}
	if p.claim != nil {
		u.s.leaveClaim(p.claim)
	}
}

// keep records what has come as a partial file. It returns false if that is not to be: then
// what becomes of the content is in u.fate.
func (u *upload) keep(co *coroutine) bool {
	s := u.s
	err := u.write(co)
	synced := true
	w := u.transfer.Written()
	if err == nil && w.Length < s.svc.KeepFrom && (u.progress == nil || u.progress.claim == nil) {
		u.fate = fateRemove
		return false
	}
	if err == nil {
		u.recordable(w)
		row := u.progress.row
		row.Length, row.State, row.Incoming = w.Length, w.State, w.Key
		err = co.flush(&row)
		if s.svc.keeping.Sealed { // else write has done that
			err = errors.Join(err, co.do(Storage, u.transfer.Park))
		}
		if synced = err == nil; synced {
			if err = u.putPartial(co, row); err == nil {
				s.log().Info("partial file kept", s.fields(zap.String("file", u.name), zap.Int64("bytes", row.Length), zap.Int64("total_bytes", row.Total))...)
				s.svc.counts.kept.Add(1)
				s.svc.tellKept()
				return true
			}
		}
	}
	s.log().Info("partial file not kept", s.fields(zap.String("file", u.name), zap.Error(err))...)
	u.fate = u.fateUnwritten(err)
	if u.fate == fateLeave && !synced && u.progress.row.Length == 0 && !errors.Is(err, context.Canceled) {
		u.fate = fateRemove // nobody syncs the same content again and believes it
	}
	return false
}

// write writes what is gathered, as far as it is in order, and closes the incoming file. Where the
// store is Sealed it stays open: closed, it could not be flushed any more.
func (u *upload) write(co *coroutine) error {
	s, parts := u.s, u.queue
	u.queue = nil
	held := 0
	for _, p := range parts {
		held += len(p.Buf())
	}
	defer func() { s.uploads.held -= held }()
	return co.do(Storage, func(ctx context.Context) (err error) {
		defer func() {
			for _, p := range parts {
				s.host.Release(p.Buf())
			}
		}()
		for i := range parts {
			if err == nil && parts[i].InOrder() {
				err = u.transfer.Write(ctx, &parts[i])
			}
		}
		if s.svc.keeping.Sealed {
			return err
		}
		return errors.Join(err, u.transfer.Park(ctx))
	})
}

// close closes the incoming file, and leaves it, unless it was never recorded.
func (u *upload) close(co *coroutine) {
	s, t := u.s, u.transfer
	leave := u.fate == fateLeave && !u.isOwn()
	err := co.do(Storage, func(ctx context.Context) error {
		if leave {
			return t.Park(ctx)
		}
		return t.Abandon(ctx)
	})
	if err != nil {
		s.log().Error("removing what a transfer left", zap.String("file", u.name), zap.Error(err))
	}
}

// isOwn reports whether the content that u has written is certainly not on record: it goes on from that
// of a partial file, with a key of its own.
func (u *upload) isOwn() bool {
	p := u.progress
	return p != nil && !p.doubtful && u.from(u.transfer.Written().Key) != ""
}

// dropPartial is the operation that forgets a partial file, before its content is removed: then no
// server can record that any more.
func (svc *Service) dropPartial(o storage.Outcome, row *storage.Partial) *storage.DropPartial {
	return &storage.DropPartial{
		Outcome: o, ID: row.ID, Path: row.Path, Incoming: row.Incoming, Generation: row.Generation, Leased: svc.keeping.Leases,
	}
}

// forgetPartial removes the row of u, and then its content.
func (u *upload) forgetPartial(co *coroutine) {
	p := u.progress
	row := &p.row
	op := u.s.svc.dropPartial(own, row)
	err := co.apply(op)
	if err != nil && u.s.svc.swept() && (p.recorded || p.doubtful) {
		u.fate = fateLeave // another server may go on with it
	} else if err != nil && !errors.Is(err, storage.ErrNoFile) && !errors.Is(err, storage.ErrNoClient) {
		u.s.log().Error("removing what a transfer left", zap.String("file", u.name), zap.Error(err))
		if errors.Is(err, context.Canceled) {
			u.fate = fateLeave
		} // else the content goes all the same: the disk may be full of it, and the row alone says nothing
	}
	u.close(co)
	if u.fate != fateLeave {
		co.discard(row.Uploaded()) // also if the transfer never opened it
	}
}

// undo removes what came since the 1608, so that the next transfer begins there again.
func (u *upload) undo(co *coroutine) {
	u.fate = fateLeave
	u.close(co)
	if u.progress.continued.goBack(co) {
		u.fate = fateUndo
	}
}
