package session

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/aescbc"
)

// upload is a transfer under way: the packets of one file name on one
// connection. Content goes in filled buffers to its sink, one job at a time,
// in the order of the packets.
type upload struct {
	name    string // as the client sent it
	path    string // where it will be stored, see CleanPath
	plan    codec.Plan
	started time.Time

	based  bool   // plan.First is certain, see begin
	next   uint32 // number of the packet whose content is to be decrypted next
	offset int64  // bytes of ciphertext that went to the sink
	early  early

	fill     chunk   // being filled; without a buffer between two
	queue    []chunk // filled, waiting for the job that runs
	running  bool    // a job runs and owns sink
	complete bool    // all packets are in
	dropped  bool    // nobody wants it any more
	sink     *sink
	began    uint64 // where in the stream, see Session.begins

	// Of the packet that came last, which completes the transfer in the end:
	// whether it is of the later edition, and its Content Size.
	later   bool
	claimed uint32
}

// packet is the 1028 whose content is coming in.
type packet struct {
	u      *upload // nil: the content is passed over
	number uint32
	orig   uint32
	// For a packet before its turn: where its content goes.
	early *earlyPacket
	done  uint32 // bytes of its content that came
}

// receive begins a 1028, which had a code of the later edition or not. It returns
// false if the packet has to wait.
func (s *Session) receive(later bool, payload []byte, content uint32) bool {
	raw, err := codec.ParseSendFile(payload)
	name := string(raw.FileName)
	u := s.uploads[name]
	m := raw
	if u != nil {
		m = u.plan.Read(raw)
	}
	number := uint32(m.Packet)
	if err != nil { // the name is not one: m.FileName is empty
		if !s.refused.passOver(s.host, s.id, m) {
			s.turnDown(s.id, m, content, err)
		}
		return true
	}
	switch {
	case u == nil:
		if r, ok := s.received[name]; ok && !r.verified && surplus(r.plan, r.plan.Read(m), content) {
			return true
		}
		if s.refused.passOver(s.host, s.id, m) {
			return true
		}
		if s.crowded() {
			return false
		}
	case u.allIn():
		// What is not of this transfer is of the next one under the name, which
		// begins when this one is stored.
		return surplus(u.plan, m, content)
	case number == 0 && !u.based:
		u.based, u.plan.First, u.next = true, 0, 0
	case number == uint32(u.plan.First) && u.has(number):
		s.log().Info("transfer begins anew", s.fields(zap.String("file", u.name), zap.Int64("bytes", u.offset))...)
		s.drop(u)
		u = nil
	}
	if u == nil {
		if u, err = s.begin(name, raw, content); err != nil {
			s.turnDown(s.id, raw, content, err)
			return true
		}
		number = uint32(u.plan.Read(raw).Packet)
	} else if err := u.plan.Check(m, content); err != nil {
		s.failAt(u, number, m.Total, err)
		return true
	}
	if s.touched != u {
		s.flush()
		s.touched = u
	}
	u.later, u.claimed = later, m.ContentSize
	switch {
	case u.has(number): // came already
	case number == u.next && u.based:
		s.pkt = packet{u: u, number: number, orig: m.OrigSize}
	case u.replaying():
		// Let what is set aside catch up, rather than set aside more and more.
		return false
	case u.early.total+int64(content) > u.mostEarly(s.svc.MaxFileSize):
		s.fail(u, number, errTooLarge)
	default:
		p, ok := u.early.add(s.host, number, content, m.OrigSize)
		if !ok {
			s.fail(u, number, fault("no memory for packets that come before their turn"))
			return true
		}
		s.pkt = packet{u: u, number: number, orig: m.OrigSize, early: &p}
	}
	return true
}

// crowded reports whether the connection has as many transfers under way as it
// may, and one of them ends by itself.
func (s *Session) crowded() bool {
	if len(s.uploads) < s.svc.MaxUploads {
		return false
	}
	for _, u := range s.uploads {
		if u.allIn() {
			return true
		}
	}
	return false
}

