package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/transfer"
)

const block = aescbc.BlockSize

var key = [aescbc.KeySize]byte{1, 2, 3}

// layout is how a client cuts a file into packets.
type layout struct {
	scheme codec.Scheme
	first  uint16
	filled bool // the last packet is filled up with zeros
}

func (l layout) String() string {
	return fmt.Sprint(l.scheme, " from ", l.first, ", filled ", l.filled)
}

var layouts = []layout{
	{codec.WholeFile, 1, false}, {codec.WholeFile, 0, false}, {codec.WholeFile, 1, true},
	{codec.PacketSize, 1, false}, {codec.PerPacket, 1, false}, {codec.PerPacket, 0, false},
}

// packet is a 1028.
type packet struct {
	number, orig uint32
	content      []byte
}

// packets are those of a file, size bytes of content each, and the plan of them.
func (l layout) packets(file []byte, size int) (codec.Plan, []packet) {
	plan := codec.Plan{Scheme: l.scheme, First: l.first, Ciphertext: int64(aescbc.CiphertextSize(int64(len(file)))), OrigSize: int64(len(file))}
	var all []packet
	add := func(content []byte, orig int) {
		all = append(all, packet{uint32(l.first) + uint32(len(all)), uint32(orig), content})
	}
	if l.scheme == codec.PerPacket {
		plan.Ciphertext, plan.OrigSize = -1, -1
		for p := range slices.Chunk(file, size) {
			add(encrypt(p), len(p))
		}
		if len(file) == 0 {
			add(encrypt(nil), 0)
		}
	} else {
		for p := range slices.Chunk(encrypt(file), size) {
			add(p, len(file))
		}
		if last := &all[len(all)-1]; l.filled {
			last.content = append(slices.Clone(last.content), make([]byte, size-len(last.content))...)
		}
	}
	plan.Total = uint16(len(all))
	return plan, all
}

