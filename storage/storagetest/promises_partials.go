package storagetest

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sealift/crypto/cksum"
	"sealift/storage"
)

// PartialPromises holds a server's storage against what is promised of partial files: for
// random writes, checkpoints, cuts and 1032s, as a session has them done, with a kill, a power
// cut, or a sync that fails at any step.
//
//   - What a checkpoint or a cut has recorded is there in the next life, whatever ended this
//     one, and its content up to Length is what was written.
//   - Whoever has an older generation can change nothing of it.
//   - It goes only by what replaces it: a new upload, a whole file, a sync that failed.
func PartialPromises(t *testing.T, seed uint64, rounds int, machine func(t *testing.T) Machine) {
	counts := make(map[string]int)
	for round := range rounds {
		m := &partialModel{
			promiseModel: promiseModel{
				t: t, machine: machine(t), mortal: true, rnd: rand.New(rand.NewPCG(seed, uint64(round))), round: round,
				now: at(0), counts: counts,
			},
			uploads: make(map[string][]byte),
		}
		m.run()
		if t.Failed() {
			return
		}
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%6d times: %s", counts[what], what)
	}
	for _, what := range partialStates {
		if counts[what] == 0 && seed == Seed && rounds >= 20 {
			t.Errorf("never: %s", what)
		}
	}
}

// partialStates are what must come up in 20 rounds with Seed.
var partialStates = []string{
	"continued", "continued in another life", "superseded", "checkpoint", "cut off", "became whole", "flush failed",
	"survived a kill", "survived a power cut", "killed in the middle", "power cut in the middle",
}

// partialModel is one client's upload of the name a. Most is from promiseModel: machine,
// chance, log and the fuse of a life.
type partialModel struct {
	promiseModel

	uploads map[string][]byte // content of each upload, whole, by key
	in      storage.Incoming  // the transfer under way; nil: there is none
	row     storage.Partial   // as that would record it
	written int64             // how much of it the incoming file has
	sure    *storage.Partial  // what was recorded and must be there; nil: nothing must
	life    int               // in which sure was recorded
	lives   int
}

const (
	doWrite = iota
	doCheckpoint
	doCut
	doContinue
	doStale
	doBegin
	doFinish
	doFailedFlush
	partialActs
)

func (m *partialModel) run() {
	m.fuse = -1
	m.start()
	m.apply(addClient(1, "anna"))
	for range 60 {
		m.now = m.now.Add(time.Second)
		act := m.rnd.IntN(partialActs)
		if m.in == nil && act != doStale {
			act = []int{doBegin, doContinue, doContinue}[m.rnd.IntN(3)]
		}
		m.fuse = -1
		if m.rnd.IntN(6) == 0 {
			m.fuse = m.rnd.IntN(14)
		}
		survived := m.survives(func() { m.do(act) })
		m.machine.FailSyncs(false)
		m.fuse = -1
		if !survived || m.rnd.IntN(10) == 0 {
			m.die(act, survived)
		}
		m.check(act, survived)
	}
}

func (m *partialModel) do(act int) {
	switch act {
	case doBegin:
		m.begin()
	case doContinue:
		m.goOn()
	case doStale:
		m.stale()
	}
	if m.in == nil {
		return
	}
	switch act {
	case doWrite:
		m.write(1 + m.rnd.IntN(5000))
	case doCheckpoint:
		m.note("a checkpoint at %d", m.written)
		m.record(m.files.Flush(context.Background(), m.row.Uploaded(), m.written))
		m.counts["checkpoint"]++
	case doCut:
		m.note("the connection is cut at %d", m.written)
		m.close()
		m.record(m.files.Flush(context.Background(), m.row.Uploaded(), m.written))
		m.counts["cut off"]++
	case doFinish:
		m.finish()
	case doFailedFlush:
		m.failFlush()
	}
}

// tryRow applies op, with a step before and after it.
func (m *partialModel) tryRow(op storage.Operation) error {
	m.step()
	if err := m.reg.Apply(context.Background(), []storage.Operation{op}); err != nil {
		m.fatalf("registry: %v", err)
	}
	m.step()
	return op.Result().Err
}

