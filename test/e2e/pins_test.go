//go:build unix

package e2e

import (
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/tlskey"
	"sealift/internal/testpeer"
)

// An operator pins a client beside the running server: its open plain connections end,
// and it is refused when it comes back, until it is released. The same works without
// a server.
func TestClientPin(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p, other := loginWithoutKey(t, d, "Ada Lovelace"), loginWithoutKey(t, d, "other")
	p.upload("before", []byte("before"))
	waiting := p.File("waiting", []byte("for its 1029"))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)
	fingerprint := tlskey.Fingerprint{1, 2, 3}.String()
	pin := func(args ...string) result {
		t.Helper()
		return run(t, d.dir, sealiftd, append([]string{"client"}, args...)...)
	}
	pinned := func(want string) {
		t.Helper()
		for _, c := range d.clients() {
			if c.Name == "Ada Lovelace" && c.TLSKey != want || c.Name == "other" && c.TLSKey != "" {
				t.Errorf("on record is %+v, want the pin %q", c, want)
			}
		}
		if want == "" {
			want = "-"
		}
		for _, line := range cells(pin("list").succeeded(t).stdout)[1:] {
			if line[1] == "Ada Lovelace" && line[5] != want || line[1] == "other" && line[5] != "-" {
				t.Errorf("listed is %q, want the pin %q", line, want)
			}
		}
	}
	pinned("")

	pin("pin", "nobody", fingerprint).failed(t, `no such client: "nobody"`).hinted(t, "sealiftd clients")
	pin("pin", "ada lovelace", fingerprint).failed(t, "no such client")
	pin("pin", "Ada Lovelace", strings.ToLower(fingerprint)).failed(t, "want SHA256: and 43 characters of base64")
	pin("pin", "Ada Lovelace").failed(t, "1 argument: want sealiftd client pin NAME FINGERPRINT")
	pin("unpin", "nobody").failed(t, "no such client")
	pinned("")

	if got := pin("pin", "Ada Lovelace", fingerprint).succeeded(t).stdout; got != "Ada Lovelace is pinned to "+fingerprint+"\n" {
		t.Errorf("pin prints %q", got)
	}
	pinned(fingerprint)
	p.expectEnd()
	if testpeer.OverTLS() {
		d.await("pinned, and the connection shows no TLS key")
	} else {
		d.await("pinned, and the connection is plain")
	}
	p.dial()
	p.send(p.Verdict(codec.CodeCRCOK, "waiting"))
	p.expect(codec.CodeError)
	p.send(p.Reconnect())
	p.expect(codec.CodeError)
	other.upload("beside", []byte("beside"))

	again := tlskey.Fingerprint{4, 5, 6}.String()
	pin("pin", "Ada Lovelace", again).succeeded(t)
	pinned(again)
	if got := pin("unpin", "Ada Lovelace").succeeded(t).stdout; got != "Ada Lovelace is not pinned\n" {
		t.Errorf("unpin prints %q", got)
	}
	pinned("")
	p.rejoin()
	p.confirm("waiting")
	d.checkVerified(p.ID, "waiting", waiting.Content)
	p.upload("after", []byte("after"))

	p.Close()
	other.upload("last", []byte("last")) // the database is where it was
	other.Close()
	d.stop()
	pin("pin", "Ada Lovelace", fingerprint).succeeded(t)
	pinned(fingerprint)
	d = d.again()
	p.addr = d.addr
	p.dial()
	p.send(p.Reconnect())
	p.expect(codec.CodeError)
	pin("unpin", "Ada Lovelace").succeeded(t)
	p.rejoin()
	p.Close()
}