// surplus reports whether a packet changes nothing for a transfer by that plan,
// all of whose packets came: it is one of them, but not the first, with which
// the transfer would begin anew, or the one past the last that some clients
// send.
func surplus(p codec.Plan, m codec.SendFile, content uint32) bool {
	if m.Total == p.Total && uint32(m.Packet) == p.Last()+1 {
		return true
	}
	return m.Packet != p.First && p.Check(m, content) == nil
}

// begin makes the upload of a packet that is the first to arrive. Whether the
// client counts from 0 or from 1 shows in the packets 0 and Total, and is taken
// for granted in packet 1; until then all packets count as early.
func (s *Session) begin(name string, m codec.SendFile, content uint32) (*upload, error) {
	switch {
	case s.draining:
		return nil, fault("the server is going down")
	case len(s.uploads) >= s.svc.MaxUploads:
		return nil, fault("too many transfers under way on the connection")
	}
	path, err := CleanPath(name)
	if err != nil {
		return nil, err
	}
	plan, err := codec.Infer(m, content)
	if err != nil {
		return nil, err
	}
	if plan.OrigSize > s.svc.MaxFileSize {
		return nil, errTooLarge
	}
	m = plan.Read(m)
	based := m.Packet <= 1
	if r := s.refused.find(s.id, name); r != nil && r.zero && m.Packet < m.Total {
		plan.First, based = 0, true
	}
	delete(s.received, name)
	s.refused.forget(s.host, s.id, name)
	u := &upload{
		name: name, path: path, plan: plan, started: s.last, began: s.begins,
		next: uint32(plan.First), based: based,
		sink: &sink{
			files: s.svc.Files, hint: plan.OrigSize, limit: s.svc.MaxFileSize,
			dec: aescbc.NewDecrypter(&s.key),
		},
	}
	if s.uploads == nil {
		s.uploads = make(map[string]*upload)
	}
	s.uploads[name] = u
	return u, nil
}

// has reports whether that packet is in, or coming in.
func (u *upload) has(number uint32) bool { return number < u.next || u.early.has(number) }

// allIn reports whether all packets came, be it before their turn.
func (u *upload) allIn() bool { return u.next+uint32(len(u.early.index)) > u.plan.Last() }

// replaying reports whether the turn of a packet that came early has come.
func (u *upload) replaying() bool { return u.based && u.early.has(u.next) }

// mostEarly is how many bytes of content may come before their turn, in a
// transfer whose sizes are true: what is put aside has not been held against
// them yet. The packets of a whole file make up its ciphertext, and the padding
// of the last is less than that.
func (u *upload) mostEarly(largestFile int64) int64 {
	if u.plan.Ciphertext < 0 {
		return largestFile + int64(u.plan.Total)*aescbc.BlockSize
	}
	return 2 * u.plan.Ciphertext
}

// room returns how many of the n bytes of content at hand can be taken now;
// 0 means wait.
func (s *Session) room(n int) int {
	u := s.pkt.u
	if u == nil {
		return n
	}
	if p := s.pkt.early; p != nil {
		if p.inArena {
			return n
		}
		return s.fillRoom(u, n, p.off+int64(s.pkt.done))
	}
	if left := u.left(); left == 0 {
		return n // padding, which is only looked at
	} else if left > 0 {
		n = int(min(int64(n), left))
	}
	return s.fillRoom(u, n, -1)
}

// left is how many bytes of ciphertext are still to come, -1 if nobody says.
func (u *upload) left() int64 {
	if u.plan.Ciphertext < 0 {
		return -1
	}
	return u.plan.Ciphertext - u.offset
}

// fillRoom makes sure that there is a buffer for content that goes to spill,
// or to be decrypted if spill is -1, and returns how much of n fits.
func (s *Session) fillRoom(u *upload, n int, spill int64) int {
	if f := &u.fill; f.buf != nil {
		follows := spill < 0 && f.spill < 0 || spill >= 0 && f.spill >= 0 && spill == f.spill+int64(f.n)
		if follows && len(f.free()) > 0 {
			return min(n, len(f.free()))
		}
		u.push()
		s.pump(u)
	}
	// Behind a job that runs there is time to gather; else this will do.
	size := int64(MaxBuffer)
	if left := u.left(); left >= 0 && spill < 0 {
		size = min(size, left+headroom)
	}
	if !u.running {
		size = min(size, int64(n+headroom))
	}
	size = 1 << bits.Len64(uint64(max(size, MinBuffer)-1))
	if s.held+int(size) > s.svc.Window {
		return 0
	}
	buf := s.host.Buffer(int(size))
	if buf == nil {
		return 0
	}
	s.held += len(buf)
	u.fill = chunk{buf: buf, spill: spill}
	return min(n, len(u.fill.free()))
}

