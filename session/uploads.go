package session

import (
	"go.uber.org/zap"

	"sealift/codec"
	"sealift/storage"
	"sealift/transfer"
)

// uploads are the transfers of one connection, and what it remembers of those that
// came to their end.
type uploads struct {
	s        *Session
	all      map[string]*upload // under way, by file name as sent
	begun    uint64             // how many so far
	received map[string]receipt // 1603 sent, by file name as sent
	refused  refusals           // had their 1607, and their packets still come
	told     tellings           // 1607s of late

	incoming  *upload    // whose packet's content is coming in; nil: the content is passed over
	touched   *upload    // that content came for last
	continues *continues // nil: no 1032 came
	found     *found     // about the name of the pending 1028, see apart
	held      int        // bytes of buffers that no worker has finished with
	aside     int        // bytes of packets in memory that came before their turn
	ended     bool       // one was dropped since Feed last looked
}

// receipt remembers which version of a file this connection's last 1603 for its
// name was about, or its last 1608 with the whole size.
type receipt struct {
	incoming string     // its Files key
	plan     codec.Plan // of its transfer; zero for a 1608
	settled  bool       // it awaits no verdict any more
	// overtaken: an attempt to send a newer version was refused. A 1029 that comes now may
	// have been sent ahead of that 1607, and be about the newer version.
	overtaken bool
	part      bool // the 1603 was about a part of the file: there is nothing to be confirmed
}

// overtake notes that an attempt to send a newer version of name was refused.
func (us *uploads) overtake(name string) {
	if r, known := us.received[name]; known {
		r.overtaken = true
		us.received[name] = r
	}
}

// maxReceived is the most entries of uploads.received. After an entry is dropped,
// the session no longer knows which of two uploads of that name its 1603 was about.
// No file is lost.
const maxReceived = 64

// note remembers the receipt of a name.
func (us *uploads) note(name string, r receipt) {
	if us.received == nil {
		us.received = make(map[string]receipt)
	}
	for other := range us.received {
		if len(us.received) < maxReceived {
			break
		}
		delete(us.received, other)
	}
	us.received[name] = r
}

// enter puts u, which has name, path and leave, among the transfers under way.
func (us *uploads) enter(u *upload, plan codec.Plan, firstKnown bool) {
	s := us.s
	us.begun++
	u.s, u.started, u.began, u.serial = s, s.last, s.begins, us.begun
	o := transfer.Options{
		Plan: plan, FirstKnown: firstKnown, Key: &s.key, MaxSize: s.svc.limits.Load().MaxFileSize, Memory: us,
		Files: s.svc.Files, Place: storage.Place{ID: s.id, Path: u.path}, Segment: u.segment(),
	}
	if o.Segment != nil {
		o.MaxSize = o.Segment.Total
	}
	u.transfer = transfer.New(o)
	if s.guarded {
		key := s.key
		u.guarded = &key
	}
	if us.all == nil {
		us.all = make(map[string]*upload)
	}
	us.all[u.name] = u
	if !u.tentative {
		s.svc.counts.begun.Add(1)
	}
}

// underWay is how many transfers have begun for certain.
func (us *uploads) underWay() (n int) {
	for _, u := range us.all {
		if !u.tentative {
			n++
		}
	}
	return n
}

// crowded reports whether the connection has as many transfers under way as it
// may, and one of them ends by itself.
func (us *uploads) crowded() bool {
	if len(us.all) < us.s.svc.limits.Load().MaxUploads {
		return false
	}
	for _, u := range us.all {
		if u.transfer.AllIn() {
			return true
		}
	}
	return false
}

// makeRoom reports whether one more transfer may begin. If need be it drops the
// tentative one that began first.
func (us *uploads) makeRoom() bool {
	if len(us.all) < us.s.svc.limits.Load().MaxUploads {
		return true
	}
	var oldest *upload
	for _, u := range us.all {
		if u.tentative && (oldest == nil || u.serial < oldest.serial) {
			oldest = u
		}
	}
	if oldest == nil {
		return false
	}
	oldest.drop()
	return true
}

// abandon drops all that the client has under way. Files that await a verdict, and partial
// ones as far as they are on record, stay in the store.
func (us *uploads) abandon() { us.end((*upload).fateAsRecorded) }

// cutOff is abandon for a connection that was lost: what can be kept of its transfers is.
func (us *uploads) cutOff() {
	us.end((*upload).fateAtCut)
}

// end drops all transfers under way. fateOf says what becomes of each.
func (us *uploads) end(fateOf func(u *upload) fate) {
	s := us.s
	for _, u := range us.all {
		if !u.tentative {
			s.log().Info("transfer cut off", s.fields(zap.String("file", u.name), zap.Int64("bytes", u.transfer.Offset()))...)
		}
		u.dropAs(fateOf(u))
	}
	us.forgetAllContinued()
	us.received = nil
	us.refused.clear(s.host)
	us.told.forgetAll()
}
