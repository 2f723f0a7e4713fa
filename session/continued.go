package session

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/transfer"
)

// continued is what the last 1608 for a name said, and what has come of it. Its session's
// goroutine has it.
type continued struct {
	name  string
	total int64
	// offset is how many bytes of the file the 1608 said are there, and state that of their
	// checksum.
	offset int64
	state  uint32
	claim  *claim          // nil: the 1608 was about no partial file
	row    storage.Partial // if there is a claim: the partial file as it was at the 1608
	stage  stage
}

// stage is how far a client has come that asked with a 1032.
type stage uint8

const (
	// given: the 1608 is out. The next transfer under the name brings what follows the
	// offset; then sending.
	given stage = iota
	// sending: that transfer is under way. Sent with its 1603; given, or undoing before, if it ends otherwise.
	sending
	// sent: the 1603 is out. Undoing by a 1030. Otherwise the next 1028 is the first of the whole
	// file, unless a 1032 comes.
	sent
	// undoing: what came since the 1608 is being removed; requests for the name wait. Then given.
	undoing
	// spent: nothing is to come after that 1608: the file was whole, or a 1031 has ended it.
	spent
)

// maxContinued is the most names that a connection remembers of its 1608s. After one is
// dropped, the next transfer of the name begins a file from its beginning.
const maxContinued = 64

// continues are the last 1608s of a connection, the latest last.
type continues struct {
	list []*continued
	// unwanted are names for which a 1031 came: a 1032 does not speak of what is verified
	// under them. The latest is the last.
	unwanted []string
}

// continued returns what the last 1608 for a name said, or nil.
func (us *uploads) continued(name string) *continued {
	if us.continues == nil {
		return nil
	}
	for _, c := range us.continues.list {
		if c.name == name {
			return c
		}
	}
	return nil
}

// continuing returns it if the next transfer of the name goes on there, or nil.
func (us *uploads) continuing(name string) *continued {
	if c := us.continued(name); c != nil && (c.stage == given || c.stage == undoing) {
		return c
	}
	return nil
}

// remember puts c in the place of what is known about its name. A name that is at work is
// not dropped for it.
func (us *uploads) remember(c *continued) {
	us.forgetContinued(c.name)
	if us.continues == nil {
		us.continues = new(continues)
	}
	k := us.continues
	for i := 0; len(k.list) >= maxContinued && i < len(k.list); i++ {
		if old := k.list[i]; old.stage != sending && old.stage != undoing {
			us.forgetContinued(old.name)
			i = -1
		}
	}
	k.list = append(k.list, c)
}

// forgetContinued forgets the 1608 for a name, and gives up the claim that came with it. No
// transfer by it is under way.
func (us *uploads) forgetContinued(name string) {
	if us.continues == nil {
		return
	}
	list := us.continues.list
	for i, c := range list {
		if c.name == name {
			us.giveUp(c)
			us.continues.list = append(list[:i:i], list[i+1:]...)
			return
		}
	}
}

// giveUp ends the claim of a 1608 that no transfer or other work has.
func (us *uploads) giveUp(c *continued) {
	if c.claim != nil && !us.s.svc.claims.isBusy(c.claim) { // else whoever is at work does that
		us.s.svc.claims.doubt(c.claim)
		us.s.leaveClaim(c.claim)
	}
}

// forgetAllContinued is for a connection that has closed, or is bound to nobody.
func (us *uploads) forgetAllContinued() {
	if us.continues == nil {
		return
	}
	for _, c := range us.continues.list {
		us.giveUp(c)
	}
	us.continues = nil
}

// refuseVerified has no 1608 on the connection speak of what is verified under a name.
func (us *uploads) refuseVerified(name string) {
	if us.s.channel.Client.IsZero() || us.unwanted(name) { // no 1608 there does
		return
	}
	if us.continues == nil {
		us.continues = new(continues)
	}
	k := us.continues
	if len(k.unwanted) >= maxContinued {
		k.unwanted = append(k.unwanted[:0:0], k.unwanted[1:]...)
	}
	k.unwanted = append(k.unwanted, name)
}

