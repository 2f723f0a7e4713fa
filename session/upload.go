package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/storage"
)

// upload is a transfer under way: the packets of one file name on one
// connection. Content goes in filled buffers to its sink, one job at a time,
// in the order of the packets.
type upload struct {
	name string // as the client sent it
	path string // where it will be stored, see CleanPath
	plan codec.Plan
	// guarded is the AES key, if all that the client showed for it was its id.
	guarded *aesKey
	started time.Time
	serial  uint64 // counts the transfers of the session

	// tentative is a transfer of a name whose 1603 was sent, before its first
	// packet has come: its packets may just as well be late repetitions. It takes
	// nothing away from the file that the 1603 was about.
	tentative bool

	based  bool   // plan.First is certain, see begin
	next   uint32 // number of the packet whose content is to be decrypted next
	offset int64  // bytes of ciphertext that went to the sink
	early  early

	arrived int64 // bytes of content that came, early or not
	counted int64 // what they count for MaxUnverified

	fill     chunk   // being filled; without a buffer between two
	queue    []chunk // filled, waiting for the job that runs
	running  bool    // a job runs and owns sink
	complete bool    // all packets are in
	dropped  bool    // nobody wants it any more
	sink     *sink
	began    uint64 // where in the stream, see Session.begins
	leave    func() // for leaveAlike; nil if there is nothing to leave

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
	if u != nil && u.tentative {
		switch {
		case pastLast(u.plan, m):
			return true
		case u.plan.Check(m, content) != nil:
			if _, err := codec.Infer(raw, content); err != nil {
				s.failAt(u, number, m.Total, err)
				return true
			}
			s.drop(u) // the file comes again in another shape
			u, m, number = nil, raw, uint32(raw.Packet)
		case number == uint32(u.plan.First):
			if err := s.affirm(u); err != nil {
				s.fail(u, number, err)
				return true
			}
		}
	}
	switch {
	case u == nil:
		if s.refused.passOver(s.host, s.id, m) {
			return true
		}
		r, known := s.received[name]
		again := r.plan.Read(raw)
		if known && pastLast(r.plan, again) {
			return true
		}
		if s.crowded() {
			return false
		}
		if known && again.Packet != r.plan.First && r.plan.Check(again, content) == nil {
			if u = s.suppose(name, r.plan); u == nil {
				return true
			}
			m, number = again, uint32(again.Packet)
		}
	case u.allIn():
		// What is not the packet past the last is of the next transfer under the
		// name, which begins when this one is stored.
		return pastLast(u.plan, m)
	case number == 0 && !u.based:
		u.based, u.plan.First, u.next = true, 0, 0
	case number == uint32(u.plan.First) && u.has(number):
		s.log().Info("transfer begins anew", s.fields(zap.String("file", u.name), zap.Int64("bytes", u.offset))...)
		s.drop(u)
		u = nil
	}
	if u == nil {
		f := s.apart(name)
		if f == nil {
			return false
		}
		if u, err = s.begin(name, raw, content, f); err != nil {
			f.forget()
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
		p := s.putAside(u, number, content, m.OrigSize)
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

// pastLast reports whether a packet is the one past the last that some clients
// send.
func pastLast(p codec.Plan, m codec.SendFile) bool {
	return m.Total == p.Total && uint32(m.Packet) == p.Last()+1
}

// maxFolders is the most folders in a name that a 1028 brings: each is one more
// to make, to sync and to walk through. What is stored deeper stays within reach
// of verdicts.
const maxFolders = 16

// begin makes the upload of a packet that is the first to arrive. Whether the
// client counts from 0 or from 1 shows in the packets 0 and Total, and is taken
// for granted in packet 1; until then all packets count as early.
func (s *Session) begin(name string, m codec.SendFile, content uint32, f *found) (*upload, error) {
	if s.draining {
		return nil, errGoingDown
	}
	path, err := storage.CleanPath(name)
	if err != nil {
		return nil, err
	}
	if strings.Count(path, "/") > maxFolders {
		return nil, errTooDeep
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
	if f.err != nil {
		return nil, f.err
	}
	if !s.makeRoom() {
		return nil, errTooMany
	}
	delete(s.received, name)
	s.refused.forget(s.host, s.id, name)
	u := s.enter(&upload{name: name, path: path, plan: plan, based: based})
	u.leave = f.leave
	return u, nil
}

// enter puts u among the transfers under way.
func (s *Session) enter(u *upload) *upload {
	u.started, u.began, u.next = s.last, s.begins, uint32(u.plan.First)
	s.begun++
	u.serial = s.begun
	u.sink = &sink{
		files: s.svc.Files, id: s.id, path: u.path, hint: u.plan.OrigSize, limit: s.svc.MaxFileSize,
		dec: aescbc.NewDecrypter(&s.key),
	}
	if s.guarded {
		key := s.key
		u.guarded = &key
	}
	if s.uploads == nil {
		s.uploads = make(map[string]*upload)
	}
	s.uploads[u.name] = u
	return u
}

// has reports whether that packet is in, or coming in.
func (u *upload) has(number uint32) bool { return number < u.next || u.early.has(number) }

// allIn reports whether all packets came, be it before their turn.
func (u *upload) allIn() bool { return u.next+u.early.count() > u.plan.Last() }

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

// advance looks whether the transfer is complete. It returns false if that
// made it fail.
func (s *Session) advance(u *upload) bool {
	if u.next <= u.plan.Last() || u.complete {
		return true
	}
	if u.left() > 0 {
		s.fail(u, u.next-1, errNotWhole)
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
	var r *run
	switch {
	case len(u.queue) > 0:
		c, u.queue = u.queue[0], u.queue[1:]
		if len(u.queue) == 0 {
			u.queue = nil
		}
	case u.based && u.early.spilled.has(u.next):
		r = u.nextRun()
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
		err = u.sink.job(ctx, &c, spans, r, finish)
	}, func() {
		u.running = false
		s.held -= len(c.buf)
		s.emptyArena(u)
		then := s.pump
		switch {
		case finish:
			then = s.store
		case r != nil:
			then = func(u *upload) {
				if s.replayed(u, r) {
					s.pump(u)
				}
			}
		}
		s.worked(u, err, then)
	})
}

// worked takes the result of work on u, and goes on with then if there is no more
// to say.
func (s *Session) worked(u *upload, err error, then func(*upload)) {
	switch {
	case u.dropped:
		s.cleanup(u)
	case u.guarded != nil && !s.guard(u, err):
	case err != nil:
		s.fail(u, u.current(), err)
	default:
		then(u)
	}
}

// current is the number of the packet that the last job was about, or nearly so.
func (u *upload) current() uint32 { return max(u.next, uint32(u.plan.First)+1) - 1 }

// nextRun is the row of packets in the scratch room that begins with the next.
func (u *upload) nextRun() *run {
	r := &run{plan: u.plan, offset: u.offset, first: u.next, count: 1}
	for r.count < replayBatch && u.early.spilled.has(r.first+r.count) {
		r.count++
	}
	return r
}

// replayed takes the result of a run. It returns false if the transfer has
// failed.
func (s *Session) replayed(u *upload, r *run) bool {
	u.next += r.packets
	u.offset += r.bytes
	u.early.waiting -= r.packets
	return s.advance(u)
}

// due returns packets in the arena whose turn has come, about replaySize bytes
// of them or else one.
func (u *upload) due() (spans []span, err error) {
	for n := int64(0); n < replaySize; u.next++ {
		p, ok := u.early.index[u.next]
		if !ok {
			break
		}
		sp, err := spanOf(&u.plan, u.offset, u.next, p)
		if err != nil {
			return nil, err
		}
		sp.mem = u.early.arena[p.off : p.off+int64(p.size)]
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
	op := &storage.PutFile{Outcome: s.outcome(), File: storage.File{
		ID: s.id, FileName: u.name, Path: u.path, Incoming: k.out.Key(),
		Size: k.size, Cksum: k.sum.Sum32(), Received: s.host.Now(),
	}}
	u.running = true
	s.start(func(co *coroutine) {
		err := s.put(co, u, op)
		u.running = false
		switch {
		case err == nil:
			if op.Replaced != nil {
				s.svc.settled(op.Replaced)
				s.discard(op.Replaced.Incoming)
			}
			s.stored(u, &op.File)
		case u.dropped:
			s.cleanup(u)
		default:
			s.fail(u, u.plan.Last(), err)
		}
	})
}

// errDropped says that a transfer was dropped while it waited for its place.
var errDropped = errors.New("nobody wants the transfer any more")

// put has the registry record the file of a transfer that is whole.
func (s *Session) put(co *coroutine, u *upload, op *storage.PutFile) error {
	place := co.lock(pathKey{op.File.ID, op.File.Path})
	defer place.unlock()
	if u.dropped {
		return errDropped
	}
	if err := place.settle(co); err != nil {
		return err
	}
	op.File.Lapsed = place.setLapsed(false)
	if err := co.apply(op); err != nil {
		if op.File.Lapsed {
			place.setLapsed(true)
		}
		return err
	}
	s.uncount(u)
	s.svc.Waiting(op.File.ID, Occupies(op.File.Size))
	place.setWaits(&op.File)
	return nil
}

func (s *Session) stored(u *upload, f *storage.File) {
	u.leaveAlike()
	s.forgetEarly(u)
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
	for n := u.next; n <= u.plan.Last() && ok; n++ {
		if u.early.has(n) {
			ok = f.came.add(s.host, n)
		}
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

// drop ends a transfer without a word and removes what it left.
func (s *Session) drop(u *upload) {
	delete(s.uploads, u.name)
	if s.touched == u {
		s.touched = nil
	}
	u.dropped, s.ended = true, true
	s.uncount(u)
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
	u.leaveAlike()
	s.forgetEarly(u)
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
