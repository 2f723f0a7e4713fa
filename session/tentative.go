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
func (us *uploads) suppose(name string) bool {
	s := us.s
	path, err := storage.CleanPath(name)
	if err != nil || s.draining || !us.makeRoom() {
		return false
	}
	leave, err := us.enterAlike(path)
	if err != nil {
		return false
	}
	us.enter(&upload{name: name, path: path, tentative: true, leave: leave}, us.received[name].plan, true)
	return true
}

// affirm makes a tentative transfer a true one: its first packet is here.
func (u *upload) affirm() {
	s := u.s
	u.tentative, u.started, u.began = false, s.last, s.begins
	s.svc.counts.begun.Add(1)
	s.uploads.forgetContinued(u.name)
	delete(s.uploads.received, u.name)
	s.uploads.refused.forget(s.host, s.id, u.name)
}

// judged ends the tentative transfer of a name for which a verdict has come.
func (us *uploads) judged(code codec.Code, payload []byte) {
	if us.underWay() == len(us.all) {
		return
	}
	m, err := codec.ParseVerdict(code, payload)
	if err != nil {
		return // the verdict says so
	}
	us.dropTentative(func(u *upload) bool { return u.name == string(m.FileName) })
}

func (us *uploads) dropTentative(which func(*upload) bool) {
	for _, u := range us.all {
		if u.tentative && which(u) {
			u.drop()
		}
	}
}
