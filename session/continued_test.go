package session_test

import (
	"fmt"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/session"
	"sealift/storage"
)

// newCutWorld is a world in which transfers are kept from 1000 bytes on, and a checkpoint
// comes after 2000 more.
func newCutWorld(t testing.TB) *world {
	w := newWorld(t, session.Config{Boot: "boot"})
	w.svc.KeepFrom = 1000
	w.svc.CheckpointEvery = 2000
	return w
}

// question is a 1032.
func (p *peer) question(name string, total int) []byte {
	return codec.Continue{FileName: []byte(name), TotalSize: uint64(total)}.Append(nil, p.id)
}

// continued is the reply to a 1032 if so much of the file is there.
func continued(name string, prefix []byte) string {
	return fmt.Sprintf("1608 %s %d %08x", name, len(prefix), cksum.Checksum(prefix))
}

// segment is the 1603 for a part of a file that ends with what is there then.
func segment(name string, size int, prefix []byte) string {
	return fmt.Sprintf("1603 %s %d %08x", name, size, cksum.Checksum(prefix))
}

// relogin is a new connection of p on which it has exchanged keys anew.
func (w *world) relogin(p *peer) *conn {
	w.t.Helper()
	priv, pub := pair[0]()
	c := w.dial()
	if got := c.ask(p.publicKey(pub)); got != "1602" {
		w.t.Fatal(got)
	}
	p.key = c.aesKey(w.t, priv)
	c.replies, c.raw = nil, nil
	return c
}

// cutAfter sends that many of the packets of a file, and then loses the connection.
func (w *world) cutAfter(c *conn, packets [][]byte, n int) {
	w.t.Helper()
	c.send(packets[:n]...)
	w.run()
	c.close()
	w.run()
}

// TestCutAndContinued: a transfer is cut, kept, and continued on another connection, with a
// key of its own, in each dialect that can tell sizes.
func TestCutAndContinued(t *testing.T) {
	content := random(1, 10_000)
	for _, d := range []dialect{spec, zeroBased, packetSize, padded} {
		w := newCutWorld(t)
		p, c := w.login("alice")
		w.cutAfter(c, p.packets(d, "f", content, 1024), 5)
		row := w.reg.partial(storage.Place{ID: p.id, Path: "f"})
		if row == nil {
			t.Fatalf("%v: nothing is kept", d)
		}
		if row.Length < 5*1024-16 || row.Total != 10_000 || row.Generation != 1 || row.FileName != "f" {
			t.Errorf("%v: kept is %+v", d, row)
		}
		w.clean()
		c = w.relogin(p)
		if got, want := c.ask(p.question("f", 10_000)), continued("f", content[:row.Length]); got != want {
			t.Fatalf("%v: a 1032 gets %q, want %q", d, got, want)
		}
		rest := content[row.Length:]
		if got, want := c.ask(append(p.packets(d, "f", rest, 512), p.ok("f"))...), segment("f", len(rest), content)+", 1604"; got != want {
			t.Errorf("%v: the rest gets %q, want %q", d, got, want)
		}
		w.verified(p, "f", content)
		if p := w.reg.partial(row.Place()); p != nil {
			t.Errorf("%v: still on record: %+v", d, p)
		}
		w.hangUp()
		w.counted()
		if n := w.svc.Counts(); n.Kept != 1 || n.Continued != 1 {
			t.Errorf("%v: counted are %+v", d, n)
		}
	}
}

// TestNothingToContinue: a 1032 for what is not there, or of another size, is told so.
func TestNothingToContinue(t *testing.T) {
	content := random(1, 10_000)
	w := newCutWorld(t)
	p, c := w.login("alice")
	w.cutAfter(c, p.packets(spec, "f", content, 1024), 5)
	c = w.relogin(p)
	want := strings.Join([]string{continued("f", nil), continued("g", nil), continued("h", nil)}, ", ")
	if got := c.ask(p.question("f", 10_001), p.question("g", 10_000), p.question("h", 0)); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if want := "1608 f 0 ffffffff"; continued("f", nil) != want {
		t.Errorf("%q, want %q", continued("f", nil), want)
	}
	if w.reg.partial(storage.Place{ID: p.id, Path: "f"}) == nil {
		t.Error("the partial file of another size is gone")
	}
	c = w.relogin(p)
	if got, want := c.ask(append(p.packets(spec, "f", content[:9000], 3000), p.ok("f"))...), received("f", content[:9000])+", 1604"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	w.hangUp()
	w.counted()
	if w.reg.partial(storage.Place{ID: p.id, Path: "f"}) != nil || len(w.files.incoming) > 0 {
		t.Error("the partial file outlived a newer version")
	}
}
