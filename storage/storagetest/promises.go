package storagetest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/session"
	"sealift/storage"
)

// Machine is a server's storage on a disk of its own.
type Machine interface {
	// Start opens the stores and puts them in order, as a server does. What they
	// do may be cut short at each step, by a panic of step.
	Start(t *testing.T, step func()) (storage.Registry, storage.Files)
	// Kill and Cut end the life that Start began: the process was killed, or the
	// power was cut. The next Start finds what that leaves.
	Kill(t *testing.T)
	Cut(t *testing.T, rnd *rand.Rand)
	// Expire drops the unverified files that were received before t.
	Expire(t *testing.T, svc *session.Service, before time.Time)
	// Clear removes what was taken or deleted, as a server does. The error is that of a
	// sync that failed.
	Clear(t *testing.T, svc *session.Service) error
	// FailSyncs makes some of the syncs fail until it is called with false.
	FailSyncs(bool)
	// Remove takes the stored file of client id at path away, as a person might.
	Remove(t *testing.T, id codec.ClientID, path string)
}

// Promises holds a server's storage against the table of answers to a 1029: for
// random uploads, verdicts and connections, with a kill, a power cut, or syncs
// that fail at any step, while an operator takes and deletes files and disables the
// client. rounds are independent of each other, and seed makes others of them. Where
// mortal is false, the machine's lives do not end.
//
// The table, for a client and path with at most one verified version V, at most
// one waiting version W, and the mark L, "a version that had its 1603 went
// without being verified":
//
// After a 1608 with Offset = Total Size that 1608 is as a 1603 about what it spoke of. While all
// that a connection has sent or been told of is a part, a 1029 gets 1607.
//
//	the connection's 1603 was about    and                          answer
//	W                                                               commit W: 1604
//	V                                  V is there, or was taken     1604
//	neither                                                         1607
//	it sent none                       L                            1607
//	it sent none                       W waits                      commit W: 1604
//	it sent none                       no W, V is there or taken    1604
//	it sent none                       otherwise                    1607
//
// A V that somebody deleted is not there. A W that somebody deleted gets 1607; if the
// session does not know that yet, its 1604 is as true as any, and W stays. A disabled
// client gets 1607 to everything.
//
// A partial file goes on where the last 1032 for it said, on that connection alone. What a 1603 of a
// part has said, or a cut has left, is there in the next life, whatever ended this one; and all that
// came, after a kill. It is what one client sent under the name, and goes by what replaces it alone.
// In every third round connections are over TLS, and a 1608 may be about V.
//
// In every other round a quota stands: an upload that would take the client beyond it gets
// 1607, no other does, and the count of what the client has is right at any time.
//
// A version that was verified stays until it is replaced, taken or deleted; it is taken
// once; and nothing of it is left in the store after that. At any time, the events tell what
// is on record, see [Replay].
func Promises(t *testing.T, seed uint64, rounds int, mortal bool, machine func(t *testing.T) Machine) {
	counts := make(map[string]int)
	for round := range rounds {
		m := &promiseModel{
			t: t, machine: machine(t), mortal: mortal, rnd: rand.New(rand.NewPCG(seed, uint64(round))), round: round,
			places: make(map[string]*placeModel), sent: make(map[uint32]*version), now: at(0), counts: counts,
		}
		if round%2 == 1 {
			m.quota = promiseQuota
		}
		m.pinned = round%3 == 2
		m.run()
		if t.Failed() {
			return
		}
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%6d times: %s", counts[what], what)
	}
	states := promiseStates
	if !mortal {
		states = slices.Concat(states, promiseLastingStates)
	}
	for _, what := range states {
		if counts[what] == 0 && seed == Seed && rounds >= 50 {
			t.Errorf("never: %s", what)
		}
	}
}

// Seed is that of the tests, with which the states below come up.
const Seed = 7

// promiseStates are what must come up in 50 rounds with it, or the test shows nothing. What a
// power cut leaves is not the same each time, so they are those that come up often.
var promiseStates = []string{
	"taken", "taken version: 1604", "forgotten taken version", "deleted version: 1607", "cleared deleted version",
	"cleared deleted waiting version", "disabled: 1607", "beyond the quota: 1607", "let in by the quota",
	"continued", "segment", "last segment", "1608 about a waiting version", "1608 about a verified version",
}

// promiseLastingStates are what must come up besides where lives do not end.
var promiseLastingStates = []string{"cut off", "superseded: 1607", "1608 confirmed"}

// version is one content that a client sent.
type version struct {
	content []byte
	sum     uint32
}

