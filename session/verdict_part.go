package session

import (
	"errors"
	"time"

	"sealift/codec"
	"sealift/storage"
)

// Verdicts where a client has asked with a 1032: what is there may be a part of the file.

// ofContinued judges a verdict about a part of a file. It returns false if the verdict is
// about a whole one, or none.
func (v *judgement) ofContinued(co *coroutine) (r *ruling, done bool) {
	s := v.s
	c := s.uploads.continued(v.name)
	if c == nil || c.claim == nil || c.stage != sent && c.stage != given {
		return nil, false
	}
	switch {
	case v.code == codec.CodeCRCOK:
		return refused(ReasonVerdict, "only a part of the file is there: "+v.name), true
	case v.code == codec.CodeAbort:
		return nil, false
	case c.stage == given: // there is nothing to be undone
		return nil, true
	case !s.svc.claims.begin(c.claim): // it is another connection's
		c.stage = given
		return nil, true
	}
	v.ended = true
	if c.offset > 0 {
		c.goBack(co)
	} else {
		c.start(co)
	}
	c.stage = given
	if c.claim != nil {
		s.restClaim(c.claim)
	}
	return nil, true
}

// start is goBack where the 1608 said that nothing is there.
func (c *continued) start(co *coroutine) {
	s, claim := co.s, c.claim
	c.claim = nil
	op := s.svc.dropPartial(s.outcome(), &c.row)
	if s.svc.mayDiscard(co.apply(op)) {
		co.discard(c.row.Uploaded())
	} // else the next transfer replaces it
	s.leaveClaim(claim)
}

// leaseFor is how long the lease of a file lasts that goes back to a partial one. It is recorded
// as that in a moment.
const leaseFor = 5 * time.Minute

// anew has the next transfer begin where the last 1608 said, after a 1030. It returns true if f, which is what
// the 1030 is about, is to be a partial file again. If the file of the 1603 has gone meanwhile, the
// next transfer has nothing to go on with, and gets 1607.
func (v *judgement) anew(f *storage.File) bool {
	c := v.s.uploads.continued(v.name)
	if v.code != codec.CodeCRCBad || c == nil || c.stage != sent {
		return false
	}
	c.stage = given
	if c.offset == 0 {
		return false
	}
	c.claim = &claim{s: v.s, file: c.row.Uploaded(), lost: true} // until goBack has another
	return f != nil && f.Incoming == c.row.Incoming
}

// goBack makes of f, which waits for its verdict, the partial file that it was at the 1608.
func (v *judgement) goBack(co *coroutine, p *place, f *storage.File) *ruling {
	s, c := v.s, v.s.uploads.continued(v.name)
	if s.svc.keeping.Leases { // between the two rows nothing else names the content
		lease := &storage.LeaseUpload{Outcome: own, Upload: f.Uploaded(), Server: s.svc.Server, For: leaseFor, Again: true}
		if err := co.apply(lease); err != nil {
			return registryRuling(err)
		}
	}
	if err := p.forget(co, f, s.outcome(), storage.WhyMismatch); err != nil {
		return registryRuling(err)
	}
	v.ended = true
	c.claim = co.enter(f.Uploaded())
	if !c.goBack(co) && !s.svc.swept() { // else the row may be there
		co.discard(f.Uploaded())
	}
	c.stage = given
	s.restClaim(c.claim)
	return nil
}

// giveUp carries out a 1031: it removes all that there is and that is not verified. f is the
// file of this connection's 1603 if it is known to wait, or nil.
func (v *judgement) giveUp(co *coroutine, p *place, f *storage.File) *ruling {
	s := v.s
	get := &storage.GetFile{Outcome: storage.Outcome{By: s.by()}, ID: v.path.id, Path: v.path.path, WithPartial: true}
	if err := co.apply(get); err != nil && !errors.Is(err, storage.ErrNoFile) {
		return registryRuling(err)
	}
	if f == nil && get.Unverified != nil && v.about(get.Unverified) {
		f = get.Unverified
	}
	if f != nil {
		if r := v.remove(co, p, f); r != nil {
			return r
		}
	}
	if part := get.Partial; part != nil {
		if r := v.removePartial(co, part); r != nil {
			return r
		}
	}
	s.uploads.forgetContinued(v.name)
	s.uploads.refuseVerified(v.name)
	return nil
}

// removePartial removes a partial file, unless another connection is at work on it, or this
// one removes it already.
func (v *judgement) removePartial(co *coroutine, part *storage.Partial) *ruling {
	s := v.s
	if free, _ := s.svc.claims.free(part.Incoming, s); !free {
		return nil
	}
	op := s.svc.dropPartial(s.outcome(), part)
	err := co.apply(op)
	if err != nil && !errors.Is(err, storage.ErrNoFile) {
		return registryRuling(err)
	}
	if err == nil {
		co.discard(part.Uploaded())
		v.ended = true
	}
	return nil
}
