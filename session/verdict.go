package session

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/storage"
)

// verdict answers a 1029, 1030 or 1031: the client compared the checksums. It
// returns false if it has to wait.
func (s *Session) verdict(code codec.Code, payload []byte) bool {
	m, err := codec.ParseVerdict(code, payload)
	if err != nil {
		s.protocolError(err)
		return true
	}
	name := string(m.FileName)
	path, err := storage.CleanPath(name)
	if err != nil {
		s.refuse(request(code), err)
		return true
	}
	ended := false
	if c := s.uploads.continued(name); c != nil && c.stage == undoing {
		return false
	}
	switch u := s.uploads.all[name]; {
	case u == nil:
	case u.transfer.AllIn(): // its 1603 comes first
		return false
	case code == codec.CodeCRCOK:
		s.refuse(request(code), &offence{ReasonState, "the file is not complete: " + name})
		return true
	case code == codec.CodeAbort:
		u.dropAs(fateRemove)
		ended = true
	default:
		u.drop()
		ended = true
	}
	r, known := s.uploads.received[name]
	switch {
	case code != codec.CodeCRCOK:
		s.uploads.refused.forget(s.host, s.id, name)
	case r.part:
		s.refuse(request(code), &offence{ReasonVerdict, "only a part of the file is there: " + name})
		return true
	case r.overtaken || !known && s.uploads.refused.find(s.id, name) != nil:
		// Sent ahead of a 1603 that never came. It is not about a file of that
		// name that this connection or an earlier one has sent before.
		s.refuse(request(code), &offence{ReasonVerdict, "the transfer was refused: " + name})
		return true
	}
	v := &judgement{s: s, code: code, name: name, path: pathKey{s.id, path}, receipt: r, ended: ended}
	s.serve(func(co *coroutine) { v.answer(v.judge(co)) })
	return true
}

// judgement is a verdict being carried out.
type judgement struct {
	s       *Session
	code    codec.Code
	name    string
	path    pathKey
	receipt receipt // what this connection's 1603 was about, zero if it sent none
	ended   bool    // a 1030 or 1031 has ended a transfer, or removed a file
}

// ruling is why a verdict gets 1607. nil is a success.
type ruling struct {
	err  error
	step Step // of the server's that failed; StepOther: the client is refused
	// open: nothing is decided, and the client may send its verdict again.
	open bool
}

// refused is the ruling on what is not there to be judged.
func refused(reason Reason, text string) *ruling { return &ruling{err: &offence{reason, text}} }

// failed is the ruling where a step of the server's failed.
func failed(step Step, err error) *ruling { return &ruling{err: err, step: step, open: true} }

// registryRuling is the ruling where the registry did not do what it was asked for.
func registryRuling(err error) *ruling {
	if aboutClient(err) {
		return &ruling{err: err, open: true}
	}
	return failed(StepRegistry, err)
}

// lost is the ruling where the content cannot be relied on any more: the client
// has to send the file again.
func lost(err error) *ruling { return &ruling{err: err, step: StepStorage} }

// judge carries the verdict out. It has the path from the first look at it to
// the end.
func (v *judgement) judge(co *coroutine) *ruling {
	place := co.lock(v.path)
	defer place.unlock()
	if err := place.settle(co); err != nil {
		return failed(StepCatchingUp, err)
	}
	if why := v.s.ousted.Load(); why != nil {
		return registryRuling(*why)
	}
	if r, done := v.ofContinued(co); done {
		return r
	}
	f := v.justReceived(place)
	if v.code == codec.CodeAbort {
		return v.giveUp(co, place, f)
	}
	if f == nil {
		var r *ruling
		if f, r = v.version(co); r != nil {
			v.anew(nil) // what comes behind a 1030 is the rest of the file, and not another one
			return r
		}
	}
	switch back := v.anew(f); {
	case f == nil: // a 1030, and there is nothing to remove
		return nil
	case back:
		return v.goBack(co, place, f)
	case v.code != codec.CodeCRCOK:
		return v.remove(co, place, f)
	case f.Verified:
		return v.confirmAgain(co, f)
	default:
		return v.commit(co, place, f)
	}
}

// justReceived returns the file of this connection's 1603 if it is known, without
// asking the registry, to await its verdict still. Otherwise it returns nil.
func (v *judgement) justReceived(p *place) *storage.File {
	f := p.takeWaits(v.s.host.Now())
	if f == nil || f.Incoming != v.receipt.incoming {
		return nil
	}
	return f
}

// version asks the registry for the version of the file that the verdict is about.
// For a 1029 there must be one.
func (v *judgement) version(co *coroutine) (*storage.File, *ruling) {
	get := &storage.GetFile{Outcome: storage.Outcome{By: v.s.by()}, ID: v.path.id, Path: v.path.path}
	err := co.apply(get)
	switch ok := v.code == codec.CodeCRCOK; {
	case err != nil && !errors.Is(err, storage.ErrNoFile):
		return nil, registryRuling(err)
	case ok && v.receipt.incoming == "" && get.Lapsed():
		return nil, refused(ReasonVerdict, "a version of the file is gone, and it is not certain which one is meant: "+v.name)
	case get.Unverified != nil && v.about(get.Unverified):
		if ok && get.Unverified.Deleted {
			return nil, refused(ReasonDeleted, "the file is to be deleted: "+v.name)
		}
		return get.Unverified, nil
	case !ok:
		return nil, nil
	case get.Verified != nil && v.about(get.Verified):
		return get.Verified, nil
	default:
		return nil, refused(ReasonVerdict, "no such file awaits a verdict: "+v.name)
	}
}

