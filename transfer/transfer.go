// Package transfer is one file on its way: from the first of its packets to a
// complete incoming file with a size and a checksum. It puts packets in order,
// decrypts their content, sums it, and writes it to a store. It knows no
// connection, no replies, and nobody's memory but what its caller lends it.
//
// What its caller does, in short:
//
//	t := transfer.New(options)
//	for each packet {
//		turn, err := t.Turn(number, size) // decides, and changes nothing
//		t.Begin(number, size, orig)       // if its turn is Next or Early
//		for each piece of its content {
//			switch t.Place() { … }        // into a Part, to Keep, or to CheckPadding
//		}
//	}
//
// and, as content comes in,
//
//	t.Write(ctx, &part)      // each Part
//	for t.Behind() {         // packets that came early have their turn
//		due, err := t.Due()
//		t.CatchUp(ctx, due)
//		t.CaughtUp(due)
//	}
//	t.Finish(ctx)            // when it is Complete and all is written
//
// Two goroutines may do that: the owner, who takes packets, and a worker, who does
// what waits for a disk. Write, CatchUp, Finish, Park and Abandon are the worker's, one at
// a time and in order. All other methods are the owner's, also while the worker is
// at work, but for those that say otherwise.
//
// Buffers belong to the caller. A Part aliases its buffer, which Write changes and
// does not keep. Keep copies.
package transfer

import (
	"iter"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/storage"
)

// Offence is what is wrong with a transfer where nothing in the server failed.
type Offence string

func (o Offence) Error() string { return string(o) }

// What is wrong with what a client sent.
const (
	ErrPadding  = Offence("the content does not decrypt: wrong key or damaged")
	ErrOrigSize = Offence("the decrypted size is not the Orig File Size")
	ErrNotWhole = Offence("all packets are in, and the ciphertext is not whole")
	ErrTooLarge = Offence("the file is larger than the server takes")
	ErrNotZero  = Offence("bytes past the Content Size are not zero")
)

// Memory is asked before a transfer keeps packets in memory that came before
// their turn. The owner calls it.
type Memory interface {
	// Hold reports whether n bytes more may be kept. If not, the scratch room takes
	// them.
	Hold(n int) bool
	// Unhold gives back n bytes that Hold granted.
	Unhold(n int)
}

// Options are what a transfer begins with.
type Options struct {
	Plan codec.Plan
	// FirstKnown: it is certain that the first packet has the number Plan.First.
	FirstKnown bool
	Key        *[aescbc.KeySize]byte // it is copied
	MaxSize    int64                 // bytes, the largest file
	Memory     Memory

	// For storage.Files.Create.
	Files storage.Files
	Place storage.Place

	// Of a transfer that is a part of its file, see Segment; nil: it is the whole of it.
	Segment *Segment
}

// Segment says which part of its file a transfer brings: what begins at Offset. MaxSize of
// its Options counts from the beginning of the file, as Received and Written do.
type Segment struct {
	Key    string // of the incoming file, which is closed and has Offset bytes or more; not used where Offset is 0
	Offset int64
	State  uint32 // of the checksum of the first Offset bytes, see cksum.Resume
	Total  int64  // bytes of the whole file
}

// Transfer is one file on its way.
type Transfer struct {
	// The owner's.
	plan       codec.Plan
	firstKnown bool
	next       uint32 // number of the packet whose content is to be decrypted next
	offset     int64  // bytes of ciphertext before what comes next in order
	arrived    int64  // bytes of content that came, early or not
	early      early
	packet     packet
	complete   bool
	memory     Memory
	maxSize    int64

	sink sink // the worker's
}

// packet is the one whose content is coming in.
type packet struct {
	number uint32
	size   uint32 // bytes of its content
	done   uint32 // of these, how many came
	orig   uint32 // its Orig File Size
	early  *earlyPacket
}

// New begins a transfer. Nothing is created in the store before content is written.
func New(o Options) *Transfer {
	t := &Transfer{
		plan: o.Plan, firstKnown: o.FirstKnown, next: uint32(o.Plan.First),
		memory: o.Memory, maxSize: o.MaxSize,
		sink: sink{
			files: o.Files, place: o.Place, announced: announced(o.Plan), maxSize: o.MaxSize,
			dec: aescbc.NewDecrypter(o.Key),
		},
	}
	if g := o.Segment; g != nil {
		t.sink.announced = storage.Announce(g.Total)
		if g.Offset > 0 {
			t.sink.reopened = g.Key
			t.sink.size, t.sink.sum = g.Offset, cksum.Resume(g.State, uint64(g.Offset))
		}
	}
	return t
}

// announced is the size that the packets' layout tells, if it does.
func announced(p codec.Plan) storage.Announced {
	if p.OrigSize < 0 {
		return storage.Announced{}
	}
	return storage.Announce(p.OrigSize)
}

// Plan is how the packets are laid out.
func (t *Transfer) Plan() codec.Plan { return t.plan }

// FirstKnown reports whether it is certain that the client counts from Plan.First:
// a packet 0 shows that it counts from 0, the packet with the number Total that it
// counts from 1. Until one of them, or a packet 1 that comes first, arrives, every
// packet is early.
func (t *Transfer) FirstKnown() bool { return t.firstKnown }

// CountFromZero says that the client counts from 0.
func (t *Transfer) CountFromZero() { t.plan.First, t.next, t.firstKnown = 0, 0, true }

// Turn is what a packet is to its transfer.
type Turn uint8