// placeModel is what there is under a path, as the table has it.
type placeModel struct {
	verified *version
	there    bool // verified's content can be relied on
	taken    bool // verified was handed out; there says that its content was not removed yet
	deleted  bool // verified is to be removed
	waiting  *version
	part     *part // a partial file
	doomed   bool  // waiting is to be removed
	lapsed   bool
}

// forget is for a verified version that goes.
func (p *placeModel) forget() { p.verified, p.there, p.taken, p.deleted = nil, false, false, false }

// drop is for a waiting version that goes.
func (p *placeModel) drop() { p.waiting, p.doomed, p.lapsed = nil, false, true }

type promiseModel struct {
	t       *testing.T
	machine Machine
	mortal  bool
	rnd     *rand.Rand
	round   int
	now     time.Time

	reg    storage.Registry
	files  storage.Files
	svc    *session.Service
	places map[string]*placeModel
	sent   map[uint32]*version // by checksum
	conns  []*promiseConn
	log    []string
	logged *observer.ObservedLogs // of the life

	quota    storage.Quota // of the round
	missed   bool          // a verified version was missing at some time
	pinned   bool          // in this round connections are over TLS, and the client is pinned to its key
	ends     bool          // the life is to end after the act
	held     *part         // what the server had of a file when its life ended, and must have after a kill
	disabled bool
	counts   map[string]int // of what has occurred

	fuse int // steps until the life ends; negative: it does not
}

// eventTarget is whom events are told.
const eventTarget = "x"

// ended is the panic with which a life ends.
type ended struct{}

var promisePaths = []string{"a", "b", "d/c"}

func (m *promiseModel) fatalf(format string, args ...any) {
	m.t.Helper()
	for _, line := range m.log {
		m.t.Log(line)
	}
	for _, e := range m.logged.All() {
		m.t.Log("the server said:", e.Message, e.ContextMap())
	}
	m.t.Fatalf("round %d: %s", m.round, fmt.Sprintf(format, args...))
}

func (m *promiseModel) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

// step is called before each thing that a store does.
func (m *promiseModel) step() {
	if m.fuse == 0 {
		panic(ended{})
	}
	m.fuse--
}

func (m *promiseModel) run() {
	m.fuse = -1
	m.start()
	id := clientID(1)
	_, public := promisePair()
	m.apply(addClient(1, "anna"), &storage.SetKeys{ID: id, Name: "anna", PublicKey: public[:], AESKey: key(1, aescbc.KeySize)})
	if m.pinned {
		m.apply(&storage.PinClient{Outcome: storage.Outcome{By: storage.Server}, ID: id, TLSKey: promiseTLSKey[:]})
	}
	for _, path := range promisePaths {
		m.places[path] = &placeModel{}
	}
	for range 100 {
		m.now = m.now.Add(time.Second)
		path := promisePaths[m.rnd.IntN(len(promisePaths))]
		c, act := m.someConn(), m.someAct()
		c, path = m.aim(act, c, path)
		// A life ends within an operation, or syncs fail during one.
		m.fuse = -1
		failing := false
		if m.mortal && m.rnd.IntN(6) == 0 {
			m.fuse = m.rnd.IntN(12)
		} else if m.rnd.IntN(4) == 0 {
			failing = true
			m.machine.FailSyncs(true)
		}
		survived := m.survives(func() { m.do(act, c, path, failing) })
		m.machine.FailSyncs(false)
		m.fuse = -1
		if what := steering[act]; !survived && what != "" {
			m.counts["life ended while "+what]++
		}
		if failing && act != actConfirm && c.asked[path] != nil && !c.gone { // what it has of a partial file is not followed through that
			c.close()
		}
		if !survived || m.ends || m.mortal && m.rnd.IntN(8) == 0 {
			m.die(path, act, survived && !failing)
		} else if failing {
			if act == actConfirm && !c.gone {
				// A commit that the registry did not record is settled by whatever
				// comes next for the path.
				got := c.ask(c.verdict(codec.CodeCRCOK, path))
				m.note("connection %d asks again: %s", c.n, got)
			}
			// A batch that failed may come back with the next life, until another one has
			// taken its room in the log of the database.
			m.apply(&storage.Seen{Outcome: storage.Outcome{At: m.now.Add(time.Millisecond), By: storage.Server}, ID: id}) // a 1027 may have been now
			m.resync(path, act, false)
			m.resyncPart(path, true)
		}
		m.check()
		m.note("  now %s is %s, failing %v", path, m.places[path], failing)
	}
}

