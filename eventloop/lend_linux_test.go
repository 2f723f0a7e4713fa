package eventloop

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/internal/testpeer"
	"sealift/session"
)

// rawPeer is a client that sends the bytes that a test wants, on a connection on which
// it has exchanged keys.
type rawPeer struct {
	testpeer.Conn
	t testing.TB
}

// rawPeer logs in on c.
func (r *running) rawPeer(c net.Conn, name string) *rawPeer {
	r.t.Helper()
	b := &rawPeer{t: r.t}
	b.Name, b.Pair = name, testpeer.SharedPair(0)
	if _, plain := c.(*net.TCPConn); plain {
		c = wrapped(c)
	}
	b.Use(c)
	if err := b.Enter(); err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (b *rawPeer) write(p []byte) {
	b.t.Helper()
	if err := b.Send(p); err != nil {
		b.t.Fatal(err)
	}
}

// reply reads the next reply, which must have that code, and returns its payload.
func (b *rawPeer) reply(code codec.Code) []byte {
	b.t.Helper()
	payload, err := b.Want(code)
	if err != nil {
		b.t.Fatal(err)
	}
	return payload
}

// packets are those of a file in packets of size bytes, each whole.
func (b *rawPeer) packets(name string, content []byte, size int) (all [][]byte) {
	for _, k := range b.File(name, content).Packets(testpeer.Spec, size) {
		all = append(all, k.Bytes())
	}
	return all
}

// received reads a 1603 and sends the 1029 for it.
func (b *rawPeer) received(name string, content []byte) {
	b.t.Helper()
	err := b.ReceivedAs(name, int64(len(content)), cksum.Checksum(content))
	if err == nil {
		err = b.Confirm(name)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// loaned is how many loans there were.
func (r *running) loaned() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loans
}

// incoming is how many files are in .incoming.
func (r *running) incoming() int {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, "files", ".incoming", "*", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(files)
}

// written is how many bytes the files in .incoming have.
func (r *running) written() (n int64) {
	r.t.Helper()
	names, err := filepath.Glob(filepath.Join(r.dir, "files", ".incoming", "*", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			n += info.Size()
		}
	}
	return n
}

// wasLent asserts that there were loans, unless the loop waits instead.
func (r *running) wasLent() {
	r.t.Helper()
	if n := r.loaned(); (n == 0) != waits {
		r.t.Errorf("there were %d loans", n)
	}
}

// Packets of all sizes are lent, in a row, mixed with those of another file, and
// with other requests right behind them.
func TestContentIsLent(t *testing.T) {
	one, two, small := random(3<<20+5), random(2<<20), random(1000)
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20, 4 << 20} {
		for _, memory := range []int64{minMemoryBudget, DefaultMemoryBudget} {
			t.Run(fmt.Sprintf("%d bytes, %d of memory", size, memory), func(t *testing.T) {
				r := start(t, func(o *Options, _ *session.Config) { o.MemoryBudget = memory })
				b := r.rawPeer(r.raw(), "sender")
				a, c := b.packets("one", one, size), b.packets("two", two, size)
				var stream []byte
				for i := range max(len(a), len(c)) { // turn by turn
					if i < len(a) {
						stream = append(stream, a[i]...)
					}
					if i < len(c) {
						stream = append(stream, c[i]...)
					}
				}
				stream = append(stream, b.packets("small", small, 600)[0]...)
				b.write(stream)
				got := map[string]bool{}
				for range 2 {
					m, err := codec.ParseFileReceived(b.reply(codec.CodeFileReceived))
					if err != nil {
						t.Fatal(err)
					}
					got[fmt.Sprintf("%s %08x", m.FileName, m.Cksum)] = true
				}
				if !got[fmt.Sprintf("one %08x", cksum.Checksum(one))] || !got[fmt.Sprintf("two %08x", cksum.Checksum(two))] {
					t.Fatalf("1603s %v", got)
				}
				b.write(b.packets("small", small, 600)[1])
				b.received("small", small)
				r.stored(b.ID, "small", small)
				r.wasLent()
			})
		}
	}
}

// Connections that are reset in the middle of their content, again and again, so
// that the numbers of their descriptors soon are others', harm no other transfer,
// and leave nothing.
func TestResetsWhileLent(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.Loops = 2 })
	content := random(2 << 20)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			b := r.rawPeer(r.raw(), fmt.Sprint("rude ", i))
			stream := slices.Concat(b.packets("f", content, 64<<10)...)
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				nc, err := net.Dial("tcp", r.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				// Resumed under the id alone, and cut off somewhere.
				_, _ = nc.Write(stream[:1+(n*77_777+i*1_000_003)%len(stream)])
				_ = nc.(*net.TCPConn).SetLinger(0)
				_ = nc.Close()
			}
		})
	}
	honest := make(chan error, 4)
	for i := range cap(honest) {
		go func() {
			c, err := r.dial(fmt.Sprint("honest ", i))
			for n := 0; n < 20 && err == nil; n++ {
				name := fmt.Sprint("file ", n)
				if _, err = c.Send(context.Background(), name, bytes.NewReader(content), int64(len(content))); err == nil {
					r.stored(c.Identity().ID, name, content)
				}
			}
			if c != nil {
				_ = c.Close()
			}
			honest <- err
		}()
	}
	for range cap(honest) {
		if err := <-honest; err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if n := r.incoming(); n > 0 {
		t.Errorf("%d files are left in .incoming", n)
	}
	r.wasLent()
	if r.budget.rests != newBudget(DefaultMemoryBudget, r.slots).rests {
		t.Error("not all that was counted as rest came back")
	}
}

