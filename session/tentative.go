package session

import (
	"sealift/codec"
	"sealift/storage"
)

// A file that has its 1603 may be sent again, and its packets may come in any
// order. A packet that is not the first may just as well be a late repetition.
// So it opens a tentative transfer: what comes is set aside, the file that had
// its 1603 still awaits its verdict, and a verdict for the name is about that
// file and ends the tentative transfer. The first packet makes it a transfer
// like any other.

// suppose opens a tentative transfer, by the plan of the one before. It returns
// false if there is no room for it, or no time: then the packet is passed over.
func (s *Session) suppose(name string) bool {
	path, err := storage.CleanPath(name)
	if err != nil || s.draining || !s.makeRoom() {
		return false
	}
	leave, err := s.enterAlike(path)
	if err != nil {
		return false
	}
	s.enter(&upload{name: name, path: path, tentative: true, leave: leave}, s.received[name].plan, true)
	return true
}

// affirm makes a tentative transfer a true one: its first packet is here.
func (u *upload) affirm() {
	s := u.s
	u.tentative, u.started, u.began = false, s.last, s.begins
	delete(s.received, u.name)
	s.refused.forget(s.host, s.id, u.name)
}

// judged ends the tentative transfer of a name for which a verdict has come.
func (s *Session) judged(code codec.Code, payload []byte) {
	if s.underWay() == len(s.uploads) {
		return
	}
	m, err := codec.ParseVerdict(code, payload)
	if err != nil {
		return // the verdict says so
	}
	s.dropTentative(func(u *upload) bool { return u.name == string(m.FileName) })
}

// makeRoom reports whether one more transfer may begin. If need be it drops the
// tentative one that began first.
func (s *Session) makeRoom() bool {
	if len(s.uploads) < s.svc.MaxUploads {
		return true
	}
	var oldest *upload
	for _, u := range s.uploads {
		if u.tentative && (oldest == nil || u.serial < oldest.serial) {
			oldest = u
		}
	}
	if oldest == nil {
		return false
	}
	s.drop(oldest)
	return true
}

func (s *Session) dropTentative(which func(*upload) bool) {
	for _, u := range s.uploads {
		if u.tentative && which(u) {
			s.drop(u)
		}
	}
}

// underWay is how many transfers have begun for certain.
func (s *Session) underWay() (n int) {
	for _, u := range s.uploads {
		if !u.tentative {
			n++
		}
	}
	return n
}