// begin begins the upload anew, with other content, and records the first of it.
func (m *partialModel) begin() {
	if m.in != nil {
		m.close()
	}
	data := content(m.rnd.Uint64(), 20_000)
	in, err := m.files.Create(context.Background(), place(1, "a"), storage.Announce(int64(len(data))))
	if err != nil {
		m.fatalf("Create: %v", err)
	}
	m.uploads[in.Key()] = data
	m.note("a new upload, %s", in.Key())
	m.in, m.written = in, 0
	m.row = storage.Partial{
		ID: clientID(1), FileName: "a", Path: "a", Incoming: in.Key(), Total: int64(len(data)), Boot: PartialBoot, Generation: 1, Changed: m.now,
	}
	m.write(100)
	put := &storage.PutPartial{Partial: m.row}
	m.sure = nil // from now on either may be on record
	if err := m.tryRow(put); err != nil {
		m.fatalf("PutPartial: %v", err)
	}
	if put.Replaced != nil {
		m.discard(*put.Replaced)
	}
}

// PartialBoot is the boot that a Machine gives to all partial files, with CheckPartials, after
// a power cut.
const PartialBoot = "the boot of the test"

func (m *partialModel) discard(p storage.Partial) {
	if err := m.files.Discard(context.Background(), p.Uploaded()); err != nil {
		m.fatalf("Discard: %v", err)
	}
}

func (m *partialModel) write(n int) {
	data := m.uploads[m.row.Incoming]
	part := data[m.written:min(int64(len(data)), m.written+int64(n))]
	if _, err := m.in.Write(context.Background(), part); err != nil {
		m.fatalf("Write: %v", err)
	}
	m.written += int64(len(part))
}

func (m *partialModel) close() {
	in := m.in
	m.in = nil
	if err := in.Close(context.Background()); err != nil {
		m.fatalf("Close: %v", err)
	}
}

// record records all that was written, after it was flushed.
func (m *partialModel) record(flushed error) {
	if flushed != nil {
		m.fatalf("Flush: %v", flushed)
	}
	m.row.Length, m.row.State, m.row.Changed = m.written, stateOf(m.uploads[m.row.Incoming][:m.written]), m.now
	if err := m.tryRow(&storage.PutPartial{Partial: m.row}); err != nil {
		m.fatalf("PutPartial: %v", err)
	}
	m.sure, m.life = nil, m.lives
	if row := m.row; row.Length > 0 {
		m.sure = &row
	}
}

func stateOf(b []byte) uint32 {
	h := cksum.New()
	h.Write(b)
	return h.State()
}

// goOn is a 1032: it ends the transfer under way, and goes on after what is recorded.
func (m *partialModel) goOn() {
	p := m.partial()
	if p == nil || p.Deleted {
		return
	}
	if m.in != nil {
		m.close()
	}
	op := &storage.ContinueFile{ID: p.ID, Path: p.Path, Incoming: p.Incoming, Changed: m.now}
	if err := m.tryRow(op); err != nil {
		m.fatalf("ContinueFile: %v", err)
	}
	if m.sure != nil {
		m.sure.Generation = op.Partial.Generation
	}
	in, err := m.files.Reopen(context.Background(), p.Uploaded(), storage.Announce(p.Total), p.Length)
	if err != nil {
		m.fatalf("Reopen after %d: %v", p.Length, err)
	}
	m.note("generation %d goes on after %d", op.Partial.Generation, p.Length)
	m.in, m.row, m.written = in, op.Partial, p.Length
	m.counts["continued"]++
	if m.life != m.lives {
		m.counts["continued in another life"]++
	}
}

// stale is what somebody wants who has lost the file to a later 1032.
func (m *partialModel) stale() {
	p := m.partial()
	if p == nil || p.Generation < 2 {
		return
	}
	old := *p
	old.Generation, old.Length, old.State = 1+int64(m.rnd.IntN(int(p.Generation-1))), 0, 0
	m.note("generation %d wants it back", old.Generation)
	f := upload(1, "a", p.Incoming, p.Total)
	put, whole := &storage.PutPartial{Partial: old}, &storage.PutFile{File: f, Generation: old.Generation}
	drop := &storage.DropPartial{ID: p.ID, Path: p.Path, Incoming: p.Incoming, Generation: old.Generation}
	if a, b, c := m.tryRow(put), m.tryRow(whole), m.tryRow(drop); !errors.Is(a, storage.ErrSuperseded) || !errors.Is(b, storage.ErrSuperseded) || !errors.Is(c, storage.ErrNoFile) {
		m.fatalf("an older generation: %v, %v, %v", a, b, c)
	}
	if got := m.partial(); got == nil || *got != *p {
		m.fatalf("an older generation made %+v of %+v", got, p)
	}
	m.counts["superseded"]++
}

