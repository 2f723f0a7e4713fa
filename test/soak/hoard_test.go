//go:build linux

package soak

import (
	"fmt"
	"math"
	"testing"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// perClient is how many partial files a server keeps of a client.
const perClient = 16

// TestHoard has a client that wants to fill the server with partial files, and asks for
// what it must not have. The files of another are as they were.
func TestHoard(t *testing.T) {
	r := newRun(t)
	dir := r.TempDir()
	s := r.start(dir, "--register-rate", "0")
	victim := s.join("victim", 0)
	theirs := pattern(r.seed, 3<<20)
	if _, err := victim.Holds("file", theirs); err != nil {
		r.Fatalf("%v", err)
	}
	if err := victim.Segment("file", theirs, 0, 2<<20, 65_536); err != nil {
		r.Fatalf("%v", err)
	}

	thief := s.join("thief", 1)
	r.manyPartials(s, thief)
	r.hugeSizes(s, thief)
	r.betweenPackets(thief)
	r.strangeNames(thief)
	r.otherID(s, victim)

	if offset, err := victim.Resume("file", theirs, 65_536); err != nil || offset != 2<<20 {
		r.Errorf("the victim goes on at %d: %v", offset, err)
	}
	victim.close()
	thief.close()
	r.checkStore(dir, []stored{victim.stored("file", theirs)})
	s.alive()
	s.finish()
}

// manyPartials leaves thousands of beginnings, by segments, which cost the client little,
// and by cuts.
func (r *run) manyPartials(s *server, thief *peer) {
	r.Helper()
	n := r.size(100, 10_000)
	content := pattern(r.seed, 4<<20)
	before := s.rss()
	s.resetPeak()
	most := 0
	for i := range n {
		name := fmt.Sprintf("folder %d/part %d", i%10, i)
		if _, err := thief.Holds(name, content); err != nil {
			r.Fatalf("partial file %d: %v: %s", i, err, s.tail())
		}
		if err := thief.Segment(name, content, 0, 1000, 1000); err != nil {
			r.Fatalf("partial file %d: %v: %s", i, err, s.tail())
		}
		if i%50 == 49 {
			most = max(most, len(r.partials(s.dir)))
		}
	}
	for i := range r.size(20, 200) {
		f := thief.File(fmt.Sprint("cut ", i), content)
		if err := thief.SendPackets(f.Packets(testpeer.Spec, 65_536)[:24]); err != nil {
			r.Fatalf("cut %d: %v", i, err)
		}
		thief.close()
		r.redial(s, thief)
	}
	r.until("the oldest to be removed", func() bool { return len(r.partials(s.dir)) <= perClient+1 })
	r.until("their content to be removed", func() bool { return r.incoming(s.dir) <= perClient+1 })
	r.Logf("%d partial files: at most %d seen on record, %d are left, memory +%d KiB", n, most, len(r.partials(s.dir)), s.grown(before, 2))
}

// hugeSizes asks for files that cannot be, and sends segments beyond what it said.
func (r *run) hugeSizes(s *server, thief *peer) {
	r.Helper()
	for _, total := range []uint64{math.MaxUint64, 1 << 63, math.MaxInt64, math.MaxInt64 - 15, 1<<62 + 1, codec.MaxFileSize + 1} {
		message := codec.Continue{FileName: []byte("huge"), TotalSize: total}.Append(nil, thief.ID)
		if _, err := thief.Ask(message, codec.CodeContinued); !hasRefused(err) {
			r.Errorf("a Total Size of %d: %v, want a 1607", total, err)
		}
	}
	content := pattern(r.seed, 100_000)
	for _, total := range []int64{0, 1, 49_999} {
		if _, _, err := thief.Continue("beyond", total); err != nil {
			r.Errorf("a Total Size of %d: %v", total, err)
		}
		if err := thief.SendPackets(thief.File("beyond", content[:50_000]).Packets(testpeer.Spec, 1<<16)); err != nil {
			r.Fatalf("%v", err)
		}
		if _, err := thief.Want(codec.CodeFileReceived); !hasRefused(err) {
			r.Errorf("50,000 bytes of a file of %d: %v, want a 1607", total, err)
		}
	}
	// A segment that announces almost 4 GiB behind an offset.
	if _, err := thief.Holds("wrap", content); err != nil {
		r.Fatalf("%v", err)
	}
	if err := thief.Segment("wrap", content, 0, 50_000, 1<<16); err != nil {
		r.Fatalf("%v", err)
	}
	if _, err := thief.Holds("wrap", content); err != nil {
		r.Fatalf("%v", err)
	}
	m := codec.SendFile{ContentSize: codec.MaxCiphertext, OrigSize: codec.MaxFileSize, Packet: 1, Total: 2, FileName: []byte("wrap")}
	if err := thief.Send(thief.Packet(m, make([]byte, 1<<16)).Bytes()); err != nil {
		r.Fatalf("%v", err)
	}
	if _, err := thief.Want(codec.CodeFileReceived); !hasRefused(err) {
		r.Errorf("a segment of 4 GiB behind 50,000 bytes of a file of 100,000: %v, want a 1607", err)
	}
	if offset, err := thief.Resume("wrap", content, 1<<16); err != nil || offset != 50_000 {
		r.Errorf("after a segment that was too large: %d, %v", offset, err)
	}
}

// betweenPackets asks in the middle of a transfer, of that and of others.
func (r *run) betweenPackets(thief *peer) {
	r.Helper()
	content := pattern(r.seed, 3<<20)
	f := thief.File("between", content)
	packets := f.Packets(testpeer.Spec, 65_536)
	for i := range packets {
		if err := thief.SendPackets(packets[i : i+1]); err != nil {
			r.Fatalf("%v", err)
		}
		if i == len(packets)-1 {
			break
		}
		switch i % 3 {
		case 0:
			if _, _, err := thief.Continue("between", int64(len(content))); !hasRefused(err) {
				r.Fatalf("a 1032 behind packet %d: %v, want a 1607", i+1, err)
			}
		case 1:
			if _, _, err := thief.Continue(fmt.Sprint("another ", i), 1000); err != nil {
				r.Fatalf("a 1032 for another file behind packet %d: %v", i+1, err)
			}
		}
	}
	if err := thief.finish(f); err != nil {
		r.Errorf("a transfer with 1032s in it: %v", err)
	}
}

// strangeNames asks for what does not lie in the client's folder.
func (r *run) strangeNames(thief *peer) {
	r.Helper()
	deep := ""
	for range 17 {
		deep += "d/"
	}
	for _, name := range []string{"..", "/", "a/..", "../..", ".", deep + "file", "\x7f", "\xff"} {
		if _, _, err := thief.Continue(name, 1000); !hasRefused(err) {
			r.Errorf("a 1032 for %q: %v, want a 1607", name, err)
		}
	}
	// One that seems to lead out is of the own folder, as a 1028's is.
	if offset, _, err := thief.Continue("../victim/file", 3<<20); err != nil || offset != 0 {
		r.Errorf("a 1032 for a name with ..: %d, %v", offset, err)
	}
}

// otherID asks under the victim's id, on a connection of the thief's own and on one that
// is nobody's.
func (r *run) otherID(s *server, victim *peer) {
	r.Helper()
	thief := s.join("another thief", 2)
	defer thief.close()
	message := victim.Peer.Continue("file", 3<<20)
	if _, err := thief.Ask(message, codec.CodeContinued); !hasRefused(err) {
		r.Errorf("a 1032 under another's id: %v, want a 1607", err)
	}
	nobody := s.mustDial()
	if _, err := nobody.Ask(message, codec.CodeContinued); !hasRefused(err) {
		r.Errorf("a 1032 on a fresh connection: %v, want a 1607", err)
	}
	if offset, _, err := thief.Continue("file", 3<<20); err != nil || offset != 0 {
		r.Errorf("a 1032 for a name that the victim has: %d, %v", offset, err)
	}
}
