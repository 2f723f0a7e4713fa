package session

import (
	"errors"

	"sealift/codec"
	"sealift/storage"
)

// refusal remembers a transfer that was answered with 1607. The rest of its
// packets, which the client sent before it could know, is passed over without
// another 1607. A packet that comes a second time is of the next attempt, as is
// one with another Total Packets; whether that gets a 1607, see told.
type refusal struct {
	id    codec.ClientID // as in the headers
	name  string         // of the file, as the client sent it
	total uint16
	came  packetSet
	zero  bool // the client turned out to count from 0
	// swapped: the client has number and total in each other's place. Here they
	// are where they belong.
	swapped bool
	// of is the first packet's number where its total was 0: that of all packets
	// of a client that has them swapped and counts from 0.
	of uint16
}

// packetSet is a set of packet numbers: bit n%64 of word n/64 is number n.
type packetSet []uint64

func (p packetSet) has(n uint32) bool {
	return int(n/64) < len(p) && p[n/64]>>(n%64)&1 != 0
}

// add puts n into the set. It returns false if the host has no memory for it.
func (p *packetSet) add(host Host, n uint32) bool {
	if more := int(n/64) + 1 - len(*p); more > 0 {
		if !host.Hold(8 * more) {
			return false
		}
		*p = append(*p, make([]uint64, more)...)
	}
	(*p)[n/64] |= 1 << (n % 64)
	return true
}

func (p *packetSet) free(host Host) {
	if len(*p) > 0 {
		host.Unhold(8 * len(*p))
	}
	*p = nil
}

// refusals are a session's, the latest last.
type refusals []refusal

// maxRefused is the most transfers that are remembered. The oldest go first:
// then the client gets a 1607 more.
const maxRefused = 16

func (r refusals) find(id codec.ClientID, name string) *refusal {
	for i := range r {
		if r[i].id == id && r[i].name == name {
			return &r[i]
		}
	}
	return nil
}

// passOver reports whether a packet belongs to a transfer that was refused.
func (r *refusals) passOver(host Host, id codec.ClientID, m codec.SendFile) bool {
	f := r.covering(id, m)
	if f == nil {
		return false
	}
	if !f.came.add(host, uint32(f.read(m).Packet)) {
		r.forget(host, id, f.name)
		return false
	}
	return true
}

// covering is the refused transfer that a packet belongs to, or nil.
func (r refusals) covering(id codec.ClientID, m codec.SendFile) *refusal {
	f := r.find(id, string(m.FileName))
	if f == nil {
		return nil
	}
	if f.of > 0 && m.Packet == f.of && m.Total > 0 && m.Total < f.of {
		return f
	}
	if m = f.read(m); f.total != m.Total || f.came.has(uint32(m.Packet)) {
		return nil
	}
	return f
}

func (f *refusal) read(m codec.SendFile) codec.SendFile {
	return codec.Plan{Swapped: f.swapped}.Read(m)
}

// note puts a transfer into the list.
func (r *refusals) note(host Host, f refusal) {
	r.forget(host, f.id, f.name)
	if len(*r) >= maxRefused {
		oldest := (*r)[0]
		r.forget(host, oldest.id, oldest.name)
	}
	*r = append(*r, f)
}

func (r *refusals) forget(host Host, id codec.ClientID, name string) {
	kept := (*r)[:0]
	for _, f := range *r {
		if f.id == id && f.name == name {
			f.came.free(host)
		} else {
			kept = append(kept, f)
		}
	}
	clear((*r)[len(kept):])
	*r = kept
}

func (r *refusals) clear(host Host) {
	for i := range *r {
		(*r)[i].came.free(host)
	}
	*r = nil
}

// refusedFor tells what the client did wrong from what failed in the server.
func refusedFor(err error) bool {
	var f fault
	e := (*codec.Error)(nil)
	return errors.As(err, &e) || errors.As(err, &f) || errors.Is(err, storage.ErrPath) ||
		errors.Is(err, storage.ErrObstructed) || errors.Is(err, storage.ErrAlike)
}
