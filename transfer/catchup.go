package transfer

import (
	"context"
	"encoding/binary"
	"sync"

	"sealift/codec"
)

// replaySize is about how many bytes of content one CatchUp takes.
const replaySize = 256 << 10

// replayBatch is the most packets that one CatchUp takes out of the scratch room.
const replayBatch = 1024

// Due is a row of packets that came early and whose turn has come: about replaySize
// bytes of them, or else one. They are all in memory, or all in the scratch room.
type Due struct {
	spans []span // in memory
	run   *run   // in the scratch room
}

// span is the content of one packet that came early.
type span struct {
	mem  []byte // the content, or nil: it is in the scratch room at off
	off  int64
	n    int64 // bytes of ciphertext
	pad  int64 // bytes behind it that must be zero
	ends bool  // the ciphertext ends here
	orig int64 // as in end
}

// run is a row of packets in the scratch room.
type run struct {
	plan   codec.Plan
	offset int64  // bytes of ciphertext before the first
	first  uint32 // number
	count  uint32 // the most that may be taken

	// Results.
	packets uint32 // that were taken
	bytes   int64  // of ciphertext in these
}

// Behind reports whether the turn of a packet that came early has come.
func (t *Transfer) Behind() bool { return t.firstKnown && t.early.has(t.next) }

// Due returns packets for CatchUp. The transfer is Behind. An error is about the
// packet NextNumber.
func (t *Transfer) Due() (*Due, error) {
	if t.early.spilled.has(t.next) {
		r := &run{plan: t.plan, offset: t.offset, first: t.next, count: 1}
		for r.count < replayBatch && t.early.spilled.has(r.first+r.count) {
			r.count++
		}
		return &Due{run: r}, nil
	}
	spans, err := t.dueInMemory()
	if err == nil {
		err = t.advance()
	}
	return &Due{spans: spans}, err
}

func (t *Transfer) dueInMemory() (spans []span, err error) {
	for n := int64(0); n < replaySize; t.next++ {
		p, ok := t.early.index[t.next]
		if !ok {
			break
		}
		sp, err := spanOf(&t.plan, t.offset, t.next, p)
		if err != nil {
			return nil, err
		}
		sp.mem = t.early.arena[p.off : p.off+int64(p.size)]
		t.offset += sp.n
		n += sp.n + sp.pad
		spans = append(spans, sp)
		delete(t.early.index, t.next)
	}
	return spans, nil
}

// CaughtUp says that CatchUp took what is due without an error.
func (t *Transfer) CaughtUp(d *Due) error {
	t.empty()
	if d.run == nil { // noted when they became due
		return nil
	}
	t.next += d.run.packets
	t.offset += d.run.bytes
	t.early.waiting -= d.run.packets
	return t.advance()
}

// CatchUp decrypts and stores what is due, as if it came in now.
func (t *Transfer) CatchUp(ctx context.Context, d *Due) error {
	if d.run != nil {
		return t.sink.replayRun(ctx, d.run)
	}
	return t.sink.replay(ctx, d.spans)
}

func (k *sink) replayRun(ctx context.Context, r *run) error {
	index := make([]byte, r.count*recordSize)
	if err := readScratch(k.scratch, index, int64(r.first)*recordSize); err != nil {
		return err
	}
	var spans []span
	for n := int64(0); n < replaySize && r.packets < r.count; r.packets++ {
		b := index[r.packets*recordSize:]
		sp, err := spanOf(&r.plan, r.offset+r.bytes, r.first+r.packets, earlyPacket{
			off:  int64(binary.LittleEndian.Uint64(b)),
			size: binary.LittleEndian.Uint32(b[8:]),
			orig: binary.LittleEndian.Uint32(b[12:]),
		})
		if err != nil {
			return err
		}
		spans = append(spans, sp)
		r.bytes += sp.n
		n += sp.n + sp.pad
	}
	return k.replay(ctx, spans)
}

// spanOf is what a packet that came early brings, if its content begins at that
// offset in the ciphertext. For a packet in the arena, mem is still to be set.
func spanOf(plan *codec.Plan, offset int64, number uint32, p earlyPacket) (span, error) {
	sp := span{off: p.off, n: int64(p.size)}
	if plan.Ciphertext < 0 {
		sp.ends, sp.orig = true, int64(p.orig)
		return sp, nil
	}
	if left := plan.Ciphertext - offset; sp.n >= left {
		if sp.n > left && number != plan.Last() {
			return span{}, ErrNotZero
		}
		sp.pad = sp.n - left
		sp.n = left
		sp.ends, sp.orig = left > 0, plan.OrigSize
	}
	return sp, nil
}

// replayBuffers are for content that comes out of the scratch room, of
// replaySize bytes. Workers use them, one each, so they need no budget.
var replayBuffers = sync.Pool{New: func() any { b := make([]byte, replaySize); return &b }}

// replay takes the spans, in order, as if their content came in now.
func (k *sink) replay(ctx context.Context, spans []span) error {
	buf := replayBuffers.Get().(*[]byte)
	defer replayBuffers.Put(buf)
	p := Part{buf: *buf}
	drain := func() error {
		err := k.decryptPart(ctx, &p)
		p.n, p.ends = 0, p.ends[:0]
		return err
	}
	for _, sp := range spans {
		for done := int64(0); done < sp.n; {
			room := p.Free()
			room = room[:min(int64(len(room)), sp.n-done)]
			if err := sp.read(k.scratch, room, done); err != nil {
				return err
			}
			p.n += len(room)
			done += int64(len(room))
			if done == sp.n && sp.ends {
				p.ends = append(p.ends, end{p.n, sp.orig})
			}
			if len(p.Free()) == 0 {
				if err := drain(); err != nil {
					return err
				}
			}
		}
		if err := sp.checkPad(k.scratch); err != nil {
			return err
		}
	}
	return drain()
}
