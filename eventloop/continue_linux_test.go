package eventloop

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/session"
	"sealift/storage"
)

// partial is the partial file of a client that is on record, or nil.
func (r *running) partial(id codec.ClientID, path string) *storage.Partial {
	r.t.Helper()
	get := &storage.GetFile{Outcome: storage.Outcome{By: storage.Server}, ID: id, Path: path, WithPartial: true}
	if err := r.reg.Apply(context.Background(), []storage.Operation{get}); err != nil {
		r.t.Fatal(err)
	}
	return get.Partial
}

// question sends a 1032 and returns the Offset of its 1608, whose checksum must be right.
func (b *rawPeer) question(name string, content []byte) int {
	b.t.Helper()
	b.write(codec.Continue{FileName: []byte(name), TotalSize: uint64(len(content))}.Append(nil, b.ID))
	m, err := codec.ParseContinued(b.reply(codec.CodeContinued))
	if err != nil {
		b.t.Fatal(err)
	}
	if m.Cksum != cksum.Checksum(content[:m.Offset]) {
		b.t.Fatalf("a 1608 speaks of %d other bytes than were sent", m.Offset)
	}
	return int(m.Offset)
}

// goOn has the client of b ask on a new connection, send the rest and confirm the file. It returns
// the Offset of the 1608.
func (r *running) goOn(b *rawPeer, name string, content []byte) int {
	r.t.Helper()
	next := &rawPeer{t: r.t}
	next.Peer = b.Peer
	next.Use(r.raw())
	if err := next.Rejoin(); err != nil {
		r.t.Fatal(err)
	}
	offset := next.question(name, content)
	if offset < len(content) { // else the old connection was faster
		for _, p := range next.packets(name, content[offset:], 64<<10) {
			next.write(p)
		}
		if err := next.ReceivedAs(name, int64(len(content)-offset), cksum.Checksum(content)); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := next.Confirm(name); err != nil {
		r.t.Fatal(err)
	}
	r.stored(b.ID, name, content)
	return offset
}

// halfSent has a client send a good half of content, and waits until the server has written most of that.
func (r *running) halfSent(c net.Conn, name string, content []byte) *rawPeer {
	r.t.Helper()
	b := r.rawPeer(c, name)
	packets := b.packets("f", content, 64<<10)
	for _, p := range packets[:len(packets)/2+1] {
		b.write(p)
	}
	for r.written() < int64(len(content)/2-64<<10) {
		time.Sleep(time.Millisecond) // nothing else tells
	}
	return b
}

// A transfer that is cut goes on where it was, whatever became of its connection: it was reset, the client is
// silent and the connection open, or the client goes on sending there.
func TestContinued(t *testing.T) {
	content := random(8 << 20)
	for what, end := range map[string]func(c net.Conn, b *rawPeer){
		"reset":  func(c net.Conn, _ *rawPeer) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() },
		"closed": func(c net.Conn, _ *rawPeer) { _ = c.Close() },
		"silent": func(net.Conn, *rawPeer) {},
		"goes on": func(_ net.Conn, b *rawPeer) {
			go func() {
				for _, p := range b.packets("f", content, 64<<10)[65:] {
					if b.Send(p) != nil {
						return
					}
				}
			}()
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := start(t, nil)
			c := r.tcp()
			b := r.halfSent(c, "client", content)
			end(c, b)
			if offset := r.goOn(b, "f", content); offset < len(content)/2-64<<10 && what != "goes on" {
				t.Errorf("it goes on from %d, and %d were written", offset, len(content)/2)
			}
			if n := r.incoming(); n > 0 {
				t.Errorf("%d files are left in .incoming", n)
			}
			r.wasLent()
		})
	}
}

// When the server is told to end, all that it has received of a transfer is on record before
// Run returns.
func TestDrainKeepsWhatItHas(t *testing.T) {
	content := random(8 << 20)
	r := start(t, func(o *Options, _ *session.Config) { o.DrainTimeout = 10 * time.Millisecond })
	b := r.halfSent(r.tcp(), "client", content)
	r.stop()
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	p := r.partial(b.ID, "f")
	if p == nil || p.Length < int64(len(content)/2-64<<10) {
		t.Fatalf("on record is %+v", p)
	}
	h := cksum.Resume(p.State, uint64(p.Length))
	if h.Sum32() != cksum.Checksum(content[:p.Length]) {
		t.Error("on record is another checksum")
	}
	got, err := os.ReadFile(filepath.Join(r.dir, "files", ".incoming", p.Incoming[:2], p.Incoming))
	if err != nil || int64(len(got)) < p.Length || cksum.Checksum(got[:p.Length]) != cksum.Checksum(content[:p.Length]) {
		t.Errorf("in the store are %d bytes (%v)", len(got), err)
	}
}