const (
	Next     Turn = iota // its content is the next to be decrypted
	Early                // others come before it: it is put aside
	Repeated             // it came already, or is coming in
	Blocked              // early, and what was put aside has to catch up first, or ever more would be put aside
)

// Turn says what a packet of size bytes is to the transfer. It fails if more comes
// early than a file of the announced sizes has. It changes nothing.
func (t *Transfer) Turn(number, size uint32) (Turn, error) {
	switch {
	case t.Has(number):
		return Repeated, nil
	case number == t.next && t.firstKnown:
		return Next, nil
	case t.Behind():
		return Blocked, nil
	case t.early.total+int64(size) > t.mostEarly():
		return Early, ErrTooLarge
	}
	return Early, nil
}

// mostEarly is how many bytes of content may come before their turn, in a
// transfer whose sizes are true. Content that was put aside has not been checked
// against the announced sizes yet. The packets of a whole file make up its
// ciphertext, and the padding of the last is less than that.
func (t *Transfer) mostEarly() int64 {
	if t.plan.Ciphertext < 0 {
		return t.maxSize + int64(t.plan.Total)*aescbc.BlockSize
	}
	return 2 * t.plan.Ciphertext
}

// Has reports whether that packet is in, or coming in.
func (t *Transfer) Has(number uint32) bool { return number < t.next || t.early.has(number) }

// AllIn reports whether all packets came, early ones too.
func (t *Transfer) AllIn() bool { return t.next+t.early.count() > t.plan.Last() }

// Came yields the numbers of the packets that came, in any order. It looks at these
// alone: whoever announces 65,535 packets and sends two may do so often.
func (t *Transfer) Came() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for n := uint32(t.plan.First); n < t.next; n++ {
			if !yield(n) {
				return
			}
		}
		for n := range t.early.numbers() {
			if n >= t.next && !yield(n) {
				return
			}
		}
	}
}

// Left is how many bytes of ciphertext are still to come in order. known is false if
// nobody says how many there are in all.
func (t *Transfer) Left() (n int64, known bool) {
	return t.plan.Ciphertext - t.offset, t.plan.Ciphertext >= 0
}

// PacketsLeft is how many packets have not had their turn, the one under way too.
func (t *Transfer) PacketsLeft() int64 { return max(0, int64(t.plan.Last())+1-int64(t.next)) }

// Offset is how many bytes of ciphertext came in order.
func (t *Transfer) Offset() int64 { return t.offset }

// Arrived is how many bytes of content came, early or not.
func (t *Transfer) Arrived() int64 { return t.arrived }

// Complete reports whether all packets have had their turn. What is left to do is
// to write what is in Parts, and to Finish.
func (t *Transfer) Complete() bool { return t.complete }

// NextNumber is the number of the packet whose turn it is, or of the last packet.
func (t *Transfer) NextNumber() uint32 { return min(t.next, t.plan.Last()) }

// Current is the number of the packet that the worker was at last, or nearly so.
func (t *Transfer) Current() uint32 { return max(t.next, uint32(t.plan.First)+1) - 1 }

// Begin says that the content of a packet comes next: size bytes of it. Its Turn is
// Next or Early. orig is its Orig File Size.
func (t *Transfer) Begin(number, size, orig uint32) {
	t.packet = packet{number: number, size: size, orig: orig}
	if number != t.next || !t.firstKnown {
		t.packet.early = t.setAside(number, size, orig)
	}
}

// Number is that of the packet that began last.
func (t *Transfer) Number() uint32 { return t.packet.number }

// Place is where the next content of the packet under way goes.
type Place uint8

const (
	InOrder Place = iota // into a Part, to be decrypted
	Aside                // into a Part, and from there to the scratch room
	Kept                 // to Keep, which has memory for it
	Padding              // to CheckPadding: the ciphertext has ended
)

// Place says where the next content goes.
func (t *Transfer) Place() Place {
	switch e := t.packet.early; {
	case e != nil && e.kept:
		return Kept
	case e != nil:
		return Aside
	}
	if left, known := t.Left(); known && left == 0 {
		return Padding
	}
	return InOrder
}

// Fits is how many of n bytes of the packet under way go to the Place that is next.
func (t *Transfer) Fits(n int) int {
	if left, known := t.Left(); t.Place() == InOrder && known {
		n = int(min(int64(n), left))
	}
	return n
}

// Keep takes a copy of p, content whose Place is Kept.
func (t *Transfer) Keep(p []byte) {
	t.early.arena = append(t.early.arena, p...)
	t.arrived += int64(len(p))
	t.packet.done += uint32(len(p))
	t.endEarly()
}

// CheckPadding looks at p, content whose Place is Padding: the packet is filled up.
func (t *Transfer) CheckPadding(p []byte) error {
	if !allZero(p) || t.packet.number != t.plan.Last() {
		return ErrNotZero
	}
	t.packet.done += uint32(len(p))
	return t.endInOrder()
}

// endEarly ends the packet under way if it has all its content.
func (t *Transfer) endEarly() {
	if t.packet.done == t.packet.size && t.packet.number == t.plan.Last() {
		t.firstKnown = true
	}
}

// endInOrder is endEarly for a packet that came in its turn.
func (t *Transfer) endInOrder() error {
	if t.packet.done < t.packet.size {
		return nil
	}
	t.next++
	return t.advance()
}

// advance notes whether the transfer is complete.
func (t *Transfer) advance() error {
	if t.next <= t.plan.Last() || t.complete {
		return nil
	}
	if left, known := t.Left(); known && left > 0 {
		return ErrNotWhole
	}
	t.complete = true
	return nil
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