// free is the part of the buffer that is not filled yet.
func (c *chunk) free() []byte { return c.buf[headroom+c.n:] }

// push puts the buffer that is being filled into the queue.
func (u *upload) push() {
	if u.fill.n > 0 {
		u.queue = append(u.queue, u.fill)
		u.fill = chunk{}
	}
}

// content takes a piece of the packet under way, no more than room allowed.
// last says that the packet ends with it.
func (s *Session) content(piece []byte, last bool) {
	u := s.pkt.u
	if u == nil {
		return
	}
	switch p := s.pkt.early; {
	case p != nil && p.inArena:
		u.early.arena = append(u.early.arena, piece...)
	case p == nil && u.left() == 0:
		if !allZero(piece) || s.pkt.number != u.plan.Last() {
			s.fail(u, s.pkt.number, errNotZero)
			return
		}
	default:
		s.gathered(u, copy(u.fill.free(), piece))
	}
	if last {
		s.endPacket(u)
	}
}

// gathered notes that n bytes of content have been put into the buffer that is
// being filled.
func (s *Session) gathered(u *upload, n int) {
	u.fill.n += n
	s.pkt.done += uint32(n)
	if s.pkt.early != nil {
		return
	}
	u.offset += int64(n)
	if u.left() == 0 {
		u.fill.ends = append(u.fill.ends, end{u.fill.n, u.plan.OrigSize})
	}
}

func (s *Session) endPacket(u *upload) {
	pkt := s.pkt
	s.pkt = packet{}
	if pkt.early == nil {
		if u.plan.Scheme == codec.PerPacket {
			u.fill.ends = append(u.fill.ends, end{u.fill.n, int64(pkt.orig)})
		}
		u.next++
	} else if pkt.number == u.plan.Last() {
		u.based = true
	}
	s.advance(u)
}

// flush passes on what has been gathered of the transfer that content came for
// last. A buffer in which nothing has been gathered goes back: a client that
// stops in the middle of a packet must not keep it from the others.
func (s *Session) flush() {
	u := s.touched
	if u == nil {
		return
	}
	s.pump(u)
	s.returnEmpty(u)
}

// returnEmpty gives back the buffer that is being filled if there is nothing in
// it.
func (s *Session) returnEmpty(u *upload) {
	if u.fill.buf != nil && u.fill.n == 0 {
		s.held -= len(u.fill.buf)
		s.host.Release(u.fill.buf)
		u.fill = chunk{}
	}
}

// advance looks whether the transfer is complete. It returns false if that
// made it fail.
func (s *Session) advance(u *upload) bool {
	if u.next <= u.plan.Last() || u.complete {
		return true
	}
	if u.left() > 0 {
		s.fail(u, u.next-1, fault("all packets are in, and the ciphertext is not whole"))
		return false
	}
	u.complete = true
	return true
}

// pump starts the next job of u, unless one runs or there is nothing to do.
func (s *Session) pump(u *upload) {
	if u.running || u.dropped {
		return
	}
	if len(u.queue) == 0 {
		u.push()
	}
	var c chunk
	var spans []span
	switch {
	case len(u.queue) > 0:
		c, u.queue = u.queue[0], u.queue[1:]
		if len(u.queue) == 0 {
			u.queue = nil
		}
	case u.replaying():
		var err error
		if spans, err = u.due(); err != nil {
			s.fail(u, u.next, err)
			return
		}
		if !s.advance(u) {
			return
		}
	case !u.complete:
		return
	}
	finish := u.complete && len(u.queue) == 0 && u.fill.n == 0
	err := errUnfinished
	u.running = true
	s.host.Do(Storage, func(ctx context.Context) {
		if c.buf != nil {
			defer s.host.Release(c.buf)
		}
		err = u.sink.job(ctx, &c, spans, finish)
	}, func() {
		u.running = false
		s.held -= len(c.buf)
		switch {
		case u.dropped:
			s.cleanup(u)
		case err != nil:
			s.fail(u, u.next-1, err)
		case finish:
			s.store(u)
		default:
			s.pump(u)
		}
	})
}

