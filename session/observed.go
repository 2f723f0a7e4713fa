package session

import (
	"time"

	"sealift/codec"
)

// View is what can be seen of a session from outside.
type View struct {
	Remote    string // address of the client
	Opened    time.Time
	ID        codec.ClientID // zero as long as nobody knows whose the connection is
	Name      string         // of the client
	TLS       bool
	Transfers []TransferView // under way
}

// TransferView is a transfer that is under way. Sizes are in bytes.
type TransferView struct {
	File  string // as the client sent it
	Began time.Time
	Bytes int64 // of the content that came, as far as is known
	Total int64 // of the file; -1: the packets do not say
}

// Opened is when the session began. It may be called while the session is lent.
func (s *Session) Opened() time.Time { return s.opened }

// Uploading is how many transfers View would tell of. It may be called while the session
// is lent.
func (s *Session) Uploading() int { return s.uploads.underWay() }

// View looks at the session. The host's goroutine calls it; loan is the loan that a
// worker has, or nil. What it reads no worker changes, but for one counter of the loan.
func (s *Session) View(loan *Loan) View {
	v := View{Remote: s.remote, Opened: s.opened, TLS: s.channel.TLS}
	if s.state != fresh {
		v.ID, v.Name = s.id, s.name
	}
	for _, u := range s.uploads.all {
		if u.tentative {
			continue
		}
		t := TransferView{File: u.name, Began: u.started, Total: u.transfer.Plan().OrigSize}
		if loan == nil {
			t.Bytes = u.transfer.Arrived()
		} else if t.Bytes = u.reported; loan.shown.Load()>>shownBits == u.serial&(1<<(64-shownBits)-1) {
			t.Bytes = max(t.Bytes, int64(loan.shown.Load()&(1<<shownBits-1)))
		}
		if p := u.progress; p != nil && p.continued != nil { // what comes is a part of the file
			t.Bytes += p.continued.offset
			t.Total = p.continued.total
		}
		if t.Total >= 0 {
			t.Bytes = min(t.Bytes, t.Total) // what came is padded
		}
		v.Transfers = append(v.Transfers, t)
	}
	return v
}

// shownBits is how many bits of Loan.shown are bytes; the others are the lowest of the
// transfer's serial.
const shownBits = 48

// show tells View how far the transfer has come. The worker calls it.
func (l *Loan) show() {
	l.shown.Store(l.u.serial<<shownBits | uint64(l.u.transfer.Arrived()))
}