func encrypt(plain []byte) []byte {
	n := block - len(plain)%block
	p := append(slices.Clone(plain), bytes.Repeat([]byte{byte(n)}, n)...)
	aescbc.NewEncrypter(&key).CryptBlocks(p, p)
	return p
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// memory grants what says so.
type memory struct {
	grants func(n int) bool // nil: all
	held   int
}

func (m *memory) Hold(n int) bool {
	if m.grants != nil && !m.grants(n) {
		return false
	}
	m.held += n
	return true
}

func (m *memory) Unhold(n int) { m.held -= n }

// caller does with a transfer what a session does: it takes packets, and works
// whenever it likes.
type caller struct {
	t      *testing.T
	tr     *transfer.Transfer
	files  *files
	memory *memory
	piece  func(n int) int // how many of the n bytes of a packet come at once
	buffer int             // bytes of content in one
	fill   transfer.Part
	queue  []transfer.Part
}

func newCaller(t *testing.T, plan codec.Plan, firstKnown bool) *caller {
	c := &caller{t: t, files: new(files), memory: new(memory), piece: func(n int) int { return n }, buffer: 1000}
	c.tr = transfer.New(transfer.Options{
		Plan: plan, FirstKnown: firstKnown, Key: &key, MaxSize: 1 << 30, Memory: c.memory, Files: c.files, Place: storage.Place{Path: "f"},
	})
	return c
}

// take takes one packet. What is blocked waits for work.
func (c *caller) take(p packet) error {
	turn, err := c.tr.Turn(p.number, uint32(len(p.content)))
	for ; err == nil && turn == transfer.Blocked; turn, err = c.tr.Turn(p.number, uint32(len(p.content))) {
		if err := c.work(); err != nil {
			return err
		}
	}
	if err != nil || turn == transfer.Repeated {
		return err
	}
	c.tr.Begin(p.number, uint32(len(p.content)), p.orig)
	for rest := p.content; len(rest) > 0; {
		n := c.piece(len(rest))
		switch c.tr.Place() {
		case transfer.Kept:
			c.tr.Keep(rest[:n])
		case transfer.Padding:
			if err := c.tr.CheckPadding(rest[:n]); err != nil {
				return err
			}
		default:
			n = c.room(n)
			copy(c.fill.Free(), rest[:n])
			if err := c.tr.Filled(&c.fill, n); err != nil {
				return err
			}
		}
		rest = rest[n:]
	}
	return nil
}

// room makes room for some of n bytes in the Part that is being filled.
func (c *caller) room(n int) int {
	if c.fill.Buf() == nil || !c.tr.Follows(&c.fill) {
		c.push()
		c.fill = c.tr.Part(make([]byte, transfer.Headroom+c.buffer))
	}
	return min(c.tr.Fits(n), len(c.fill.Free()))
}

func (c *caller) push() {
	if c.fill.Len() > 0 {
		c.queue = append(c.queue, c.fill)
	}
	c.fill = transfer.Part{}
}

// work writes all that there is.
func (c *caller) work() error {
	ctx := context.Background()
	c.push()
	for _, p := range c.queue {
		if err := c.tr.Write(ctx, &p); err != nil {
			return err
		}
	}
	c.queue = nil
	for c.tr.Behind() {
		due, err := c.tr.Due()
		if err == nil {
			err = c.tr.CatchUp(ctx, due)
		}
		if err == nil {
			err = c.tr.CaughtUp(due)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// all takes packets, works, and finishes.
func (c *caller) all(packets []packet) error {
	for _, p := range packets {
		if err := c.take(p); err != nil {
			return err
		}
	}
	if err := c.work(); err != nil {
		return err
	}
	if !c.tr.Complete() {
		return errors.New("not complete")
	}
	return c.tr.Finish(context.Background())
}

// came checks that the transfer knows which packets came.
func (c *caller) came(packets []packet) {
	c.t.Helper()
	var want []uint32
	for _, p := range packets {
		want = append(want, p.number)
	}
	slices.Sort(want)
	if got := slices.Sorted(c.tr.Came()); !slices.Equal(got, want) {
		c.t.Fatalf("%d packets came, want %d, or they are others", len(got), len(want))
	}
}

// received checks that the transfer brought the file, and holds nothing else.
func (c *caller) received(file []byte) {
	c.t.Helper()
	got := c.tr.Received()
	if want := (transfer.Received{Key: got.Key, Size: int64(len(file)), Cksum: cksum.Checksum(file)}); got != want {
		c.t.Errorf("received %v, want %v", got, want)
	}
	if !bytes.Equal(c.files.incoming[got.Key], file) {
		c.t.Error("the incoming file has other content")
	}
	c.tr.Forget()
	if c.memory.held != 0 || c.files.open != 0 {
		c.t.Errorf("%d bytes of memory are held, %d files open", c.memory.held, c.files.open)
	}
}

// TestAnyOrder: whatever the layout, the order of the packets, the pieces in which
// they come, the memory that there is, and when work is done, the file is the same.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(600) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := layouts[r.IntN(len(layouts))]
		file := random(seed, []int{0, 1, 15, 16, 17, 4000, 300_000}[r.IntN(7)])
		size := []int{1, 16, 100, 1000, 70_000}[r.IntN(5)]
		if len(file)/size > 5000 {
			size = 1000
		}
		t.Run(fmt.Sprint(seed, " ", l, " ", len(file), " in ", size), func(t *testing.T) {
			plan, packets := l.packets(file, size)
			shuffled := r.IntN(2) == 0
			if shuffled {
				r.Shuffle(len(packets), func(i, j int) { packets[i], packets[j] = packets[j], packets[i] })
			}
			c := newCaller(t, plan, true)
			c.buffer = []int{1, 40, 1000, 100_000}[r.IntN(4)]
			if len(file) > 100_000 {
				c.buffer = 100_000
			}
			c.piece = func(n int) int { return 1 + r.IntN(n) }
			switch r.IntN(3) {
			case 0:
				c.memory.grants = func(int) bool { return false }
			case 1:
				c.memory.grants = func(int) bool { return r.IntN(2) == 0 }
			}
			for i, p := range packets {
				if c.tr.AllIn() {
					t.Fatalf("all in after %d of %d packets", i, len(packets))
				}
				if err := c.take(p); err != nil {
					t.Fatal(err)
				}
				if r.IntN(len(packets)) < 3 {
					c.came(packets[:i+1])
					if err := c.work(); err != nil {
						t.Fatal(err)
					}
					c.came(packets[:i+1])
				}
				if again, err := c.tr.Turn(p.number, uint32(len(p.content))); again != transfer.Repeated || err != nil {
					t.Fatalf("a packet that is in: %d, %v", again, err)
				}
			}
			if !c.tr.AllIn() {
				t.Error("not all in")
			}
			c.came(packets)
			if err := c.all(nil); err != nil {
				t.Fatal(err)
			}
			c.received(file)
		})
	}
}

// TestFirstNumber: until it is certain whether the client counts from 0 or from 1,
// packets are put aside; then they have their turn.
func TestFirstNumber(t *testing.T) {
	file := random(1, 500)
	for _, first := range []uint16{0, 1} {
		l := layout{scheme: codec.WholeFile, first: first}
		plan, packets := l.packets(file, 100)
		plan.First = 1 // as it is read from any packet but the one with the number 0
		c := newCaller(t, plan, false)
		for _, i := range []int{2, 3, 1, 4, 0, 5}[:6] {
			if i >= len(packets) {
				continue
			}
			p := packets[i]
			if p.number == 0 {
				c.tr.CountFromZero()
			}
			if err := c.take(p); err != nil {
				t.Fatal(err)
			}
		}
		if first == 1 && !c.tr.FirstKnown() {
			t.Error("packet Total came, and it is not known that the client counts from 1")
		}
		if err := c.all(nil); err != nil {
			t.Fatal(err)
		}
		c.received(file)
	}
}

// TestTurns: what a packet is to its transfer.
func TestTurns(t *testing.T) {
	plan, packets := layout{scheme: codec.WholeFile, first: 1}.packets(random(1, 1000), 100)
	c := newCaller(t, plan, true)
	is := func(i int, want transfer.Turn) {
		t.Helper()
		if got, err := c.tr.Turn(packets[i].number, 100); got != want || err != nil {
			t.Errorf("packet %d is %d (%v), want %d", packets[i].number, got, err, want)
		}
	}
	take := func(i int) {
		t.Helper()
		if err := c.take(packets[i]); err != nil {
			t.Fatal(err)
		}
	}
	is(0, transfer.Next)
	is(1, transfer.Early)
	take(1)
	is(1, transfer.Repeated)
	is(3, transfer.Early)
	take(0) // the turn of packet 2 has come
	is(0, transfer.Repeated)
	is(2, transfer.Blocked)
	is(3, transfer.Blocked)
	if err := c.work(); err != nil {
		t.Fatal(err)
	}
	is(2, transfer.Next)
	is(3, transfer.Early)
	if _, err := c.tr.Turn(packets[3].number, 10_000); err != transfer.ErrTooLarge {
		t.Errorf("more early than the file can have: %v", err)
	}
}

// TestEndsAreBounded: where each packet is encrypted by itself, and as small as can be,
// a Part takes so many of them that what it notes of each is little beside its buffer.
func TestEndsAreBounded(t *testing.T) {
	file := random(1, 30_000)
	plan, packets := layout{scheme: codec.PerPacket, first: 1}.packets(file, block-1)
	c := newCaller(t, plan, true)
	c.buffer = 16 << 10
	for _, p := range packets {
		if err := c.take(p); err != nil {
			t.Fatal(err)
		}
	}
	c.push()
	for _, p := range c.queue {
		if n := p.Len() / block; n > len(p.Buf())/100 {
			t.Errorf("%d packets in a buffer of %d bytes", n, len(p.Buf()))
		}
	}
	if err := c.all(nil); err != nil {
		t.Fatal(err)
	}
	c.received(file)
}