// about reports whether the verdict may be about f. A connection that sent the
// 1603 has a receipt, which says which version is meant; from any other, a
// verdict is about the version there is.
func (v *judgement) about(f *storage.File) bool {
	return v.receipt.incoming == "" || v.receipt.incoming == f.Incoming
}

// confirmAgain confirms a file that is verified already: its 1604 was lost. The
// file must still be there, or have been taken by whoever works with it.
func (v *judgement) confirmAgain(co *coroutine, f *storage.File) *ruling {
	switch {
	case f.Deleted:
		return refused(ReasonDeleted, "the file is to be deleted: "+v.name)
	case !f.Taken.IsZero():
		v.s.svc.counts.again.Add(1)
		return nil
	}
	var size int64
	err := co.do(Storage, func(ctx context.Context) (err error) {
		size, err = v.s.svc.Files.Size(ctx, f.Stored())
		return err
	})
	switch {
	case errors.Is(err, storage.ErrNotStored) || errors.Is(err, storage.ErrObstructed) || err == nil && (f.Missing || size != f.Size):
		return refused(ReasonMissing, "the verified file is not in its place any more: "+v.name)
	case err != nil:
		return failed(StepStorage, err)
	}
	v.s.svc.counts.again.Add(1)
	return nil
}

// commit makes f durable in its place, and only then verified.
func (v *judgement) commit(co *coroutine, p *place, f *storage.File) *ruling {
	s := v.s
	err := co.do(Storage, func(ctx context.Context) error { return s.svc.Files.Commit(ctx, f) })
	switch {
	case err == nil:
		err := p.record(co, commitment{file: f}, s.outcome())
		if aboutClient(err) { // too late for the content, and not for its 1604
			_ = p.settle(co) // or else the next who has the place does
		}
		switch {
		case err == nil:
			v.logVerified(f)
			return nil
		case s.svc.Shared && errors.Is(err, storage.ErrNoFile):
			return v.judgedElsewhere(co)
		}
		return registryRuling(err)
	case errors.Is(err, storage.ErrPlaceNotDurable):
		_ = p.record(co, commitment{f, err}, own) // or else the next who has the place does
		return lost(err)
	case errors.Is(err, storage.ErrObstructed): // by another file of the client's; f still waits
		return &ruling{err: err, open: true}
	case errors.Is(err, storage.ErrNotStored) || errors.Is(err, storage.ErrNotDurable):
		_ = p.drop(co, f, own, storage.WhySpoilt) // or else the next 1029 finds the same
		return lost(err)
	case errors.Is(err, errUnfinished):
		p.setUnsettled(&commitment{f, err})
	}
	return failed(StepStorage, err)
}

// judgedElsewhere is the ruling on a 1029 whose file was judged or replaced while it was being
// committed, by way of another server.
func (v *judgement) judgedElsewhere(co *coroutine) *ruling {
	f, r := v.version(co)
	switch {
	case r != nil:
		return r
	case f.Verified:
		return v.confirmAgain(co, f)
	}
	return registryRuling(storage.ErrNoFile)
}

func (v *judgement) logVerified(f *storage.File) {
	v.s.log().Info("verified", v.s.fields(zap.String("file", f.FileName), zap.Int64("bytes", f.Size))...)
}

// remove ends a file that the client does not want.
func (v *judgement) remove(co *coroutine, p *place, f *storage.File) *ruling {
	why := storage.WhyMismatch
	if v.code == codec.CodeAbort {
		why = storage.WhyGivenUp
	}
	if err := p.drop(co, f, v.s.outcome(), why); err != nil {
		return registryRuling(err)
	}
	v.ended = true
	return nil
}

// answer replies to the verdict.
func (v *judgement) answer(r *ruling) {
	s := v.s
	if r == nil || !r.open {
		v.settle()
	}
	switch {
	case r == nil:
		v.accept()
	case r.step != StepOther:
		s.fail(request(v.code), r.step, fmt.Errorf("%s: %w", v.name, r.err))
	default:
		s.refuse(request(v.code), r.err)
	}
}

// accept answers a verdict that went well. A 1030 gets no reply: the file comes
// again.
func (v *judgement) accept() {
	s := v.s
	if v.code != codec.CodeCRCOK {
		v.noteMismatch()
	}
	if v.code != codec.CodeCRCBad {
		s.send(codec.IDReply{Code: codec.CodeAck, ID: v.path.id}.Append(nil))
	}
}

// noteMismatch counts and logs a 1030 or 1031. One that is about nothing, which a client
// may send as often as it likes, is for those who look for it.
func (v *judgement) noteMismatch() {
	s, level, givenUp := v.s, zap.DebugLevel, v.code == codec.CodeAbort
	if v.ended {
		level = zap.WarnLevel
		if givenUp {
			s.svc.counts.givenUp.Add(1)
		} else {
			s.svc.counts.mismatches.Add(1)
		}
	}
	s.log().Log(level, "checksum mismatch", s.fields(zap.String("file", v.name), zap.Bool("given_up", givenUp))...)
}

// settle notes that this connection's 1603 waits for nothing any more. What it
// was about is kept: the client may ask again.
func (v *judgement) settle() {
	if r, ok := v.s.uploads.received[v.name]; ok && r.incoming == v.receipt.incoming {
		r.settled = true
		v.s.uploads.received[v.name] = r
	}
}
