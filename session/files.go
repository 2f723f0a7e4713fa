package session

import (
	"strings"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/storage"
	"sealift/transfer"
)

// route is what becomes of a 1028: what is done with it, the transfer under way that
// has its name, if there is one, and its fields as that transfer reads them.
type route struct {
	to     course
	upload *upload
	fields codec.SendFile
}

// course is what is done with a 1028. begin and those after it change one thing, and
// then the packet is routed again.
type course uint8

const (
	ignore  course = iota // nothing: it came already, or is the one past the last
	wait                  // it is held until something that is under way has ended
	pass                  // it is passed over: its transfer had its 1607
	take                  // its content goes to its transfer, in order or early
	begin                 // a transfer begins
	suppose               // a tentative transfer begins
	affirm                // the tentative transfer becomes a true one
	recount               // the transfer counts from 0, not from 1
	replace               // the transfer is dropped, for it begins anew
)

// route says what becomes of a 1028 with size bytes of content. An error is why the
// transfer under way ends. It changes nothing.
func (us *uploads) route(raw codec.SendFile, size uint32) (route, error) {
	u := us.all[string(raw.FileName)]
	if u == nil {
		return route{us.routeNew(raw, size), nil, raw}, nil
	}
	m := u.transfer.Plan().Read(raw)
	to, err := u.route(raw, m, size)
	return route{to, u, m}, err
}

// route is uploads.route for a packet of u. m is raw as the transfer reads it.
func (u *upload) route(raw, m codec.SendFile, size uint32) (course, error) {
	t := u.transfer
	plan := t.Plan()
	number, first := uint32(m.Packet), m.Packet == plan.First
	if u.tentative {
		switch {
		case pastLast(plan, m):
			return ignore, nil
		case plan.Check(m, size) != nil: // if it is one at all, the file comes again in another shape
			_, err := codec.Infer(raw, size)
			return replace, err
		case first && u.s.draining:
			return ignore, errGoingDown
		case first:
			return affirm, nil
		}
	}
	switch {
	case t.AllIn() && pastLast(plan, m):
		return ignore, nil
	case t.AllIn(): // it is of the next transfer under the name
		return wait, nil
	case number == 0 && !t.FirstKnown():
		return recount, nil
	case first && t.Has(number):
		return replace, nil
	}
	if err := plan.Check(m, size); err != nil {
		return ignore, err
	}
	switch turn, err := t.Turn(number, size); turn {
	case transfer.Repeated:
		return ignore, err
	case transfer.Blocked:
		return wait, err
	default:
		return take, err
	}
}

// routeNew is route where no transfer under way has the name.
func (us *uploads) routeNew(raw codec.SendFile, size uint32) course {
	if us.refused.covering(us.s.id, raw) != nil {
		return pass
	}
	r, known := us.received[string(raw.FileName)]
	if us.continues != nil {
		c := us.continuing(string(raw.FileName))
		if c != nil && c.stage == undoing {
			return wait
		}
		known = known && c == nil && r.plan.Total > 0 // the plan is that of a 1603, and not of a 1608
	}
	m := r.plan.Read(raw)
	switch {
	case known && pastLast(r.plan, m):
		return ignore
	case us.crowded():
		return wait
	case known && m.Packet != r.plan.First && r.plan.Check(m, size) == nil:
		return suppose
	}
	return begin
}

// pastLast reports whether a packet is the one past the last that some clients
// send.
func pastLast(p codec.Plan, m codec.SendFile) bool {
	return m.Total == p.Total && uint32(m.Packet) == p.Last()+1
}

// receive begins a 1028, which had a code of the later edition or not. It returns
// false if the packet has to wait.
func (us *uploads) receive(later bool, payload []byte, size uint32) bool {
	s := us.s
	raw, err := codec.ParseSendFile(payload)
	if err != nil { // the name is not one: raw.FileName is empty
		us.firstPacket(s.id, raw, size).answer(s, err)
		return true
	}
	for {
		r, err := us.route(raw, size)
		u := r.upload
		if err != nil {
			u.endAt(uint32(r.fields.Packet), r.fields.Total, err)
			return true
		}
		switch r.to {
		case ignore:
			return true
		case wait:
			return false
		case pass:
			if us.refused.passOver(s.host, s.id, raw) {
				return true
			}
		case take:
			us.take(u, later, r.fields, size)
			return true
		case begin:
			f := us.apart(string(raw.FileName))
			if f == nil {
				return false
			}
			if err := us.begin(raw, size, f); err != nil {
				f.forget()
				us.firstPacket(s.id, raw, size).answer(s, err)
				return true
			}
		case suppose:
			if !us.suppose(string(raw.FileName)) {
				return true
			}
		case affirm:
			u.affirm()
		case recount:
			u.transfer.CountFromZero()
		case replace:
			if !u.tentative {
				s.log().Info("transfer begins anew", s.fields(zap.String("file", u.name), zap.Int64("bytes", u.transfer.Offset()))...)
			}
			u.drop()
		}
	}
}

// take has the content of a packet go to its transfer.
func (us *uploads) take(u *upload, later bool, m codec.SendFile, size uint32) {
	if us.touched != u {
		us.flush()
		us.touched = u
	}
	u.later, u.claimed = later, m.ContentSize
	u.transfer.Begin(uint32(m.Packet), size, m.OrigSize)
	us.incoming = u
}

// maxFolders is the most folders in a name that a 1028 brings: each is one more
// to make, to sync and to walk through. What is stored deeper stays within reach
// of verdicts.
const maxFolders = 16

// begin opens the transfer of a packet that is the first to arrive. f is about its
// name.
func (us *uploads) begin(m codec.SendFile, size uint32, f *found) error {
	s := us.s
	name := string(m.FileName)
	if s.draining {
		if r := us.received[name]; r.plan.Check(r.plan.Read(m), size) != nil { // not a late repetition
			us.overtake(name)
		}
		return errGoingDown
	}
	path, err := storage.CleanPath(name)
	if err != nil {
		return err
	}
	if strings.Count(path, "/") > maxFolders {
		return errTooDeep
	}
	plan, err := codec.Infer(m, size)
	if err != nil {
		return err
	}
	if plan.OrigSize > s.svc.limits.Load().MaxFileSize {
		return transfer.ErrTooLarge
	}
	c := us.continuing(name)
	if c != nil {
		if err := c.admits(s.svc, plan.OrigSize); err != nil {
			return err
		}
	}
	m = plan.Read(m)
	firstKnown := m.Packet <= 1 // a packet 1 that comes first is taken for the first
	if r := us.refused.find(s.id, name); r != nil && r.zero && m.Packet < m.Total {
		plan.First, firstKnown = 0, true
	}
	if f.err != nil {
		return f.err
	}
	whole := plan.OrigSize
	if c != nil {
		whole = c.total
	}
	leaveBooking, err := f.book(s, path, whole)
	if err != nil {
		return err
	}
	u := &upload{name: name, path: path, leave: f.leave, leaveBooking: leaveBooking}
	if !us.makeRoom() {
		u.unbook()
		return errTooMany
	}
	if c != nil {
		if err := c.begin(u, s.svc); err != nil {
			u.unbook()
			return err
		}
	} else {
		us.forgetContinued(name)
	}
	delete(us.received, name)
	us.refused.forget(s.host, s.id, name)
	us.enter(u, plan, firstKnown)
	return nil
}