// finish sends the rest, and has the file recorded; then it is verified, or given up.
func (m *partialModel) finish() {
	data := m.uploads[m.row.Incoming]
	m.write(len(data))
	m.close()
	f := upload(1, "a", m.row.Incoming, int64(len(data)))
	f.Cksum = cksum.Checksum(data)
	put := &storage.PutFile{File: f, Generation: m.row.Generation}
	m.sure = nil
	if err := m.tryRow(put); err != nil {
		m.fatalf("PutFile: %v", err)
	}
	m.counts["became whole"]++
	if put.Partial == nil || put.Partial.Incoming != f.Incoming {
		m.fatalf("PutFile took away %+v", put.Partial)
	}
	if w := put.Replaced; w != nil { // of a life that ended before it was verified
		m.discard(storage.Partial{ID: w.ID, Path: w.Path, Incoming: w.Incoming})
	}
	row := m.row
	if err := m.tryRow(&storage.PutPartial{Partial: row}); !errors.Is(err, storage.ErrSuperseded) {
		m.fatalf("a whole file became partial: %v", err)
	}
	if m.rnd.IntN(2) == 0 {
		m.note("it is given up")
		if err := m.tryRow(&storage.DropFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming}); err != nil {
			m.fatalf("DropFile: %v", err)
		}
		m.discard(row)
		return
	}
	m.note("it is verified")
	if err := m.files.Commit(context.Background(), &f); err != nil {
		m.fatalf("Commit: %v", err)
	}
	if err := m.tryRow(&storage.VerifyFile{ID: f.ID, Path: f.Path, Incoming: f.Incoming}); err != nil {
		m.fatalf("VerifyFile: %v", err)
	}
}

// failFlush is a checkpoint whose sync fails. The content is not believed again.
func (m *partialModel) failFlush() {
	up, sure := m.row.Uploaded(), m.sure
	m.sure = nil
	m.machine.FailSyncs(true)
	var err error
	for try := 0; try < 5 && err == nil; try++ {
		err = m.files.Flush(context.Background(), up, m.written)
	}
	m.machine.FailSyncs(false)
	if err == nil {
		m.sure = sure
		return
	}
	if !errors.Is(err, storage.ErrNotDurable) {
		m.fatalf("Flush: %v", err)
	}
	m.note("a flush failed: %v", err)
	m.counts["flush failed"]++
	if err := m.files.Flush(context.Background(), up, m.written); err == nil {
		m.fatalf("the next Flush succeeded")
	}
	in := m.in
	m.in = nil
	_ = in.Close(context.Background())
	_ = m.tryRow(&storage.DropPartial{ID: m.row.ID, Path: m.row.Path, Incoming: m.row.Incoming})
	m.discard(m.row)
}

func (m *partialModel) partial() *storage.Partial {
	get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: clientID(1), Path: "a", WithPartial: true}
	if err := m.reg.Apply(context.Background(), []storage.Operation{get}); err != nil {
		m.fatalf("registry: %v", err)
	}
	return get.Partial
}

// die ends the life, and begins the next.
func (m *partialModel) die(act int, survived bool) {
	m.in = nil
	m.lives++
	what := "kill"
	if m.rnd.IntN(2) == 0 {
		what = "power cut"
		m.machine.Cut(m.t, m.rnd)
	} else {
		m.machine.Kill(m.t)
	}
	m.note("the life ends with a %s, in act %d: %v", what, act, !survived)
	m.start()
	if m.sure != nil {
		m.counts["survived a "+what]++
	}
	if !survived {
		m.counts[map[string]string{"kill": "killed", "power cut": "power cut"}[what]+" in the middle"]++
	}
}

// check compares what there is with what must be.
func (m *partialModel) check(act int, survived bool) {
	p := m.partial()
	if m.sure != nil && (p == nil || p.Incoming != m.sure.Incoming || p.Length < m.sure.Length || p.Generation < m.sure.Generation) {
		m.fatalf("act %d: on record is %+v,\nwant %+v", act, p, m.sure)
	}
	if p == nil {
		return
	}
	data := m.uploads[p.Incoming][:p.Length]
	if want := stateOf(data); p.State != want {
		m.fatalf("act %d: the state of %d bytes is %08x, want %08x", act, p.Length, p.State, want)
	}
	r, err := m.files.OpenFrom(context.Background(), p.Uploaded(), 0)
	if err != nil {
		m.fatalf("act %d: %v", act, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, p.Length))
	if err != nil || string(b) != string(data) {
		m.fatalf("act %d: %d bytes that are not those %d that were written: %v", act, len(b), p.Length, err)
	}
	if !survived { // an operation may have been recorded of which nobody heard
		row := *p
		m.sure = &row
		if p.Length == 0 {
			m.sure = nil
		}
	}
}