// The end of the server, with more and more content coming in, cuts it at the end
// of the drain. What is left of it is on record as a partial file.
func TestDrainCutsWhatIsLent(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.DrainTimeout = 100 * time.Millisecond })
	begun := make(chan struct{})
	var wg sync.WaitGroup
	var ids []codec.ClientID
	for i := range 4 {
		b := r.rawPeer(r.raw(), fmt.Sprint("endless ", i))
		ids = append(ids, b.ID)
		head := codec.SendFile{ContentSize: 3 << 30, OrigSize: 3<<30 - 1, Packet: 1, Total: 1, FileName: []byte("f")}
		b.write(head.Append(nil, b.ID, 3<<30))
		wg.Go(func() {
			chunk := make([]byte, 1<<20)
			_, err := b.Net.Write(chunk)
			for <-begun; err == nil; {
				_, err = b.Net.Write(chunk)
			}
		})
	}
	for r.incoming() < 4 {
		time.Sleep(time.Millisecond) // nothing else tells that content has begun to flow
	}
	close(begun)
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	kept := 0
	for _, id := range ids {
		if r.partial(id, "f") != nil {
			kept++
		}
	}
	if n := r.incoming(); n != kept {
		t.Errorf("%d files are left in .incoming, and %d are on record", n, kept)
	}
}

// While replies wait for a client that does not read them nothing is lent, and its
// content arrives all the same.
func TestRepliesThatWaitWhileContentFlows(t *testing.T) {
	r := start(t, littleInKernel)
	b := r.rawPeer(r.deaf(), "deaf")
	content := random(3 << 20)
	request := codec.Verdict{Code: codec.CodeAbort, FileName: []byte("no such file")}.Append(nil, b.ID)
	const requests = 3000
	written := make(chan error, 1)
	go func() {
		_, err := b.Net.Write(slices.Concat(bytes.Repeat(request, requests), slices.Concat(b.packets("f", content, 50_000)...)))
		written <- err
	}()
	for range requests {
		b.reply(codec.CodeAck)
	}
	b.received("f", content)
	if err := <-written; err != nil {
		t.Error(err)
	}
	r.stored(b.ID, "f", content)
}

// A client that sends many requests behind content, and reads none of the replies
// before all are on their way, gets each of them, and they take little memory until
// then.
func TestManyRequestsBehindContent(t *testing.T) {
	r := start(t, littleInKernel)
	b := r.rawPeer(r.raw(), "late")
	content := random(8 << 20)
	all := b.packets("f", content, 4<<20)
	first, last := all[0][:2<<20], all[0][2<<20:]
	b.write(first)
	for r.written() < 2<<20-4096 {
		time.Sleep(time.Millisecond) // nothing else tells how much has been read
	}
	busy := make(chan struct{}) // workers, so that the requests are read in one piece
	for range r.slots {
		r.bulk.submit(turn{}, func() { <-busy })
	}
	const requests = 60_000
	stream := slices.Concat(last, bytes.Repeat(codec.RequestHeader{ID: b.ID, Version: codec.Version, Code: 999}.Append(nil), requests), all[1], all[2])
	written := make(chan error, 1)
	go func() {
		_, err := b.Net.Write(stream[:1<<20])
		close(busy)
		if err == nil {
			_, err = b.Net.Write(stream[1<<20:])
		}
		written <- err
	}()
	for range requests {
		b.reply(codec.CodeError)
	}
	b.received("f", content)
	if err := <-written; err != nil {
		t.Error(err)
	}
	r.stored(b.ID, "f", content)
}

