package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
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
// A version that was verified stays until it is replaced, taken or deleted; it is taken
// once; and nothing of it is left in the store after that.
func Promises(t *testing.T, seed uint64, rounds int, mortal bool, machine func(t *testing.T) Machine) {
	counts := make(map[string]int)
	for round := range rounds {
		m := &promiseModel{
			t: t, machine: machine(t), mortal: mortal, rnd: rand.New(rand.NewPCG(seed, uint64(round))), round: round,
			places: make(map[string]*placeModel), sent: make(map[uint32]*version), now: at(0), counts: counts,
		}
		m.run()
		if t.Failed() {
			return
		}
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%6d times: %s", counts[what], what)
	}
	for _, what := range promiseStates {
		if counts[what] == 0 && rounds >= 50 {
			t.Errorf("never: %s", what)
		}
	}
}

// promiseStates are what must occur in enough rounds, or they show nothing.
var promiseStates = []string{
	"taken", "taken version: 1604", "taken version with its content there: 1604", "cleared taken version", "forgotten taken version",
	"taken version replaced", "deleted version: 1607", "cleared deleted version", "deleted version replaced", "deleted waiting version: 1607", "deleted waiting version: 1604",
	"cleared deleted waiting version", "disabled: 1607", "disabled: 1607 to a 1029 for what waits",
}

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
	doomed   bool // waiting is to be removed
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

	disabled bool
	counts   map[string]int // of what has occurred

	fuse int // steps until the life ends; negative: it does not
}

// ended is the panic with which a life ends.
type ended struct{}

var promisePaths = []string{"a", "b", "d/c"}

