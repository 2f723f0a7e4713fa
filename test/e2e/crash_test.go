//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// again starts a server on the directory of one that has ended, and sends the
// peers there. Their connections are gone.
func (d *daemon) again(peers ...*peer) *daemon {
	d.t.Helper()
	next := serveIn(d.t, d.dir)
	for _, p := range peers {
		p.addr = next.addr
		p.dial()
	}
	return next
}

// awaitUpload waits until content of a file has arrived.
func (d *daemon) awaitUpload() {
	d.t.Helper()
	eventually(d.t, "an upload is under way", func() bool {
		for _, path := range d.incoming() {
			if info, err := os.Stat(path); err == nil && info.Size() > 0 {
				return true
			}
		}
		return false
	})
}

// incoming lists the files that are being received, or wait for their verdict.
func (d *daemon) incoming() []string {
	d.t.Helper()
	paths, err := filepath.Glob(filepath.Join(d.dir, "files", ".incoming", "*", "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	return paths
}

// What a 1604 was sent for is there after kill -9, and so is the client.
func TestKillAfterAck(t *testing.T) {
	t.Parallel()
	d := serve(t)
	for round := range 5 {
		p := login(t, d, fmt.Sprint("client ", round))
		content := randomBytes(300_000, byte(round))
		p.upload("file", content)
		d.kill() // this moment: the 1604 has just been read

		d = d.again(p)
		d.checkVerified(p.ID, "file", content)
		stranger := connect(t, d, p.Name)
		stranger.send(stranger.Register())
		stranger.expect(codec.CodeRegisterFailed) // its name is still taken
		p.rejoin()
		p.upload("another", []byte("after the restart"))
		d.checkVerified(p.ID, "another", []byte("after the restart"))
		d.checkVerified(p.ID, "file", content)
	}
}

// A file that replaces another one is the one or the other, whole, whenever the
// server is killed; and once it has its 1604 it is the new one.
func TestKillWhileReplacing(t *testing.T) {
	d := serve(t)
	p := login(t, d, "n")
	content := randomBytes(1<<20, 1)
	p.upload("file", content)
	for round, step := range []func(f *testpeer.File){
		func(f *testpeer.File) { p.sendPackets(cut(f, 65_536)[:8]) },
		func(f *testpeer.File) { p.sendPackets(cut(f, 65_536)) },
		func(f *testpeer.File) { p.sendPackets(cut(f, 65_536)); p.expectReceived(f) },
		func(f *testpeer.File) {
			p.sendPackets(cut(f, 65_536))
			p.expectReceived(f)
			p.send(p.Verdict(codec.CodeCRCOK, f.Name))
		},
	} {
		f := p.File("file", randomBytes(1<<20, byte(2+round)))
		step(f)
		d.kill()
		d = d.again(p)
		run(t, d.dir, sealiftd, "verify", "--dir", d.dir).succeeded(t)
		got := get(t, d.stored(p.ID, "file"))
		if committed := round == 3 && bytes.Equal(got, f.Content); !committed && !bytes.Equal(got, content) {
			t.Fatalf("round %d: the file is neither the old nor the new one", round)
		}
		p.rejoin()
		p.upload("file", f.Content)
		d.checkVerified(p.ID, "file", f.Content)
		content = f.Content
	}
}

// A 1029 that was lost with its connection is accepted on a new one, as often
// as it comes, and also by a server that was killed in between.
func TestLostVerdict(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		what           string
		sent, restart  bool // the first 1029 went out; the server was killed
		code           codec.Code
		times          int
		reconnectFirst bool
	}{
		{what: "never sent", times: 1},
		{what: "sent, and not answered", sent: true, times: 1},
		{what: "answered, and the answer lost again", sent: true, times: 3},
		{what: "after a reconnect", reconnectFirst: true, times: 1},
		{what: "never sent, server killed", restart: true, times: 2},
		{what: "sent, server killed", sent: true, restart: true, times: 2},
		{what: "server killed, after a reconnect", restart: true, reconnectFirst: true, times: 1},
	} {
		t.Run(tc.what, func(t *testing.T) {
			d := serve(t)
			p := login(t, d, "n")
			f := p.File("file", randomBytes(300_000, 1))
			p.sendPackets(cut(f, 65_536))
			p.expectReceived(f)
			if tc.sent {
				p.send(p.Verdict(codec.CodeCRCOK, f.Name))
			}
			if tc.restart {
				d.kill()
				d = d.again(p)
			}
			for range tc.times {
				p.dial()
				if tc.reconnectFirst {
					p.rejoin()
				}
				p.confirm(f.Name)
			}
			d.checkVerified(p.ID, f.Name, f.Content)
			p.upload("next", []byte("the connection goes on"))
		})
	}
}

// A 1031 on a new connection removes what waited for its verdict.
func TestLostAbort(t *testing.T) {
	d := serve(t)
	p := login(t, d, "n")
	f := p.File("file", []byte("content"))
	p.sendPackets(cut(f, 0))
	p.expectReceived(f)
	d.kill()
	d = d.again(p)
	p.send(p.Verdict(codec.CodeAbort, f.Name))
	p.expectID(codec.CodeAck)
	if files := d.files(); len(files) != 0 {
		t.Errorf("files %+v", files)
	}
	p.send(p.Verdict(codec.CodeCRCOK, f.Name))
	p.expect(codec.CodeError)
}

// A client that is cut off in the middle of a file sends it again, directly on
// a new connection, and it is whole. Nothing is left of the first attempt.
func TestCutOffUpload(t *testing.T) {
	t.Parallel()
	d := serve(t)
	for i, tc := range []struct {
		order     int
		cut       int // packets that went out before
		inPacket  bool
		restart   bool
		reconnect bool
	}{
		{cut: 1},
		{cut: 150},
		{cut: 150, inPacket: true},
		{cut: 150, reconnect: true},
		{order: 1, cut: 150},
		{order: 2, cut: 150, inPacket: true},
		{cut: 150, restart: true},
		{order: 1, cut: 150, restart: true},
		{order: 2, cut: 296, restart: true, reconnect: true},
	} {
		p := login(t, d, fmt.Sprint("client ", i))
		f := p.File("file", randomBytes(300_000, byte(i)))
		packets := cut(f, 1007)
		orders[tc.order].put(packets)
		p.sendPackets(packets[:tc.cut])
		if tc.inPacket {
			p.send(packets[tc.cut].Bytes()[:500])
		} else {
			p.settle()
		}
		if tc.restart {
			d.kill()
			d = d.again(p)
		}
		p.dial()
		if tc.reconnect { // with a new key
			p.rejoin()
			f = p.File(f.Name, f.Content)
			packets = cut(f, 1007)
		}
		p.sendPackets(packets)
		p.expectReceived(f)
		p.confirm(f.Name)
		d.checkVerified(p.ID, f.Name, f.Content)
		eventually(t, "nothing is left of the first attempt", func() bool {
			return len(d.incoming()) == 0
		})
	}
}

// While a connection that the client has given up is still open, the file goes
// through on another one, and what comes late on the old one does no harm.
func TestTwoConnectionsOneFile(t *testing.T) {
	d := serve(t)
	p := login(t, d, "n")
	old := *p
	f := p.File("file", randomBytes(300_000, 1))
	packets := cut(f, 1007)
	old.sendPackets(packets[:150])
	old.settle()
	p.Net = nil // stays open
	p.dial()
	p.sendPackets(packets)
	p.expectReceived(f)
	p.confirm(f.Name)
	d.checkVerified(p.ID, f.Name, f.Content)
	old.sendPackets(packets[150:])
	old.expectReceived(f)
	old.confirm(f.Name)
	d.checkVerified(p.ID, f.Name, f.Content)
}