// due returns packets that came early and whose turn has come, about replaySize
// bytes of them or else one.
func (u *upload) due() (spans []span, err error) {
	for n := int64(0); n < replaySize && u.replaying(); u.next++ {
		p := u.early.index[u.next]
		sp := span{off: p.off, n: int64(p.size), orig: -1}
		if p.inArena {
			sp.mem = u.early.arena[p.off : p.off+int64(p.size)]
		}
		if left := u.left(); left < 0 {
			sp.ends, sp.orig = true, int64(p.orig)
		} else if sp.n >= left {
			if sp.n > left && u.next != u.plan.Last() {
				return nil, errNotZero
			}
			sp.pad = sp.n - left
			sp.n = left
			sp.ends, sp.orig = left > 0, u.plan.OrigSize
		}
		u.offset += sp.n
		n += sp.n + sp.pad
		spans = append(spans, sp)
		delete(u.early.index, u.next)
	}
	return spans, nil
}

// store records the complete file and sends its checksum.
func (s *Session) store(u *upload) {
	k := u.sink
	op := &PutFile{Outcome: s.outcome(), File: File{
		ID: s.id, FileName: u.name, Path: u.path, Incoming: k.out.Key(),
		Size: k.size, Cksum: k.sum.Sum32(), Received: s.host.Now(),
	}}
	lock := pathKey{op.File.ID, op.File.Path}
	u.running = true
	s.lock(lock, func() {
		if u.dropped {
			s.svc.locks.unlock(lock)
			s.cleanup(u)
			return
		}
		s.catchUp(lock, func(err error) {
			if err != nil {
				s.putFailed(u, lock, err)
				return
			}
			s.host.Apply(op, func(err error) {
				if err != nil {
					s.putFailed(u, lock, err)
					return
				}
				s.svc.awaiting.put(lock, &op.File)
				s.svc.locks.unlock(lock)
				u.running = false
				if op.Replaced != "" {
					s.discard(op.Replaced)
				}
				s.stored(u, &op.File)
			})
		})
	})
}

// putFailed ends a transfer that is whole, and that the registry did not take.
func (s *Session) putFailed(u *upload, lock pathKey, err error) {
	s.svc.locks.unlock(lock)
	u.running = false
	if u.dropped {
		s.cleanup(u)
		return
	}
	s.fail(u, u.plan.Last(), err)
}

func (s *Session) stored(u *upload, f *File) {
	u.early.free(s.host)
	if u.dropped { // the connection is gone; the file awaits its verdict on another one
		return
	}
	delete(s.uploads, u.name)
	if s.touched == u {
		s.touched = nil
	}
	if s.received == nil {
		s.received = make(map[string]receipt)
	}
	for name := range s.received {
		if len(s.received) < maxReceived {
			break
		}
		delete(s.received, name)
	}
	s.served(u.name)
	s.received[u.name] = receipt{incoming: f.Incoming, plan: u.plan}
	s.log().Info("received", s.fields(zap.String("file", u.name), zap.Int64("bytes", f.Size),
		zap.Duration("took", s.host.Now().Sub(u.started)), zap.Uint32("cksum", f.Cksum),
		zap.Stringer("scheme", u.plan.Scheme), zap.Uint16("packets", u.plan.Total))...)
	sum := f.Cksum
	if s.svc.Faults.strike("crc", 0) {
		s.sayFault("wrong checksum", codec.CodeSendFile)
		sum++
	}
	s.send(codec.FileReceived{
		ID: f.ID, ContentSize: u.contentSize(f.Size), FileName: []byte(u.name), Cksum: sum,
	}.Append(make([]byte, 0, 512)))
}

// contentSize is what the 1603 gives as Content Size for a file of size bytes.
// The documents of the later edition leave its meaning open, and its clients
// compare it with the Content Size that they sent last.
func (u *upload) contentSize(size int64) uint32 {
	if u.later {
		return u.claimed
	}
	return uint32(size)
}

