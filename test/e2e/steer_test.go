//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sealift/codec"
)

// client runs sealiftd client.
func (d *daemon) client(args ...string) result {
	d.t.Helper()
	return run(d.t, d.dir, sealiftd, append([]string{"client"}, args...)...)
}

// file runs sealiftd file.
func (d *daemon) file(args ...string) result {
	d.t.Helper()
	return run(d.t, d.dir, sealiftd, append([]string{"file"}, args...)...)
}

// state is what the list says of a client.
func (d *daemon) state(name string) string {
	d.t.Helper()
	for _, line := range cells(d.client("list").succeeded(d.t).stdout)[1:] {
		if line[1] == name {
			return line[4]
		}
	}
	return ""
}

// shutOut makes sure that a new connection of p gets code when it reconnects.
func (p *peer) shutOut(code codec.Code) {
	p.t.Helper()
	p.dial()
	p.send(p.Reconnect())
	p.expect(code)
}

// A client that is disabled beside the running server loses its connections, and gets 1607
// to everything until it is enabled. Its files and its name stay, and others do not notice.
func TestClientDisable(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p, other := login(t, d, "Ada Lovelace"), login(t, d, "other")
	p.upload("before", []byte("before"))
	waiting := p.File("waiting", []byte("for its 1029"))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)

	d.client("disable", "nobody").failed(t, `no such client: "nobody"`).hinted(t, "sealiftd clients")
	d.client("disable", "ada lovelace").failed(t, "no such client")
	d.client("disable", "--id", "abc").failed(t, "want 32 hex digits")
	d.client("disable").failed(t, "0 arguments: want sealiftd client disable NAME")
	if got := d.state("Ada Lovelace"); got != "enabled" {
		t.Errorf("state %q", got)
	}

	if got := d.client("disable", "Ada Lovelace").succeeded(t).stdout; got != "Ada Lovelace is disabled\n" {
		t.Errorf("disable prints %q", got)
	}
	p.expectEnd()
	if got := d.state("Ada Lovelace"); got != "disabled" {
		t.Errorf("state %q", got)
	}
	p.shutOut(codec.CodeError)
	p.dial()
	p.send(p.Verdict(codec.CodeCRCOK, "waiting"))
	p.expect(codec.CodeError)
	stranger := connect(t, d, "Ada Lovelace")
	stranger.send(stranger.Register())
	stranger.expect(codec.CodeRegisterFailed)
	other.upload("beside", []byte("beside"))

	d.client("enable", "--id", p.ID.String()).succeeded(t)
	if got := d.state("Ada Lovelace"); got != "enabled" {
		t.Errorf("state %q", got)
	}
	p.dial()
	p.rejoin()
	p.confirm("waiting")
	p.upload("after", []byte("after"))
	d.checkVerified(p.ID, "before", []byte("before"))
	d.checkVerified(p.ID, "waiting", waiting.Content)

	p.Close()
	other.Close()
	d.stop()
	d.client("disable", "--id", p.ID.String()).succeeded(t)
	d = d.again(p)
	p.send(p.Reconnect())
	p.expect(codec.CodeError)
	d.client("enable", "Ada Lovelace").succeeded(t)
	p.dial()
	p.rejoin()
	p.Close()
}

