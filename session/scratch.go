package session

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"sealift/codec"
	"sealift/storage"
)

// The scratch room of a transfer begins with an index, which has a record for
// each number that a packet may have. Behind it is the content of the packets,
// as they came.
//
//	offset  size  field
//	0       8     where the content is
//	8       4     its size
//	12      4     Orig File Size of the packet
const recordSize = 16 // bytes

// indexSize is how many bytes the index takes: counted from 0 or from 1, no
// number is beyond total.
func indexSize(total uint16) int64 { return (int64(total) + 1) * recordSize }

// mark is a packet whose content begins in a chunk for the scratch room.
type mark struct {
	number uint32
	at     earlyPacket
}

// marksPer is how many bytes of its buffer a chunk has for each mark: so what the
// marks take is no more than a fraction of what the window counts.
const marksPer = 128

// putAside puts content that came before its turn into the scratch room, and the
// packets that begin in it into the index.
func (k *sink) putAside(ctx context.Context, c *chunk) (err error) {
	if k.scratch == nil {
		if k.scratch, err = k.files.Scratch(ctx); err != nil {
			return err
		}
	}
	if err := k.writeIndex(c.marks); err != nil {
		return err
	}
	_, err = k.scratch.WriteAt(c.buf[headroom:headroom+c.n], c.spill)
	return err
}

// writeIndex writes the records of neighbouring packets at once.
func (k *sink) writeIndex(marks []mark) error {
	slices.SortFunc(marks, func(a, b mark) int { return cmp.Compare(a.number, b.number) })
	var b []byte
	for i, m := range marks {
		b = binary.LittleEndian.AppendUint64(b, uint64(m.at.off))
		b = binary.LittleEndian.AppendUint32(b, m.at.size)
		b = binary.LittleEndian.AppendUint32(b, m.at.orig)
		if i+1 < len(marks) && marks[i+1].number == m.number+1 && len(b) < 4096 {
			continue
		}
		end := int64(m.number+1) * recordSize
		if _, err := k.scratch.WriteAt(b, end-int64(len(b))); err != nil {
			return err
		}
		b = b[:0]
	}
	return nil
}

// replayBatch is the most packets that one job replays out of the scratch room.
const replayBatch = 1024

// run is a row of packets in the scratch room whose turn has come. A job replays
// as many of them as it has time for, at least one.
type run struct {
	plan   codec.Plan
	offset int64  // bytes of ciphertext before the first
	first  uint32 // number
	count  uint32

	// Results.
	packets uint32 // that were replayed
	bytes   int64  // of ciphertext in these
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
	sp := span{off: p.off, n: int64(p.size), orig: -1}
	if plan.Ciphertext < 0 {
		sp.ends, sp.orig = true, int64(p.orig)
		return sp, nil
	}
	if left := plan.Ciphertext - offset; sp.n >= left {
		if sp.n > left && number != plan.Last() {
			return span{}, errNotZero
		}
		sp.pad = sp.n - left
		sp.n = left
		sp.ends, sp.orig = left > 0, plan.OrigSize
	}
	return sp, nil
}

func readScratch(scratch storage.Scratch, p []byte, off int64) error {
	if n, err := scratch.ReadAt(p, off); n < len(p) {
		return fmt.Errorf("reading back what came early: %w", err)
	}
	return nil
}