// fail ends a transfer with a 1607. number is that of the packet at fault.
func (s *Session) fail(u *upload, number uint32, err error) {
	s.failAt(u, number, u.plan.Total, err)
}

// failAt is fail where the packet at fault may have another Total Packets than
// the transfer. The packets behind it have that, too.
func (s *Session) failAt(u *upload, number uint32, total uint16, err error) {
	// If packet 0 comes after packet 1 was taken for the first, then the client
	// counts from 0, and when the file comes again that is known.
	zero := number < uint32(u.plan.First) || u.plan.First == 0 && number <= u.plan.Last()
	f := refusal{id: s.id, name: u.name, total: total, zero: zero, swapped: u.plan.Swapped}
	ok := f.came.add(s.host, number)
	for n := uint32(u.plan.First); n < u.next && ok; n++ {
		ok = f.came.add(s.host, n)
	}
	for n := range u.early.index {
		ok = ok && f.came.add(s.host, n)
	}
	if s.pkt.u == u {
		ok = ok && f.came.add(s.host, s.pkt.number)
	}
	s.drop(u)
	if refusedFor(err) {
		err = fmt.Errorf("read as %v: %w", u.plan, err)
	}
	s.turned(f, ok, u.began, number, err)
}

// turnDown answers a packet that begins a transfer with 1607, and remembers not
// to do so again for the packets behind it. content is the size of its content.
func (s *Session) turnDown(id codec.ClientID, m codec.SendFile, content uint32, err error) {
	f := refusal{id: id, name: string(m.FileName)}
	if f.swapped = m.MaybeSwapped(content); f.swapped {
		m = f.read(m)
	}
	if f.total = m.Total; m.Total == 0 && m.Packet > 1 {
		f.of = m.Packet
	}
	// A number past Total is of no transfer: one that is right may follow.
	ok := (m.Packet <= m.Total || m.Total == 0) && f.came.add(s.host, uint32(m.Packet))
	s.turned(f, ok, s.begins, uint32(m.Packet), err)
}

// turned ends a refusal. remember is false if it is not to be kept.
func (s *Session) turned(f refusal, remember bool, began uint64, number uint32, err error) {
	if s.closed || !remember {
		f.came.free(s.host)
	} else {
		s.refused.note(s.host, f)
	}
	s.sayFailed(f.id, f.name, began, number, err)
}

// refusedFor tells what the client did wrong from what failed in the server.
func refusedFor(err error) bool {
	var f fault
	e := (*codec.Error)(nil)
	return errors.As(err, &e) || errors.As(err, &f) || errors.Is(err, ErrPath)
}

// drop ends a transfer without a word and removes what it left.
func (s *Session) drop(u *upload) {
	delete(s.uploads, u.name)
	if s.touched == u {
		s.touched = nil
	}
	u.dropped, s.ended = true, true
	if s.pkt.u == u {
		s.pkt = packet{}
	}
	u.push()
	for _, c := range u.queue {
		s.held -= len(c.buf)
		s.host.Release(c.buf)
	}
	u.queue = nil
	s.returnEmpty(u)
	if !u.running {
		s.cleanup(u)
	}
}

// cleanup removes what a dropped transfer left. No job of it runs.
func (s *Session) cleanup(u *upload) {
	u.early.free(s.host)
	if u.sink.out == nil && u.sink.scratch == nil {
		return
	}
	s.host.Do(Storage, func(ctx context.Context) {
		if err := u.sink.abandon(ctx); err != nil {
			s.log().Error("removing what a transfer left", zap.String("file", u.name), zap.Error(err))
		}
	}, nil)
}

// discard removes an incoming file that nobody refers to any more.
func (s *Session) discard(key string) {
	s.host.Do(Storage, func(ctx context.Context) {
		if err := s.svc.Files.Discard(ctx, key); err != nil {
			s.log().Error("removing an incoming file", zap.String("key", key), zap.Error(err))
		}
	}, nil)
}

// lock runs then on the session's goroutine when the session has the path. The
// session is not busy meanwhile; the caller unlocks.
func (s *Session) lock(k pathKey, then func()) {
	if s.svc.locks.lock(k, func() { s.host.Do(Compute, nil, then) }) {
		then()
	}
}