// A client that is deleted, beside the running server or without one, gets 1606, and its name
// is free. One with files is left alone unless they may go.
func TestClientDelete(t *testing.T) {
	t.Parallel()
	d := serve(t)
	for _, running := range []bool{true, false} {
		apart := func(do func()) {
			t.Helper()
			if !running {
				d.stop()
			}
			do()
			if !running {
				d = d.again()
			}
		}
		p, other := login(t, d, "Ada Lovelace"), login(t, d, "other")
		other.upload("stays", []byte("stays"))
		if !running {
			p.Close()
			other.Close()
		}
		apart(func() {
			if got := d.client("delete", "Ada Lovelace").succeeded(t).stdout; got != "Ada Lovelace is deleted\n" {
				t.Errorf("delete prints %q", got)
			}
			d.client("delete", "Ada Lovelace").failed(t, "no such client")
		})
		if running {
			p.expectEnd()
		}
		p.addr = d.addr
		p.shutOut(codec.CodeReconnectRejected)
		old := p.ID
		p.dial()
		p.signUp()
		p.exchange()
		if p.ID == old {
			t.Error("it has its old id again")
		}
		p.upload("folder/file", []byte("content"))
		waiting := p.File("waiting", []byte("for its 1029"))
		p.sendPackets(cut(waiting, 0))
		p.expectReceived(waiting)
		if !running {
			p.Close()
		}

		apart(func() {
			d.client("delete", "Ada Lovelace").failed(t, `"Ada Lovelace" has 2 files on record`).hinted(t, "--with-files")
		})
		if running {
			p.upload("another", []byte("it was not disabled"))
			other.upload("beside", []byte("beside"))
		}
		apart(func() {
			if got := d.client("delete", "Ada Lovelace", "--with-files").succeeded(t).stdout; !strings.HasPrefix(got, "Ada Lovelace is deleted, with ") {
				t.Errorf("delete prints %q", got)
			}
			if _, err := os.Lstat(filepath.Join(d.dir, "files", p.ID.String())); !os.IsNotExist(err) {
				t.Errorf("its folder: %v", err)
			}
			if left := d.incoming(); len(left) > 0 {
				t.Errorf("incoming are %q", left)
			}
		})
		p.addr = d.addr
		p.shutOut(codec.CodeReconnectRejected)
		p.dial()
		p.signUp()
		p.exchange()
		p.send(p.Verdict(codec.CodeCRCOK, "waiting"))
		p.expect(codec.CodeError)
		p.Close()
		d.checkVerified(other.ID, "stays", []byte("stays"))
		apart(func() {
			d.client("delete", "--id", p.ID.String()).succeeded(t)
			d.client("delete", "--with-files", "other").succeeded(t)
			if c := d.clients(); len(c) != 0 {
				t.Errorf("left are %+v", c)
			}
		})
	}
}

// A name that a lost 1600 has blocked is freed by deleting the client that nobody is.
func TestClientDeleteFreesName(t *testing.T) {
	t.Parallel()
	d := serve(t)
	lost := connect(t, d, "Ada Lovelace")
	lost.send(lost.Register())
	lost.expect(codec.CodeRegistered)
	lost.Close()
	p := connect(t, d, "Ada Lovelace")
	p.send(p.Register())
	p.expect(codec.CodeRegisterFailed)
	if got := d.state("Ada Lovelace"); got != "no key" {
		t.Errorf("state %q", got)
	}
	d.client("delete", "Ada Lovelace").succeeded(t)
	p.dial()
	p.signUp()
	p.exchange()
	p.upload("f", []byte("content"))
	p.Close()
}

// With registration closed only names that were added register, as often as need be, until
// they are taken back.
func TestClientAdd(t *testing.T) {
	t.Parallel()
	d := serve(t, "--registration", "closed")
	p := connect(t, d, "Ada Lovelace")
	p.send(p.Register())
	p.expect(codec.CodeRegisterFailed)

	d.client("add", "").failed(t, "empty")
	if got := d.client("add", "Ada Lovelace").succeeded(t).stdout; got != "Ada Lovelace is added and may register\n" {
		t.Errorf("add prints %q", got)
	}
	d.client("add", "Ada Lovelace").succeeded(t)
	d.client("add", "--", "-v").succeeded(t)
	list := d.clients()
	i := slices.IndexFunc(list, func(c clientRow) bool { return c.Name == "Ada Lovelace" })
	if len(list) != 2 || i < 0 || list[i].ID != "" || !list[i].Added || d.state("Ada Lovelace") != "added" {
		t.Errorf("listed are %+v", list)
	}
	d.client("delete", "--", "-v").succeeded(t)
	d.client("delete", "--", "-v").failed(t, "no such client")

	p.dial()
	p.signUp() // its 1600 may be lost
	d.client("add", "Ada Lovelace").failed(t, "has registered as").hinted(t, "delete that client")
	if list = d.clients(); len(list) != 1 || list[0].ID != p.ID.String() || !list[0].Added {
		t.Errorf("listed are %+v", list)
	}
	p.exchange()
	p.upload("f", []byte("content"))
	d.client("delete", "Ada Lovelace", "--with-files").succeeded(t)
	p.expectEnd()
	p.shutOut(codec.CodeReconnectRejected)
	p.dial()
	p.send(p.Register())
	p.expect(codec.CodeRegisterFailed)
	p.Close()
}