func (p *placeModel) String() string {
	sum := func(v *version) string {
		if v == nil {
			return "none"
		}
		return fmt.Sprintf("%08x", v.sum)
	}
	partial := "none"
	if p.part != nil {
		partial = fmt.Sprintf("%d of %d bytes of %08x", p.part.least, len(p.part.v.content), p.part.v.sum)
	}
	return fmt.Sprintf("verified %s (there: %v, taken: %v, deleted: %v), waiting %s (deleted: %v), lapsed: %v, partial %s",
		sum(p.verified), p.there, p.taken, p.deleted, sum(p.waiting), p.doomed, p.lapsed, partial)
}

// survives runs f, and reports whether the life lasted.
func (m *promiseModel) survives(f func()) (lasted bool) {
	defer func() {
		if p := recover(); p != nil && p != (ended{}) {
			panic(p)
		}
	}()
	f()
	return true
}

// die ends the life, by a kill or a power cut, in the operation act on path, and
// begins the next. quiet: the operation had come to its end, and nothing had failed.
func (m *promiseModel) die(path string, act int, quiet bool) {
	cut := m.rnd.IntN(2) == 0 || m.files.Keeping().Sealed // a kill leaves no more there than was flushed
	for _, c := range m.conns {
		c.gone = true
	}
	m.conns = nil
	if cut {
		m.note("the power is cut")
		m.machine.Cut(m.t, m.rnd)
	} else {
		m.note("the process is killed")
		m.machine.Kill(m.t)
	}
	for _, p := range m.places { // without a row, a mark lives as long as the process
		if p.lapsed && p.verified == nil && p.waiting == nil {
			p.lapsed = false
		}
	}
	m.start()
	m.resync(path, act, cut)
	for at, p := range m.places {
		m.resyncPart(at, at == path && !quiet)
		m.survived(p, at == path, cut)
	}
	m.ends, m.held = false, nil
}

// check compares the stored files with what clients were told, and what is on record with the
// events.
func (m *promiseModel) check() {
	if err := Replay(context.Background(), m.reg, eventTarget); err != nil {
		m.fatalf("events: %v", err)
	}
	for path, p := range m.places {
		m.checkPart(path, p)
		switch {
		case p.there && !p.taken && !m.intact(path, p.verified):
			m.fatalf("%s: the verified content is not there", path)
		case p.taken && !p.there && m.intact(path, p.verified):
			m.fatalf("%s: what was taken and removed is there again", path)
		case p.verified == nil && p.waiting == nil:
			m.wantGone(path)
		}
	}
	m.checkQuota()
}

// inPlace names what is in a place.
func (m *promiseModel) inPlace(path string) storage.Stored {
	key := ""
	if m.files.Keeping().Versions {
		if f := m.row(path).Verified; f != nil {
			key = f.Incoming
		}
	}
	return stored(key, 1, path)
}

func (m *promiseModel) intact(path string, v *version) bool {
	r, err := m.files.Open(context.Background(), m.inPlace(path))
	if err != nil {
		return false
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return err == nil && string(b) == string(v.content)
}

func (m *promiseModel) start() {
	m.reg, m.files = m.machine.Start(m.t, m.step)
	if err := m.reg.SetTargets(context.Background(), []string{eventTarget}); err != nil {
		m.fatalf("registry: %v", err)
	}
	core, logged := observer.New(zap.WarnLevel)
	m.logged = logged
	m.svc = session.NewService(session.Config{
		Files: m.files, Log: zap.New(core), Limits: session.Limits{Quota: m.quota},
		Boot: PartialBoot, KeepFrom: promiseKeepFrom, CheckpointEvery: promiseCheckpointEvery,
		Shared: m.files.Keeping().Leases,
	})
	err := m.reg.Leaving(context.Background(), func(f storage.File) error {
		m.fatalf("after the start %+v is still to be removed", f)
		return nil
	})
	if err != nil {
		m.fatalf("registry: %v", err)
	}
}

func (m *promiseModel) apply(ops ...storage.Operation) {
	if err := m.reg.Apply(context.Background(), ops); err != nil {
		m.fatalf("registry: %v", err)
	}
	for _, op := range ops {
		if err := op.Result().Err; err != nil {
			m.fatalf("%T: %v", op, err)
		}
	}
}

func (m *promiseModel) newVersion() *version { return m.versionOfSize(8 + m.rnd.IntN(9000)) }

func (m *promiseModel) versionOfSize(size int) *version {
	v := &version{content: make([]byte, size)}
	for i := range v.content {
		v.content[i] = byte(m.rnd.Uint32())
	}
	v.sum = cksum.Checksum(v.content)
	m.sent[v.sum] = v
	return v
}
