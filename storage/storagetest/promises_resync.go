package storagetest

import "sealift/storage"

// resync takes what the registry has for what there is, after an operation act on
// path that may have come to any point. It checks that this can be.
func (m *promiseModel) resync(path string, act int, cut bool) {
	for at, p := range m.places {
		touched := act
		if at != path {
			touched = -1
		}
		get, was := m.row(at), *p
		m.resyncVerified(at, p, &was, get.Verified, touched, act)
		m.resyncWaiting(at, p, &was, get.Unverified, touched, act, cut)
		went := was.waiting != nil && p.waiting != was.waiting && p.verified != was.waiting
		p.lapsed = get.Lapsed()
		stays := p.verified == was.verified || p.verified == nil
		if must := went || was.lapsed && stays; must && !p.lapsed {
			if p.verified != nil || p.waiting != nil {
				m.fatalf("%s: nothing tells that a version has lapsed: %s became %s", at, &was, p)
			}
			p.lapsed = len(m.conns) > 0 // within a life
		}
	}
	get := &storage.GetClient{Outcome: storage.Outcome{By: storage.Server}, ID: clientID(1)}
	m.apply(get)
	if get.Client.Disabled != m.disabled && act != actDisable {
		m.fatalf("the client is disabled: %v", get.Client.Disabled)
	}
	m.disabled = get.Client.Disabled
}

// resyncVerified is resync for the verified version. touched is act, or -1 if that was
// about another place.
func (m *promiseModel) resyncVerified(at string, p, was *placeModel, row *storage.File, touched, act int) {
	p.forget()
	if row != nil {
		p.verified = m.match(row, was.verified, was.waiting)
		p.there, p.taken, p.deleted = !row.Missing, !row.Taken.IsZero(), row.Deleted
	}
	switch {
	case row == nil:
		mayGo := was.deleted || touched == actDelete || was.taken && act == actExpire
		if was.verified != nil && !mayGo {
			m.fatalf("%s: the verified version %08x is forgotten", at, was.verified.sum)
		}
	case p.verified == nil:
		m.fatalf("%s: an unknown version is verified: %+v", at, row)
	case p.verified == was.verified:
		if !p.taken {
			p.there = p.there && m.intact(at, p.verified)
		}
		switch {
		case was.there && !p.there && !p.taken && !p.deleted:
			m.fatalf("%s: the verified version %08x is missing", at, was.verified.sum)
		case p.taken != was.taken && (was.taken || touched != actTake):
			m.fatalf("%s: %s became %s", at, was, p)
		case p.deleted != was.deleted && (was.deleted || touched != actDelete):
			m.fatalf("%s: %s became %s", at, was, p)
		}
	case touched != actConfirm:
		m.fatalf("%s: version %08x is verified, and no 1029 was sent", at, p.verified.sum)
	case p.taken || p.deleted:
		m.fatalf("%s: %s became %s", at, was, p)
	}
}

// resyncWaiting is the same for the version that waits.
func (m *promiseModel) resyncWaiting(at string, p, was *placeModel, row *storage.File, touched, act int, cut bool) {
	p.waiting, p.doomed = nil, false
	if row != nil {
		if p.waiting = m.match(row, was.waiting, m.sent[row.Cksum]); p.waiting == nil {
			m.fatalf("%s: an unknown version waits", at)
		}
		p.doomed = row.Deleted
		if p.waiting != was.waiting && touched != actUpload && touched != actContinue && touched != actGoOn {
			m.fatalf("%s: version %08x waits, and was not sent", at, p.waiting.sum)
		}
	}
	if p.waiting == was.waiting {
		if p.doomed != was.doomed && (was.doomed || touched != actDelete) {
			m.fatalf("%s: %s became %s", at, was, p)
		}
		return
	}
	if went := was.waiting != nil && p.verified != was.waiting; went && touched < 0 && !cut && act != actExpire && !was.doomed {
		m.fatalf("%s: the waiting version %08x is gone", at, was.waiting.sum)
	}
}

// match returns which of some versions a row is about, nil if none.
func (m *promiseModel) match(f *storage.File, of ...*version) *version {
	for _, v := range of {
		if f != nil && v != nil && f.Cksum == v.sum {
			return v
		}
	}
	return nil
}
