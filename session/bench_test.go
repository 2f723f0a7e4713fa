package session_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/session"
	"sealift/storage"
	"sealift/storage/memory"
)

// atOnce is a host on which everything happens at once, on the caller's
// goroutine: what is measured is the session, its cipher and its checksum.
type atOnce struct {
	b       *testing.B
	reg     storage.Registry
	tasks   []func()
	buffers [][]byte
	reply   codec.Code // of the last one
}

func (h *atOnce) Send(reply []byte) { h.reply = codec.Code(reply[1]) | codec.Code(reply[2])<<8 }

func (h *atOnce) Do(_ session.Lane, work func(context.Context), done func()) {
	h.tasks = append(h.tasks, func() {
		if work != nil {
			work(context.Background())
		}
		if done != nil {
			done()
		}
	})
}

func (h *atOnce) Apply(op storage.Operation, done func(error)) {
	h.tasks = append(h.tasks, func() {
		if err := h.reg.Apply(context.Background(), []storage.Operation{op}); err != nil {
			h.b.Fatal(err)
		}
		if done != nil {
			done(op.Result().Err)
		}
	})
}

func (h *atOnce) Buffer(int) []byte {
	if n := len(h.buffers); n > 0 {
		buf := h.buffers[n-1]
		h.buffers = h.buffers[:n-1]
		return buf
	}
	return make([]byte, session.MaxBuffer)
}

func (h *atOnce) Release(buf []byte) { h.buffers = append(h.buffers, buf) }
func (h *atOnce) Hold(int) bool      { return true }
func (h *atOnce) Unhold(int)         {}
func (h *atOnce) Hangup(r string)    { h.b.Fatal(r) }
func (h *atOnce) Now() time.Time     { return time.Time{} }

func (h *atOnce) feed(s *session.Session, p []byte) {
	for {
		p = p[s.Feed(p):]
		if len(h.tasks) == 0 {
			if len(p) > 0 {
				h.b.Fatal("the session hangs")
			}
			return
		}
		for len(h.tasks) > 0 {
			task := h.tasks[0]
			h.tasks = h.tasks[1:]
			task()
		}
	}
}

func benchHost(b *testing.B) (*atOnce, *session.Session, *peer) {
	h := &atOnce{b: b, reg: memory.New()}
	files := newContents(new(faults))
	files.null = true
	w := &world{t: b, reg: &registry{Registry: h.reg.(*memory.Registry), faults: new(faults), partials: make(map[storage.Place]bool)}}
	svc := session.NewService(session.Config{Files: files, Log: zap.NewNop()})
	return h, session.New(svc, h, "bench"), w.known("alice")
}

// BenchmarkUpload sends a file of 64 MiB through Feed, 64 KiB at a time, into a
// store that keeps nothing.
func BenchmarkUpload(b *testing.B) {
	const size = 64 << 20
	for _, bc := range []struct {
		name   string
		d      dialect
		packet int
		o      order
	}{
		{"spec 64 KiB", spec, 65_536, inOrder},
		{"spec 4 KiB", spec, 4096, inOrder},
		{"single", single, 0, inOrder},
		{"per-packet 4 KiB", perPacket, 4096, inOrder},
		{"spec 64 KiB reversed", spec, 65_536, reversed},
	} {
		b.Run(bc.name, func(b *testing.B) {
			h, s, p := benchHost(b)
			var wire []byte
			for _, m := range bc.o.put(p.packets(bc.d, "f", make([]byte, size), bc.packet), nil) {
				wire = append(wire, m...)
			}
			verdict := p.verdict(codec.CodeAbort, "f")
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				for q := wire; len(q) > 0; {
					n := min(len(q), 64<<10)
					h.feed(s, q[:n])
					q = q[n:]
				}
				if h.reply != codec.CodeFileReceived {
					b.Fatal(h.reply)
				}
				h.feed(s, verdict)
			}
		})
	}
}

// BenchmarkRefused is a transfer of many packets whose second is wrong.
func BenchmarkRefused(b *testing.B) {
	h, s, p := benchHost(b)
	wire := slices.Concat(
		p.packet(codec.SendFile{ContentSize: 1 << 20, OrigSize: 1<<20 - 1, Packet: 1, Total: 65_535, FileName: []byte("f")}, make([]byte, 16)),
		p.packet(codec.SendFile{ContentSize: 1 << 20, OrigSize: 1<<20 - 2, Packet: 2, Total: 65_535, FileName: []byte("f")}, make([]byte, 16)))
	b.ReportAllocs()
	for b.Loop() {
		h.feed(s, wire)
		if s.Uploads() != 0 {
			b.Fatal("it is under way")
		}
	}
}

// BenchmarkSmallFile is a file of 1 KiB with its 1029.
func BenchmarkSmallFile(b *testing.B) {
	h, s, p := benchHost(b)
	wire := append(p.packets(spec, "f", make([]byte, 1024), 65_536)[0], p.ok("f")...)
	b.ReportAllocs()
	for b.Loop() {
		h.feed(s, wire)
		if h.reply != codec.CodeAck {
			b.Fatal(h.reply)
		}
	}
}

// BenchmarkVerdict is a 1029 for a file that is verified already: a request that
// waits for the registry, then for the store, and copies nothing.
func BenchmarkVerdict(b *testing.B) {
	h, s, p := benchHost(b)
	h.feed(s, append(p.packets(spec, "f", nil, 65_536)[0], p.ok("f")...)) // the store says of all files that they are empty
	wire := p.ok("f")
	b.ReportAllocs()
	for b.Loop() {
		h.feed(s, wire)
		if h.reply != codec.CodeAck {
			b.Fatal(h.reply)
		}
	}
}

// BenchmarkWaiting tells how much memory a verdict takes while its file is being
// made durable.
func BenchmarkWaiting(b *testing.B) {
	const n = 3000
	for b.Loop() {
		w := newWorld(b, session.Config{})
		p, c := w.known("alice"), w.dial()
		for i := range n {
			c.ask(p.packets(single, fmt.Sprint(i), nil, 0)...)
			w.dial().ask(p.ok("none")) // it has a session that knows its client
		}
		for i, c := range w.conns[1:] {
			c.send(p.ok(fmt.Sprint(i)))
		}
		stacks, heap := inUse()
		for _, c := range w.conns[1:] {
			c.feed(len(c.in))
		}
		w.apply(w.svc, n)
		for _, j := range w.dones {
			j.done()
		}
		w.dones = nil
		if len(w.jobs) != n {
			b.Fatalf("%d commits wait, want %d", len(w.jobs), n)
		}
		moreStacks, moreHeap := inUse()
		b.ReportMetric(float64(moreStacks-stacks)/n, "stack-B/verdict")
		b.ReportMetric(float64(moreHeap-heap)/n, "heap-B/verdict")
		w.hangUp()
	}
}

// inUse returns how many bytes the stacks of goroutines and the heap take.
func inUse() (stacks, heap int64) {
	runtime.GC()
	runtime.GC() // so that the first's sweep is over
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.StackInuse), int64(m.HeapAlloc)
}
