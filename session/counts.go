package session

import (
	"sync/atomic"
	"time"

	"sealift/storage"
)

// Counts are what the sessions of a server have done since it began.
type Counts struct {
	Registered    uint64 // clients: 1600, and ids taken over from another server
	NotRegistered uint64 // 1601
	Rejoined      uint64 // 1605
	Rejected      uint64 // 1606
	Resumed       uint64 // connections that went on under the id alone

	Begun         uint64 // transfers
	ContentBytes  uint64 // of content as it came, encrypted, that transfers took
	Received      uint64 // files: 1603
	Verified      uint64 // files that a 1029 committed, also where the record of it came later
	VerifiedBytes uint64 // of these files, decrypted
	Again         uint64 // 1604 once more for a file that was verified
	Mismatches    uint64 // 1030
	GivenUp       uint64 // 1031
	Kept          uint64 // transfers that were cut off and kept as partial files
	Continued     uint64 // 1608 with an Offset above 0

	Refused [Reasons]uint64 // 1607 for what the client did, by Reason
	Failed  [Steps]uint64   // 1607 for what the server could not do, by Step
}

// counters are what Counts is read from.
type counters struct {
	registered, notRegistered, rejoined, rejected, resumed atomic.Uint64
	begun, contentBytes, received, verified, verifiedBytes atomic.Uint64
	again, mismatches, givenUp, kept, continued            atomic.Uint64

	refused [Reasons]atomic.Uint64
	failed  [Steps]atomic.Uint64
}

// refuse counts a 1607 for what the client did.
func (n *counters) refuse(why error) Reason {
	reason, _ := reasonOf(why)
	n.refused[reason].Add(1)
	return reason
}

// fail counts a 1607 for what the server could not do.
func (n *counters) fail(step Step) { n.failed[step].Add(1) }

// Counts returns what was counted so far. It costs less than a microsecond. The
// numbers are not of one moment: each may have grown since the one before was read.
func (svc *Service) Counts() (c Counts) {
	from := &svc.counts
	c = Counts{
		Registered: from.registered.Load(), NotRegistered: from.notRegistered.Load(),
		Rejoined: from.rejoined.Load(), Rejected: from.rejected.Load(), Resumed: from.resumed.Load(),
		Begun: from.begun.Load(), ContentBytes: from.contentBytes.Load(), Received: from.received.Load(),
		Verified: from.verified.Load(), VerifiedBytes: from.verifiedBytes.Load(), Again: from.again.Load(),
		Mismatches: from.mismatches.Load(), GivenUp: from.givenUp.Load(),
		Kept: from.kept.Load(), Continued: from.continued.Load(),
	}
	for r := range c.Refused {
		c.Refused[r] = from.refused[r].Load()
	}
	for s := range c.Failed {
		c.Failed[s] = from.failed[s].Load()
	}
	return c
}

// verifiedFile counts a file that a 1029 has committed, when that is on record.
func (n *counters) verifiedFile(f *storage.File) {
	n.verified.Add(1)
	n.verifiedBytes.Add(uint64(f.Size))
}

// received counts a file that gets its 1603, so long after its first packet.
func (svc *Service) received(took time.Duration) {
	svc.counts.received.Add(1)
	if svc.Received != nil {
		svc.Received(took)
	}
}

// count counts the content that came since the last call. No worker has the transfer.
func (u *upload) count() {
	n := u.transfer.Arrived()
	u.s.svc.counts.contentBytes.Add(uint64(n - u.reported))
	u.reported = n
}