var promiseKey = [aescbc.KeySize]byte{1, 2, 3}

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
	m.apply(addClient(1, "anna"), &storage.SetKeys{ID: id, Name: "anna", PublicKey: key(1, 160), AESKey: promiseKey[:]})
	for _, path := range promisePaths {
		m.places[path] = &placeModel{}
	}
	for range 80 {
		m.now = m.now.Add(time.Second)
		path := promisePaths[m.rnd.IntN(len(promisePaths))]
		c := m.someConn()
		// A life ends within an operation, or syncs fail during one.
		m.fuse = -1
		failing := false
		if m.mortal && m.rnd.IntN(6) == 0 {
			m.fuse = m.rnd.IntN(12)
		} else if m.rnd.IntN(4) == 0 {
			failing = true
			m.machine.FailSyncs(true)
		}
		act := m.someAct()
		survived := m.survives(func() { m.do(act, c, path, failing) })
		m.machine.FailSyncs(false)
		m.fuse = -1
		if !survived || m.mortal && m.rnd.IntN(8) == 0 {
			m.die(path, act)
		} else if failing {
			if act == actConfirm && !c.gone {
				// A commit that the registry did not record is settled by whatever
				// comes next for the path.
				got := c.ask(c.verdict(codec.CodeCRCOK, path))
				m.note("connection %d asks again: %s", c.n, got)
			}
			// A batch that failed may come back with the next life, until another one has
			// taken its room in the log of the database.
			m.apply(&storage.Seen{Outcome: storage.Outcome{At: m.now, By: storage.Server}, ID: id})
			m.resync(path, act, false)
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
	return fmt.Sprintf("verified %s (there: %v, taken: %v, deleted: %v), waiting %s (deleted: %v), lapsed: %v",
		sum(p.verified), p.there, p.taken, p.deleted, sum(p.waiting), p.doomed, p.lapsed)
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

const (
	actUpload = iota
	actConfirm
	actAgain
	actAbort
	actClose
	actExpire
	actRemove
	actTake
	actDelete
	actClear
	actDisable
)

// actWeights say how often each is done.
var actWeights = [...]int{
	actUpload: 5, actConfirm: 7, actAgain: 1, actAbort: 1, actClose: 1, actExpire: 1, actRemove: 1,
	actTake: 3, actDelete: 4, actClear: 2, actDisable: 1,
}

func (m *promiseModel) someAct() int {
	if m.disabled && m.rnd.IntN(2) == 0 {
		return actDisable // for a short while
	}
	sum := 0
	for _, w := range actWeights {
		sum += w
	}
	n := m.rnd.IntN(sum)
	for act, w := range actWeights {
		if n -= w; n < 0 {
			return act
		}
	}
	panic("not reached")
}

func (m *promiseModel) do(act int, c *promiseConn, path string, failing bool) {
	p := m.places[path]
	switch act {
	case actUpload:
		m.upload(c, path, p, failing)
	case actConfirm:
		m.confirm(c, path, p, failing)
	case actAgain, actAbort:
		m.giveUp(act, c, path, p, failing)
	case actClose:
		m.note("connection %d closes", c.n)
		c.close()
	case actExpire:
		if !failing {
			m.expire()
		}
	case actRemove:
		if p.verified != nil && p.there && !p.taken && m.rnd.IntN(3) == 0 {
			m.note("%s is removed by hand", path)
			m.machine.Remove(m.t, clientID(1), path)
			p.there = false
		}
	case actTake:
		m.take(path, p, failing)
	case actDelete:
		m.delete(path, p, failing)
	case actClear:
		m.clear(failing)
	case actDisable:
		m.note("the client is disabled: %v", !m.disabled)
		if m.steer(failing, &storage.DisableClient{ID: clientID(1), Disabled: !m.disabled}) == nil {
			m.disabled = !m.disabled
		}
	}
}

func (m *promiseModel) upload(c *promiseConn, path string, p *placeModel, failing bool) {
	v := m.newVersion()
	m.note("connection %d uploads %s, version %08x", c.n, path, v.sum)
	reply := c.ask(c.upload(path, v))
	want := fmt.Sprintf("1603 %08x", v.sum)
	if m.disabled {
		want = "1607"
		m.counts["disabled: 1607"]++
	}
	if reply != want && !failing {
		m.fatalf("upload: got %q, want %q", reply, want)
	} else if m.disabled {
		c.close() // a server ends such connections within a second
		return
	} else if reply != want {
		c.receipts[path] = new(version) // of a file that never was
		return
	}
	if p.waiting != nil {
		p.drop()
	}
	p.waiting = v
	c.receipts[path] = v
}

func (m *promiseModel) confirm(c *promiseConn, path string, p *placeModel, failing bool) {
	receipt := c.receipts[path]
	want := m.answer(p, receipt)
	m.note("connection %d confirms %s: %s", c.n, path, want)
	got := c.ask(c.verdict(codec.CodeCRCOK, path))
	if got != want {
		m.note("got %s", got)
	}
	meant := p.waiting != nil && (receipt == p.waiting || receipt == nil && !p.lapsed)
	late := got == "1604" && meant && p.doomed && !m.disabled // the session did not know
	if got != want && !(got == "1607" && (failing || meant && m.isStuck())) && !late {
		m.fatalf("1029: got %q, want %q", got, want)
	}
	m.count(p, meant, receipt, got)
	switch {
	case m.disabled && !failing: // what was on its way may have come to its end
		m.resync(path, actConfirm, false)
	case got == "1604" && meant:
		if p.verified != nil && (p.taken || p.deleted) {
			m.counts[map[bool]string{true: "taken version replaced", false: "deleted version replaced"}[p.taken]]++
		}
		p.forget()
		p.verified, p.there, p.waiting, p.doomed, p.lapsed = p.waiting, true, nil, false, false
	}
}

// isStuck reports whether the last thing that the server said is that a folder could not
// be synced, and cannot be made anew: then no commit goes there until the next start.
func (m *promiseModel) isStuck() bool {
	all := m.logged.All()
	if len(all) == 0 {
		return false
	}
	why, _ := all[len(all)-1].ContextMap()["error"].(string)
	return strings.Contains(why, "it cannot be made anew")
}

// count counts an answer to a 1029 that is about something which an operator steered.
func (m *promiseModel) count(p *placeModel, meant bool, receipt *version, got string) {
	about := p.verified != nil && (receipt == p.verified || receipt == nil && p.waiting == nil && !p.lapsed)
	switch {
	case m.disabled && meant:
		m.counts["disabled: "+got+" to a 1029 for what waits"]++
	case m.disabled:
		m.counts["disabled: "+got]++
	case meant && p.doomed:
		m.counts["deleted waiting version: "+got]++
	case about && p.deleted:
		m.counts["deleted version: "+got]++
	case about && p.taken && p.there:
		m.counts["taken version with its content there: "+got]++
	case about && p.taken:
		m.counts["taken version: "+got]++
	}
}

func (m *promiseModel) giveUp(act int, c *promiseConn, path string, p *placeModel, failing bool) {
	code, want := codec.CodeCRCBad, ""
	if act == actAbort {
		code, want = codec.CodeAbort, "1604"
	}
	if m.disabled {
		want = "1607"
	}
	m.note("connection %d sends %d for %s", c.n, code, path)
	if got := c.ask(c.verdict(code, path)); got != want && !failing {
		m.fatalf("%d: got %q, want %q", code, got, want)
	} else if got == "1607" {
		return
	}
	if p.waiting != nil && (c.receipts[path] == p.waiting || c.receipts[path] == nil) {
		p.drop()
	}
}

// expire has all expire that waits, and sometimes what was taken a day ago.
func (m *promiseModel) expire() {
	after := time.Hour
	if m.rnd.IntN(2) == 0 {
		after = 25 * time.Hour
	}
	m.note("all that waits expires, and what was taken before %v", after-24*time.Hour)
	m.machine.Expire(m.t, m.svc, m.now.Add(after))
	for _, p := range m.places {
		if p.waiting != nil {
			p.drop()
		}
		if after > 24*time.Hour && p.taken && !p.there {
			p.forget()
			m.counts["forgotten taken version"]++
		}
	}
}

// row returns what is on record at path.
func (m *promiseModel) row(path string) *storage.GetFile {
	get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: clientID(1), Path: path}
	if err := m.reg.Apply(context.Background(), []storage.Operation{get}); err != nil {
		m.fatalf("registry: %v", err)
	}
	return get
}

// steer does what an operator does by a command of its own. The error is that of the
// operation, or any one if the registry failed.
func (m *promiseModel) steer(failing bool, op storage.Operation) error {
	m.step()
	err := m.reg.Apply(context.Background(), []storage.Operation{op})
	m.step()
	if err != nil && !failing {
		m.fatalf("registry: %v", err)
	}
	if err == nil {
		err = op.Result().Err
	}
	return err
}

// take takes the verified version. That is possible if it is there, and neither taken nor
// deleted: so each is taken once.
func (m *promiseModel) take(path string, p *placeModel, failing bool) {
	v := m.row(path).Verified
	if v == nil || !p.there && !p.taken {
		return // whoever takes it reads it first
	}
	m.note("%s is taken, version %08x", path, v.Cksum)
	missing := v.Missing
	err := m.steer(failing, &storage.TakeFile{ID: v.ID, Path: path, Incoming: v.Incoming, Taken: m.now})
	may := !missing && !p.taken && !p.deleted
	switch {
	case err == nil && !may:
		m.fatalf("it was taken, and cannot be: %s", p)
	case err != nil && may && !failing:
		m.fatalf("take: %v", err)
	case err == nil:
		p.taken = true
		m.counts["taken"]++
	}
}

// delete deletes the verified version, the one that waits, or both.
func (m *promiseModel) delete(path string, p *placeModel, failing bool) {
	get, which := m.row(path), m.rnd.IntN(3)
	if v := get.Verified; v != nil && which != 0 {
		m.note("%s is deleted, version %08x", path, v.Cksum)
		if m.steer(failing, &storage.DeleteFile{ID: v.ID, Path: path, Incoming: v.Incoming, Verified: true}) == nil {
			p.deleted = true
		}
	}
	if w := get.Unverified; w != nil && which != 1 {
		m.note("%s is deleted while it waits, version %08x", path, w.Cksum)
		if m.steer(failing, &storage.DeleteFile{ID: w.ID, Path: path, Incoming: w.Incoming}) == nil {
			p.doomed = true
		}
	}
}

// clear has removed what was taken or deleted.
func (m *promiseModel) clear(failing bool) {
	m.note("what leaves is cleared")
	err := m.machine.Clear(m.t, m.svc)
	if err != nil && !failing {
		m.fatalf("clear: %v", err)
	}
	m.step()
	if failing { // it may have come to any point
		return
	}
	for path, p := range m.places {
		gone := false
		if p.waiting != nil && p.doomed {
			p.drop()
			m.counts["cleared deleted waiting version"]++
		}
		switch {
		case p.verified != nil && p.deleted:
			p.forget()
			gone = true
			m.counts["cleared deleted version"]++
		case p.taken && p.there:
			p.there, gone = false, true
			m.counts["cleared taken version"]++
		}
		if gone {
			m.wantGone(path)
		}
	}
	m.wantCleared()
}

// wantGone checks that nothing is in a place.
func (m *promiseModel) wantGone(path string) {
	if _, err := m.files.Size(context.Background(), stored(1, path)); !errors.Is(err, storage.ErrNotStored) {
		m.fatalf("%s: the content is in its place after it was removed: %v", path, err)
	}
}

// wantCleared checks that nothing is left to be removed, and that what the registry has is
// what the model has.
func (m *promiseModel) wantCleared() {
	err := m.reg.Leaving(context.Background(), func(f storage.File) error {
		m.fatalf("%+v is still to be removed", f)
		return nil
	})
	if err != nil {
		m.fatalf("registry: %v", err)
	}
	for path, p := range m.places {
		get := m.row(path)
		if (get.Verified != nil) != (p.verified != nil) || (get.Unverified != nil) != (p.waiting != nil) {
			m.fatalf("%s: on record %+v, %+v, want %s", path, get.Verified, get.Unverified, p)
		}
	}
}

// answer is the table.
func (m *promiseModel) answer(p *placeModel, receipt *version) string {
	yes := false
	switch has := !p.deleted && (p.there || p.taken); {
	case m.disabled:
	case receipt != nil && receipt == p.waiting:
		yes = !p.doomed
	case receipt != nil && receipt == p.verified:
		yes = has
	case receipt != nil, p.lapsed:
	case p.waiting != nil:
		yes = !p.doomed
	case p.verified != nil:
		yes = has
	}
	if yes {
		return "1604"
	}
	return "1607"
}

// die ends the life, by a kill or a power cut, in the operation act on path, and
// begins the next.
func (m *promiseModel) die(path string, act int) {
	cut := m.rnd.IntN(2) == 0
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
}

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
		if p.waiting != was.waiting && touched != actUpload {
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

// check compares the stored files with what clients were told.
func (m *promiseModel) check() {
	for path, p := range m.places {
		if p.there && !p.taken && !m.intact(path, p.verified) {
			m.fatalf("%s: the verified content is not there", path)
		}
	}
}

func (m *promiseModel) intact(path string, v *version) bool {
	r, err := m.files.Open(context.Background(), stored(1, path))
	if err != nil {
		return false
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return err == nil && string(b) == string(v.content)
}

func (m *promiseModel) start() {
	m.reg, m.files = m.machine.Start(m.t, m.step)
	core, logged := observer.New(zap.WarnLevel)
	m.logged = logged
	m.svc = session.NewService(session.Config{Files: m.files, Log: zap.New(core)})
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

func (m *promiseModel) newVersion() *version {
	v := &version{content: make([]byte, 8+m.rnd.IntN(9000))}
	for i := range v.content {
		v.content[i] = byte(m.rnd.Uint32())
	}
	v.sum = cksum.Checksum(v.content)
	m.sent[v.sum] = v
	return v
}

// someConn returns an open connection, or opens one.
func (m *promiseModel) someConn() *promiseConn {
	open := m.conns[:0]
	for _, c := range m.conns {
		if !c.gone {
			open = append(open, c)
		}
	}
	m.conns = open
	if n := len(m.conns); n == 0 || n < 4 && m.rnd.IntN(4) == 0 {
		c := &promiseConn{m: m, n: m.rnd.IntN(1000), receipts: make(map[string]*version)}
		c.s = session.New(m.svc, c, "")
		m.conns = append(m.conns, c)
		return c
	}
	return m.conns[m.rnd.IntN(len(m.conns))]
}

// promiseConn is a connection, and the host of its session: what the session asks
// for is done one thing after the other.
type promiseConn struct {
	m        *promiseModel
	n        int
	s        *session.Session
	todo     []func()
	replies  string
	receipts map[string]*version
	gone     bool
}

func (c *promiseConn) upload(path string, v *version) []byte {
	body := make([]byte, aescbc.CiphertextSize(int64(len(v.content))))
	aescbc.NewEncrypter(&promiseKey).Final(body, v.content)
	m := codec.SendFile{
		ContentSize: uint32(len(body)), OrigSize: uint32(len(v.content)), Packet: 1, Total: 1, FileName: []byte(path),
	}
	return append(m.Append(nil, clientID(1), uint32(len(body))), body...)
}

func (c *promiseConn) verdict(code codec.Code, path string) []byte {
	return codec.Verdict{Code: code, FileName: []byte(path)}.Append(nil, clientID(1))
}

// ask sends a message and returns the reply.
func (c *promiseConn) ask(p []byte) string {
	c.replies = ""
	for {
		p = p[c.s.Feed(p):]
		if len(c.todo) == 0 {
			break
		}
		next := c.todo[0]
		c.todo = c.todo[1:]
		next()
	}
	if len(p) > 0 && !c.gone {
		c.m.fatalf("%d bytes are not taken", len(p))
	}
	return c.replies
}

func (c *promiseConn) close() {
	c.gone = true
	c.s.Closed()
	for len(c.todo) > 0 {
		next := c.todo[0]
		c.todo = c.todo[1:]
		next()
	}
}

func (c *promiseConn) Send(reply []byte) {
	var d codec.ResponseDecoder
	r, _, ok, err := d.Next(reply)
	if err != nil || !ok {
		c.m.fatalf("reply %x: %v", reply, err)
	}
	c.replies += fmt.Sprint(uint16(r.Header.Code))
	if f, err := codec.ParseFileReceived(r.Payload); r.Header.Code == codec.CodeFileReceived && err == nil {
		c.replies += fmt.Sprintf(" %08x", f.Cksum)
	}
}

func (c *promiseConn) Do(_ session.Lane, work func(ctx context.Context), done func()) {
	c.todo = append(c.todo, func() {
		if work != nil {
			c.m.step()
			work(context.Background())
		}
		if done != nil {
			done()
		}
	})
}

func (c *promiseConn) Apply(op storage.Operation, done func(err error)) {
	c.todo = append(c.todo, func() {
		c.m.step()
		err := c.m.reg.Apply(context.Background(), []storage.Operation{op})
		c.m.step()
		if err == nil {
			err = op.Result().Err
		}
		if done != nil {
			done(err)
		}
	})
}

func (c *promiseConn) Buffer(size int) []byte { return make([]byte, size) }
func (c *promiseConn) Release([]byte)         {}
func (c *promiseConn) Hold(int) bool          { return true }
func (c *promiseConn) Unhold(int)             {}
func (c *promiseConn) Hangup(string)          { c.gone = true }
func (c *promiseConn) Now() time.Time         { return c.m.now }
