package session

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"sealift/codec"
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
	path, err := CleanPath(name)
	if err != nil {
		s.refuse(code, err.Error())
		return true
	}
	switch u := s.uploads[name]; {
	case u == nil:
	case u.allIn(): // its 1603 comes first
		return false
	case code == codec.CodeCRCOK:
		s.refuse(code, "the file is not complete: "+name)
		return true
	default:
		s.drop(u)
	}
	r, known := s.received[name]
	switch {
	case code != codec.CodeCRCOK:
		s.refused.forget(s.host, s.id, name)
	case !known && s.refused.find(s.id, name) != nil:
		// Sent ahead of a 1603 that never came. It is not about a file of that
		// name that an earlier connection left.
		s.refuse(code, "the transfer was refused: "+name)
		return true
	}
	v := &judgement{s: s, code: code, name: name, lock: pathKey{s.id, path}, receipt: r}
	s.busy = true
	s.lock(v.lock, v.begin)
	return true
}

// judgement is a verdict being carried out. It holds the lock of the path from
// begin to end, and its session is busy meanwhile.
type judgement struct {
	s       *Session
	code    codec.Code
	name    string
	lock    pathKey
	receipt receipt // what this connection's 1603 was about, zero if it sent none
}

func (v *judgement) end() {
	v.s.busy = false
	v.s.svc.locks.unlock(v.lock)
}

// settle ends a judgement after which this connection's 1603 waits for nothing
// any more. What it was about is kept: the client may ask again.
func (v *judgement) settle() {
	v.end()
	if r, ok := v.s.received[v.name]; ok && r.incoming == v.receipt.incoming {
		r.settled = true
		v.s.received[v.name] = r
	}
}

// begin settles what an earlier commit left unrecorded, and then looks what there
// is to be judged.
func (v *judgement) begin() {
	v.s.catchUp(v.lock, func(err error) {
		if err != nil {
			v.fail("catching up", err)
			return
		}
		v.look()
	})
}

// look finds out what there is to be judged.
func (v *judgement) look() {
	if f := v.s.svc.awaiting.take(v.lock, v.s.host.Now()); f != nil && v.receipt.incoming == f.Incoming {
		v.judge(f)
		return
	}
	get := &GetFile{ID: v.lock.id, Path: v.lock.path}
	v.s.host.Apply(get, func(err error) {
		switch {
		case err != nil && !errors.Is(err, ErrNoFile):
			v.fail("registry", err)
		case v.code == codec.CodeCRCOK:
			v.confirm(get)
		case get.Unverified != nil && v.about(get.Unverified):
			v.remove(get.Unverified)
		default:
			v.ack()
		}
	})
}

// about reports whether the verdict may be about f: another connection may have
// uploaded a file of that name since.
func (v *judgement) about(f *File) bool {
	return v.receipt.incoming == "" || v.receipt.incoming == f.Incoming
}

// confirm answers a 1029. A connection that sent the 1603 has a receipt, which
// says which version is meant; from any other, the 1029 is about the version
// there is, unless one has lapsed.
func (v *judgement) confirm(get *GetFile) {
	switch {
	case v.receipt.incoming == "" && get.Lapsed():
		v.refuse("a version of the file is gone, and it is not certain which one is meant: " + v.name)
	case get.Unverified != nil && v.about(get.Unverified):
		v.commit(get.Unverified)
	case get.Verified != nil && v.about(get.Verified):
		v.confirmAgain(get.Verified)
	default:
		v.refuse("no such file awaits a verdict: " + v.name)
	}
}

// confirmAgain answers a 1029 for a file that is verified already: its 1604 was
// lost. The file must still be there.
func (v *judgement) confirmAgain(f *File) {
	size, err := int64(0), errUnfinished
	v.s.host.Do(Storage, func(ctx context.Context) {
		size, err = v.s.svc.Files.Size(ctx, "", f.ID, f.Path)
	}, func() {
		switch {
		case errors.Is(err, ErrNotStored) || errors.Is(err, ErrObstructed) || err == nil && (f.Missing || size != f.Size):
			v.refuse("the verified file is not in its place any more: " + v.name)
		case err != nil:
			v.fail("storage", err)
		default:
			v.ack()
		}
	})
}

func (v *judgement) judge(f *File) {
	if v.code == codec.CodeCRCOK {
		v.commit(f)
	} else {
		v.remove(f)
	}
}

// commit makes f durable in its place, and only then verified.
func (v *judgement) commit(f *File) {
	err := errUnfinished
	v.s.host.Do(Storage, func(ctx context.Context) {
		err = v.s.svc.Files.Commit(ctx, f)
	}, func() {
		switch {
		case err == nil:
			v.s.record(v.lock, commitment{file: f}, func(err error) {
				if err != nil {
					v.fail("registry", err)
					return
				}
				v.s.log().Info("verified", v.s.fields(zap.String("file", f.FileName), zap.Int64("bytes", f.Size))...)
				v.ack()
			})
		case errors.Is(err, ErrPlaceNotDurable):
			v.s.record(v.lock, commitment{f, err}, func(error) { v.lose(err) })
		case errors.Is(err, ErrObstructed): // by another file of the client's; f still waits
			v.end()
			v.s.refuse(v.code, err.Error())
		case errors.Is(err, ErrNotStored) || errors.Is(err, ErrNotDurable):
			v.drop(f, func(error) { v.lose(err) })
		case errors.Is(err, errUnfinished):
			v.s.svc.unrecorded.set(v.lock, commitment{f, err})
			v.fail("storage", err)
		default:
			v.fail("storage", err)
		}
	})
}

// remove ends a judgement by which f goes.
func (v *judgement) remove(f *File) {
	v.drop(f, func(err error) {
		if err != nil {
			v.fail("registry", err)
			return
		}
		v.ack()
	})
}

// drop forgets f, then removes its content, and then runs then. The mark that a
// version has lapsed is recorded before the content goes.
func (v *judgement) drop(f *File, then func(err error)) {
	op := &DropFile{Outcome: v.s.outcome(), ID: f.ID, Path: f.Path, Incoming: f.Incoming}
	v.s.host.Apply(op, func(err error) {
		if err != nil && !errors.Is(err, ErrNoFile) {
			then(err)
			return
		}
		if err == nil {
			v.s.svc.dropped(f, op.Marked)
		}
		v.s.discard(f.Incoming)
		then(nil)
	})
}

// ack ends a judgement that went well. A 1030 gets no reply: the file comes
// again.
func (v *judgement) ack() {
	v.settle()
	s := v.s
	if v.code != codec.CodeCRCOK {
		s.log().Warn("checksum mismatch", s.fields(zap.String("file", v.name), zap.Bool("given up", v.code == codec.CodeAbort))...)
	}
	if v.code != codec.CodeCRCBad {
		s.send(codec.IDReply{Code: codec.CodeAck, ID: v.lock.id}.Append(nil))
	}
}

// refuse ends a judgement of what is not there to be judged.
func (v *judgement) refuse(reason string) {
	v.settle()
	v.s.refuse(v.code, reason)
}

// lose ends a judgement that failed in the server, after which the content cannot
// be relied on any more: the client has to send the file again.
func (v *judgement) lose(err error) {
	v.settle()
	v.s.broke(v.code, "storage", fmt.Errorf("%s: %w", v.name, err))
}

// fail ends a judgement that failed in the server. It may be asked for again.
func (v *judgement) fail(step string, err error) {
	v.end()
	v.s.broke(v.code, step, fmt.Errorf("%s: %w", v.name, err))
}
