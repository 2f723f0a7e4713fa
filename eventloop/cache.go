package eventloop

import "sealift/session"

// classes is how many sizes of buffers there are: powers of two from
// session.MinBuffer to session.MaxBuffer.
const classes = 9

// cache makes buffers, and keeps those that are given back. Buffers in use and kept
// together never exceed limit bytes, provided that those in use do not: kept ones of
// other sizes go back to the system first. They lie outside Go's heap, because the
// collector lets that grow to twice its live size. The owner's lock guards the cache.
type cache struct {
	limit  int64
	mapped int64 // bytes in use or kept
	kept   [classes][][]byte
	idle   [classes]int // the least number kept since the last trim
}

func (m *cache) get(index int) []byte {
	if k := m.kept[index]; len(k) > 0 {
		buf := k[len(k)-1]
		k[len(k)-1] = nil
		m.kept[index] = k[:len(k)-1]
		m.idle[index] = min(m.idle[index], len(k)-1)
		return buf
	}
	size := int64(session.MinBuffer) << index
	for i := classes - 1; i >= 0; i-- {
		for m.mapped+size > m.limit && len(m.kept[i]) > 0 {
			m.drop(i)
		}
	}
	m.mapped += size
	return allocate(int(size))
}

func (m *cache) put(index int, buf []byte) {
	m.kept[index] = append(m.kept[index], buf)
}

// drop gives a kept buffer back to the system.
func (m *cache) drop(index int) {
	k := m.kept[index]
	buf := k[len(k)-1]
	k[len(k)-1] = nil
	m.kept[index] = k[:len(k)-1]
	m.idle[index] = min(m.idle[index], len(k)-1)
	m.mapped -= int64(len(buf))
	release(buf)
}

// trim gives back what has lain idle since it was called last.
func (m *cache) trim() {
	for i := range m.kept {
		for n := m.idle[i]; n > 0; n-- {
			m.drop(i)
		}
		m.idle[i] = len(m.kept[i])
	}
}