// unwanted reports whether refuseVerified was called for the name.
func (us *uploads) unwanted(name string) bool {
	if us.continues == nil {
		return false
	}
	for _, other := range us.continues.unwanted {
		if other == name {
			return true
		}
	}
	return false
}

// admits returns why a transfer by that plan cannot go on where the 1608 said, or nil.
func (c *continued) admits(svc *Service, size int64) error {
	switch {
	case c.claim != nil && svc.claims.isLost(c.claim):
		return errTaken
	case size > c.total-c.offset: // less than 0 if it is not known
		return errBeyond
	}
	return nil
}

var errBeyond = &offence{ReasonPacket, "offset and Orig File Size are more than the Total Size of the 1032"}

// begin makes u the transfer that goes on where the 1608 said.
func (c *continued) begin(u *upload, svc *Service) error {
	if c.claim != nil && !svc.claims.begin(c.claim) {
		return errTaken
	}
	c.stage = sending
	u.progress = &progress{continued: c, claim: c.claim, row: c.row, recorded: c.claim != nil, next: c.offset + svc.checkpointStep(c.total)}
	return nil
}

// segment is what u brings of its file, nil: all of it.
func (u *upload) segment() *transfer.Segment {
	p := u.progress
	if p == nil || p.continued == nil {
		return nil
	}
	c := p.continued
	g := &transfer.Segment{Offset: c.offset, State: c.state, Total: c.total}
	if c.claim != nil {
		g.Key = c.claim.file.Key
	}
	return g
}

// goBack has the registry record what the 1608 said, and cuts the content to that. The caller
// has the claim, which is busy. If it fails, the claim is given up: what comes by it gets 1607. It returns
// false if the registry has not recorded it.
func (c *continued) goBack(co *coroutine) bool {
	s := co.s
	row := c.row
	recorded := false
	err := co.stillThere(&row)
	if err == nil {
		err = co.putPartial(&row, "", c.claim) // first, so that no row says more than is there
	}
	if err == nil {
		recorded = true
		err = co.cut(c.row.Uploaded(), c.total, c.offset)
	}
	if err != nil {
		s.log().Warn("going back in a partial file failed", s.fields(zap.String("file", c.name), zap.Error(err))...)
		if errors.Is(err, storage.ErrNotStored) { // a sync that failed has taken it
			_ = co.apply(s.svc.dropPartial(own, &row)) // or else the next 1032 does
		}
		s.leaveClaim(c.claim)
	}
	return recorded
}

// stillThere returns ErrNotStored if the content of a partial file is not there where the store is
// Sealed: another server may have removed it. Elsewhere cut finds that out.
func (co *coroutine) stillThere(row *storage.Partial) error {
	if !co.s.svc.keeping.Sealed {
		return nil
	}
	return co.do(Storage, func(ctx context.Context) error { return hasLength(ctx, co.s.svc.Files, row) })
}

// hasLength returns ErrNotStored unless the first Length bytes of a partial file are there.
func hasLength(ctx context.Context, files storage.Files, row *storage.Partial) error {
	size, err := files.Size(ctx, row.Uploaded())
	if err == nil && size < row.Length {
		err = storage.ErrNotStored
	}
	return err
}

// cut cuts a closed incoming file to its first length bytes. Where the store is Sealed, the next
// transfer does that: what is not on record is not believed.
func (co *coroutine) cut(file storage.Uploaded, total, length int64) error {
	files := co.s.svc.Files
	if co.s.svc.keeping.Sealed {
		return nil
	}
	return co.do(Storage, func(ctx context.Context) error {
		in, err := files.Reopen(ctx, file, storage.Announce(total), length)
		if err != nil {
			return err
		}
		return in.Close(ctx)
	})
}

// sum is the cksum of length bytes with that state.
func sum(state uint32, length int64) uint32 {
	h := cksum.Resume(state, uint64(length))
	return h.Sum32()
}

// offset is where in its file the transfer begins.
func (u *upload) offset() int64 {
	if u.progress == nil || u.progress.continued == nil {
		return 0
	}
	return u.progress.continued.offset
}
