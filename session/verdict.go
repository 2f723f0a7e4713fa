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

func (v *judgement) begin() {
	if v.code == codec.CodeCRCOK {
		v.look()
		return
	}
	v.s.catchUp(v.lock, func(err error) {
		if err != nil {
			v.broke("catching up", err)
			return
		}
		v.look()
	})
}

// look finds out what there is to be judged.
func (v *judgement) look() {
	if f := v.s.svc.awaiting.take(v.lock, v.s.host.Now()); f != nil && v.mine(f) {
		v.judge(f)
		return
	}
	get := &GetFile{ID: v.lock.id, Path: v.lock.path}
	v.s.host.Apply(get, func(err error) {
		if err != nil && !errors.Is(err, ErrNoFile) {
			v.broke("registry", err)
			return
		}
		switch f := get.Unverified; {
		case f != nil && v.mine(f):
			v.judge(f)
		case v.code != codec.CodeCRCOK:
			v.ack()
		case (v.receipt.verified || v.receipt.incoming == "") && get.Verified != nil:
			v.ack() // it was verified already, and the 1604 was lost
		default:
			v.end()
			delete(v.s.received, v.name)
			v.s.refuse(v.code, "no such file awaits a verdict: "+v.name)
		}
	})
}

// mine reports whether the verdict is about f: another connection may have
// uploaded a file of that name since.
func (v *judgement) mine(f *File) bool {
	return v.receipt.incoming == "" || v.receipt.incoming == f.Incoming
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
		err = v.s.svc.Files.Commit(ctx, f.Incoming, f.ID, f.Path)
	}, func() {
		if errors.Is(err, ErrObstructed) { // by another file of the client's
			v.end()
			v.s.refuse(v.code, err.Error())
			return
		}
		if err != nil {
			v.s.svc.unrecorded.set(v.lock, f.Incoming)
			v.broke("storage", err)
			return
		}
		op := &VerifyFile{Outcome: v.s.outcome(), ID: f.ID, Path: f.Path, Incoming: f.Incoming}
		v.s.host.Apply(op, func(err error) {
			if err != nil {
				v.s.svc.unrecorded.set(v.lock, f.Incoming)
				v.broke("registry", err)
				return
			}
			v.s.svc.unrecorded.set(v.lock, "")
			v.s.svc.settled(f)
			v.s.log().Info("verified", v.s.fields(zap.String("file", f.FileName), zap.Int64("bytes", f.Size))...)
			v.ack()
		})
	})
}

// remove forgets f and removes its content.
func (v *judgement) remove(f *File) {
	op := &DropFile{Outcome: v.s.outcome(), ID: f.ID, Path: f.Path, Incoming: f.Incoming}
	v.s.host.Apply(op, func(err error) {
		if err != nil && !errors.Is(err, ErrNoFile) {
			v.broke("registry", err)
			return
		}
		if err == nil {
			v.s.svc.settled(f)
		}
		v.s.discard(f.Incoming)
		v.ack()
	})
}

// ack ends a judgement that went well. A 1030 gets no reply: the file comes
// again.
func (v *judgement) ack() {
	v.end()
	s := v.s
	delete(s.received, v.name)
	if v.code == codec.CodeCRCOK && v.receipt.incoming != "" && !s.closed {
		v.receipt.verified = true
		s.received[v.name] = v.receipt
	}
	if v.code != codec.CodeCRCOK {
		s.log().Warn("checksum mismatch", s.fields(zap.String("file", v.name), zap.Bool("given up", v.code == codec.CodeAbort))...)
	}
	if v.code != codec.CodeCRCBad {
		s.send(codec.IDReply{Code: codec.CodeAck, ID: v.lock.id}.Append(nil))
	}
}

// broke ends a judgement that failed in the server. The file still awaits its
// verdict.
func (v *judgement) broke(step string, err error) {
	v.end()
	v.s.broke(v.code, step, fmt.Errorf("%s: %w", v.name, err))
}
