package session

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/storage"
	"sealift/transfer"
)

// upload is a transfer of this connection: the packets of one file name. Jobs write
// what comes, one at a time. Its end, with the registry or with a 1607, is a coroutine.
type upload struct {
	s        *Session
	transfer *transfer.Transfer
	name     string // as the client sent it
	path     string // where it will be stored, see storage.CleanPath
	// guarded is the AES key, if all that the client showed for it was its id.
	guarded      *aesKey
	started      time.Time
	began        uint64 // where in the stream, see Session.begins
	serial       uint64 // counts the transfers of the session
	leave        func() // for leaveAlike; nil if there is nothing to leave
	leaveBooking func() // for unbook; nil if nothing is booked
	counted      int64  // bytes that count for MaxUnverified
	reported     int64  // bytes of content in Service.counts

	// tentative is a transfer of a name whose 1603 was sent, before its first
	// packet has come: its packets may just as well be late repetitions. It takes
	// nothing away from the file that the 1603 was about.
	tentative bool

	fill    transfer.Part   // being filled; without a buffer between two
	queue   []transfer.Part // filled, waiting for the worker
	working bool            // a job, a loan or the coroutine of its end is under way

	dropped bool // nobody wants it any more. Final.
	stored  bool // the registry has the file, or the part that was to come. Final.
	fate    fate // what becomes of its content, if it is dropped

	progress *progress // nil: it is no partial file

	// Of the packet that came last, which completes the transfer in the end:
	// whether it is of the later edition, and its Content Size.
	later   bool
	claimed uint32
}

// job is what a worker does for a transfer at a time: it writes what waits in a
// buffer, or what came early and is due, and closes the file if that was the last.
type job struct {
	part transfer.Part // without a buffer: none
	due  *transfer.Due // nil: nothing
	last bool
}

// pump starts the next job of u, if there is one and no work on u is under way. Jobs
// are not in a coroutine: that would take 1 µs and 3 KiB more for each.
func (u *upload) pump() {
	if u.working || u.dropped || u.stored || !u.hasWork() {
		return
	}
	j, err := u.nextJob()
	if err != nil {
		u.end(u.transfer.NextNumber(), err)
		return
	}
	u.working = true
	err = errUnfinished
	u.s.host.Do(Storage, func(ctx context.Context) { err = u.do(ctx, &j) }, func() { u.worked(&j, err) })
}

// hasWork reports whether there is something for a worker to do.
func (u *upload) hasWork() bool {
	return len(u.queue) > 0 || u.fill.Len() > 0 || u.transfer.Behind() || u.transfer.Complete()
}

// nextJob takes the next job. An error is about the packet whose turn it is.
func (u *upload) nextJob() (j job, err error) {
	if len(u.queue) == 0 {
		u.push()
	}
	switch {
	case len(u.queue) > 0:
		j.part = u.pop()
	case u.transfer.Behind():
		j.due, err = u.transfer.Due()
	}
	j.last = u.transfer.Complete() && len(u.queue) == 0 && u.fill.Len() == 0
	return j, err
}

// do is the worker's part of a job.
func (u *upload) do(ctx context.Context, j *job) (err error) {
	switch {
	case j.part.Buf() != nil:
		defer u.s.host.Release(j.part.Buf())
		err = u.transfer.Write(ctx, &j.part)
	case j.due != nil:
		err = u.transfer.CatchUp(ctx, j.due)
	}
	if err != nil || !j.last {
		return err
	}
	return u.transfer.Finish(ctx)
}

// worked takes the result of a job.
func (u *upload) worked(j *job, err error) {
	u.s.uploads.held -= len(j.part.Buf())
	if j.due != nil && err == nil && !u.dropped {
		err = u.transfer.CaughtUp(j.due)
	}
	u.goOn(j.last, err)
}

// goOn takes the result of a job or a loan: the file is complete, the transfer fails,
// or there is more to come.
func (u *upload) goOn(complete bool, err error) {
	u.count()
	if u.dropped || err == nil && !complete && u.guarded == nil {
		if err != nil && u.fate == fateKeep {
			u.fate = u.fateUnwritten(err)
			u.releaseQueue()
		}
		if !u.dropped && u.checkpointDue() {
			u.checkpoint()
		}
		u.rest()
	} else {
		u.s.start(func(co *coroutine) {
			defer u.rest()
			switch {
			case u.guarded != nil && !u.guard(co, err):
			case err != nil:
				u.end(u.transfer.Current(), err)
			case complete:
				u.store(co)
			}
		})
	}
	u.pump()
}

// rest ends the work on u that is under way, and removes what is left of it if it
// came to its end meanwhile.
func (u *upload) rest() {
	u.working = false
	if u.dropped || u.stored {
		u.cleanup()
	}
}

// store records the complete file and sends its checksum.
func (u *upload) store(co *coroutine) {
	s, in := u.s, u.transfer.Received()
	if u.progress != nil && u.progress.continued != nil && in.Size < u.progress.continued.total {
		u.storePart(co, in)
		return
	}
	u.awaitCheckpoint(co)
	op := &storage.PutFile{Outcome: s.outcome(), File: storage.File{
		ID: s.id, FileName: u.name, Path: u.path, Incoming: in.Key,
		Size: in.Size, Cksum: in.Cksum, Received: s.host.Now(),
	}, Generation: u.generation(), Quota: s.svc.limits.Load().Quota, From: u.from(in.Key), Leased: s.svc.keeping.Leases}
	err := u.record(co, op)
	if p := u.progress; p != nil && err != nil && u.unsure(err) {
		p.doubtful = true
	}
	switch {
	case err == nil:
		u.stored = true
		co.tookPlace(op)
		if !u.dropped { // else the connection is gone; the file awaits its verdict on another one
			u.answer(&op.File)
		}
	case !u.dropped:
		u.end(u.transfer.Plan().Last(), err)
	case u.fate == fateRemove && u.unsure(err):
		u.fate = fateLeave
	}
}