// A server that has given up waiting for work lends nothing more, or gnet would close
// sockets that workers read from.
func TestNothingIsLentAtTheEnd(t *testing.T) {
	r := start(t, nil)
	b := r.rawPeer(r.raw(), "late")
	r.giveUp()
	content := random(3 << 20)
	go func() { _, _ = b.Net.Write(slices.Concat(b.packets("f", content, 1<<20)...)) }()
	b.reply(codec.CodeError)
	if n := r.loaned(); n != 0 {
		t.Errorf("%d loans", n)
	}
}

// Workers read ahead however many cores there are, and no more than can be kept.
func TestReadAhead(t *testing.T) {
	for _, slots := range []int64{1, 2, 8, 32} {
		b := newBudget(DefaultMemoryBudget, int(slots))
		if n := b.ahead(); n < 64<<10 || n*slots > b.rests {
			t.Errorf("%d bytes for each of %d", n, slots)
		}
		b.keep(b.rests)
		if n := b.ahead(); n != 0 {
			t.Errorf("%d bytes, and there is no room", n)
		}
	}
}

// What follows content is answered although the worker has read it: also the message
// that ends the connection.
func TestTheLastReplyBehindContent(t *testing.T) {
	r := start(t, nil)
	b := r.rawPeer(r.raw(), "out of step")
	packets := b.packets("f", random(3<<20), 1<<20)
	bad := codec.RequestHeader{ID: b.ID, Version: 3, Code: codec.CodeRegister, PayloadSize: 1 << 30}.Append(nil)
	b.write(slices.Concat(packets[0], packets[1], bad))
	if got := readAll(t, b.Net); !bytes.Equal(got, errorReply) {
		t.Errorf("got % x, want a 1607", got)
	}
	r.wasLent()
}

// conn is the only connection of the server, which has one loop.
func (r *running) conn() (found *conn) {
	r.t.Helper()
	seen := make(chan struct{})
	r.mu.Lock()
	for _, lp := range r.loops {
		lp.post(func() {
			for c := range lp.conns {
				found = c
			}
			close(seen)
		})
	}
	r.mu.Unlock()
	<-seen
	return found
}

// What comes up for a connection that stands in line does not wait for its turn.
func TestANoteForAConnectionInLine(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.Loops = 1 })
	b := r.rawPeer(r.raw(), "in line")
	busy := make(chan struct{}) // workers
	for range r.slots {
		r.bulk.submit(turn{}, func() { <-busy })
	}
	content := random(2 << 20)
	packets := b.packets("f", content, 1<<20)
	b.write(packets[0])
	c := r.conn()
	loans := 0
	if !waits {
		loans = 4 // one, and one again after each note
		for r.loaned() == 0 {
			time.Sleep(time.Millisecond) // nothing else tells that it is lent
		}
	}
	for range 3 {
		ran := make(chan bool)
		c.post(func() { ran <- c.lent() })
		if <-ran {
			t.Error("a note runs while the connection is lent")
		}
	}
	r.conn() // when the loop has come to this, it is through with the last note
	if n := r.loaned(); n != loans {
		t.Errorf("%d loans, want %d", n, loans)
	}
	close(busy)
	for _, p := range packets[1:] {
		b.write(p)
	}
	b.received("f", content)
	r.stored(b.ID, "f", content)
}

// Notes for a connection that is lent and given back all the time all run, and on
// the loop.
func TestNotesWhileContentFlows(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.Loops = 1 })
	b := r.rawPeer(r.raw(), "busy")
	c := r.conn()
	content := random(64 << 20)
	over := make(chan struct{})
	ran := make(chan int)
	go func() {
		n := 0
		defer func() { ran <- n }()
		for note := make(chan bool); ; n++ {
			select {
			case <-over:
				return
			default:
			}
			c.post(func() { note <- c.lent() })
			if <-note {
				t.Error("a note runs while the connection is lent")
			}
		}
	}()
	for _, p := range b.packets("f", content, 1<<20) {
		b.write(p)
	}
	b.received("f", content)
	close(over)
	if n := <-ran; n < 10 {
		t.Errorf("%d notes", n)
	}
	r.stored(b.ID, "f", content)
	r.wasLent()
}

// A hand-over by a goroutine that is not the owner is a fault.
func TestAHandOverByAnother(t *testing.T) {
	for _, from := range []owner{byLoop, inLine, byWorker} {
		for _, by := range []owner{byLoop, inLine, byWorker} {
			func() {
				c := new(conn)
				c.owner.Store(uint32(from))
				defer func() {
					if panicked := recover() != nil; panicked != (by != from) {
						t.Errorf("owner %d, handed over by %d: panic %v", from, by, panicked)
					}
				}()
				c.hand(by, byLoop)
			}()
		}
	}
}
