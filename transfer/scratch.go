package transfer

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

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

// putAside writes content that came before its turn to the scratch room, and the
// packets that begin in it to the index.
func (k *sink) putAside(ctx context.Context, p *Part) (err error) {
	if k.scratch == nil {
		if k.scratch, err = k.files.Scratch(ctx); err != nil {
			return err
		}
	}
	if err := k.writeIndex(p.aside.marks); err != nil {
		return err
	}
	_, err = k.scratch.WriteAt(p.buf[Headroom:Headroom+p.n], p.aside.off)
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

// read reads content of the span, from that offset in it on.
func (sp *span) read(scratch storage.Scratch, p []byte, from int64) error {
	if sp.mem != nil {
		copy(p, sp.mem[from:])
		return nil
	}
	return readScratch(scratch, p, sp.off+from)
}

// checkPad looks at the bytes behind the ciphertext.
func (sp *span) checkPad(scratch storage.Scratch) error {
	var b [4096]byte
	for done := int64(0); done < sp.pad; {
		p := b[:min(int64(len(b)), sp.pad-done)]
		if err := sp.read(scratch, p, sp.n+done); err != nil {
			return err
		}
		if !allZero(p) {
			return ErrNotZero
		}
		done += int64(len(p))
	}
	return nil
}

func readScratch(scratch storage.Scratch, p []byte, off int64) error {
	if n, err := scratch.ReadAt(p, off); n < len(p) {
		return fmt.Errorf("reading back what came early: %w", err)
	}
	return nil
}