// tookPlace removes the content of what the file of op has replaced.
func (co *coroutine) tookPlace(op *storage.PutFile) {
	if op.Replaced != nil {
		co.s.svc.settled(op.Replaced)
		co.discard(op.Replaced.Uploaded())
	}
	if op.Partial != nil && op.Partial.Incoming != op.File.Incoming {
		co.discardReplaced(op.Partial)
	}
}

// errDropped says that a transfer was dropped while it waited for its place.
var errDropped = errors.New("nobody wants the transfer any more")

// record has the registry record the file of a transfer that is whole.
func (u *upload) record(co *coroutine, op *storage.PutFile) error {
	place := co.lock(pathKey{op.File.ID, op.File.Path})
	defer place.unlock()
	if u.dropped {
		return errDropped
	}
	if err := place.settle(co); err != nil {
		return &stepError{StepCatchingUp, err}
	}
	u.unbook() // before the registry counts it: nothing may count twice
	if err := place.put(co, op); err != nil {
		return &stepError{StepRegistry, err}
	}
	u.uncount()
	return nil
}

// leaveAll takes u out of the uploads of its connection.
func (u *upload) leaveAll() {
	us := &u.s.uploads
	if us.all[u.name] == u {
		delete(us.all, u.name)
	}
	if us.touched == u {
		us.touched = nil
	}
	if us.incoming == u {
		us.incoming = nil
	}
}

// answer sends the 1603 of the file, which the registry has.
func (u *upload) answer(f *storage.File) {
	s := u.s
	u.leaveAll()
	if p := u.progress; p != nil && p.continued != nil {
		p.continued.claim, p.continued.stage, p.continued.row.Incoming = nil, sent, f.Incoming
	}
	s.uploads.told.served(u.name)
	s.uploads.note(u.name, receipt{incoming: f.Incoming, plan: u.transfer.Plan()})
	took := s.host.Now().Sub(u.started)
	s.svc.received(took)
	u.acknowledge("received", f, took)
}

// acknowledge sends the 1603 of what came of the file, and logs that.
func (u *upload) acknowledge(message string, f *storage.File, took time.Duration) {
	s, plan := u.s, u.transfer.Plan()
	s.log().Info(message, s.fields(zap.String("file", u.name), zap.Int64("bytes", f.Size), zap.Duration("took_seconds", took), zap.Uint32("cksum", f.Cksum),
		zap.Stringer("scheme", plan.Scheme), zap.Uint16("packets", plan.Total))...)
	sum := f.Cksum
	if s.svc.Faults.strike("crc", 0) {
		s.sayFault("wrong checksum", codec.CodeSendFile)
		sum++
	}
	s.send(codec.FileReceived{
		ID: f.ID, ContentSize: u.contentSize(f.Size - u.offset()), FileName: []byte(u.name), Cksum: sum,
	}.Append(make([]byte, 0, 512)))
}

// contentSize is what the 1603 gives as Content Size for a file of size bytes.
// The documents of the later edition leave its meaning open, and its clients
// compare it with the Content Size that they sent last.
func (u *upload) contentSize(size int64) uint32 {
	if u.later {
		return u.claimed
	}
	return uint32(size)
}

// drop ends a transfer without a word and removes what it left.
func (u *upload) drop() { u.dropAs(u.fateUnkept()) }

// dropAs ends a transfer without a word. fate says what becomes of what it left.
func (u *upload) dropAs(fate fate) {
	s := u.s
	u.leaveAll()
	s.uploads.ended = true
	u.dropped, u.fate = true, fate
	u.count()
	u.uncount()
	u.push()
	if fate != fateKeep { // else conclude writes what is in them
		u.releaseQueue()
	}
	u.returnEmpty()
	if p := u.progress; p != nil && p.continued != nil && p.continued.stage == sending {
		p.continued.stage = given
		if fate == fateUndo {
			p.continued.stage = undoing
		}
	}
	if !u.working {
		u.cleanup()
	}
}

// releaseQueue gives back the buffers that no worker has had.
func (u *upload) releaseQueue() {
	for _, p := range u.queue {
		u.s.uploads.held -= len(p.Buf())
		u.s.host.Release(p.Buf())
	}
	u.queue = nil
}

// cleanup removes what an upload left that has come to its end: all but a file that
// the registry has. No work on it is under way.
func (u *upload) cleanup() {
	u.leaveAlike()
	u.unbook()
	u.transfer.Forget()
	switch {
	case u.stored:
		u.cease()
		return
	case u.progress != nil || u.fate == fateKeep || u.fate == fateLeave:
		u.s.start(u.conclude)
		return
	case !u.transfer.Leaves():
		return
	}
	s, t, name := u.s, u.transfer, u.name
	s.host.Do(Storage, func(ctx context.Context) {
		if err := t.Abandon(ctx); err != nil {
			s.log().Error("removing what a transfer left", zap.String("file", name), zap.Error(err))
		}
	}, nil)
}
