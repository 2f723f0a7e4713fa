//go:build unix

package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"sealift/internal/testpeer"
)

// half sends about half of a file of 8 MiB.
func (p *peer) half(name string) *testpeer.File {
	p.t.Helper()
	f := p.File(name, randomBytes(8<<20, 7))
	p.sendPackets(f.Packets(testpeer.Spec, 1<<20)[:4])
	return f
}

// partials are the lines of the list about partial files: path, state and how much is there.
func (d *daemon) partials() (lines []string) {
	d.t.Helper()
	for line := range strings.Lines(d.file("list").succeeded(d.t).stdout) {
		if strings.Contains(line, " of 8388608 ") {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	return lines
}

// kept waits until there are n partial files.
func (d *daemon) kept(n int) {
	d.t.Helper()
	eventually(d.t, "partial files", func() bool { return len(d.partials()) == n })
}

// arrived is how many bytes all incoming files have.
func (d *daemon) arrived() (n int64) {
	d.t.Helper()
	for _, path := range d.incoming() {
		if info, err := os.Stat(path); err == nil { // else it has gone meanwhile
			n += info.Size()
		}
	}
	return n
}

// What came of an upload is kept when its connection is lost, when the server is stopped
// with the upload under way, and when it is killed; the lists show it, and file delete
// removes it, beside the server or without one.
func TestPartialFilesStay(t *testing.T) {
	t.Parallel()
	d := serve(t, "--drain-timeout", "200ms")
	p := login(t, d, "Ada Lovelace")
	p.half("lost/connection")
	p.Close()
	d.await("partial file kept") // before, a row says that there is one, of no bytes
	d.kept(1)
	line := d.partials()[0]
	if !strings.HasPrefix(line, "files/"+p.ID.String()+"/lost/connection 4194") || !strings.Contains(line, " - partial ") {
		t.Errorf("listed as %q", line)
	}

	p.dial()
	p.rejoin()
	p.half("stopped")
	eventually(t, "the content", func() bool { return d.arrived() >= 2*(4<<20-32) })
	d.stop() // SIGTERM
	if got := d.partials(); len(got) != 2 || !strings.Contains(got[1], "/stopped 4194") {
		t.Errorf("after SIGTERM %q", got)
	}
	d = d.again()
	d.kept(2)
	var rows []struct {
		Path    string `json:"path"`
		Size    int64  `json:"size_bytes"`
		Partial int64  `json:"partial_bytes"`
	}
	for _, text := range strings.Split(strings.TrimSpace(d.file("list", "--json").succeeded(t).stdout), "\n") {
		rows = append(rows, struct {
			Path    string `json:"path"`
			Size    int64  `json:"size_bytes"`
			Partial int64  `json:"partial_bytes"`
		}{})
		if err := json.Unmarshal([]byte(text), &rows[len(rows)-1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range rows {
		if r.Size != 8<<20 || r.Partial < 4<<20-32 || r.Partial > 4<<20 {
			t.Errorf("as JSON %+v", r)
		}
	}

	p.addr = d.addr
	p.dial()
	p.rejoin()
	p.half("killed")
	d.kept(3)
	d.kill()
	d = d.again()
	d.kept(3)
	if n := len(d.incoming()); n != 3 {
		t.Errorf("%d incoming files after a kill, want 3", n)
	}

	// Beside the server, and without one.
	d.file("delete", "--unverified", "lost/*").succeeded(t)
	if got := d.partials(); len(got) != 2 || len(d.incoming()) != 2 {
		t.Errorf("after a deletion %q, %d incoming files", got, len(d.incoming()))
	}
	d.file("delete", "**").succeeded(t)
	d.kept(2)
	d.stop()
	d.file("delete", "--unverified", "stopped").succeeded(t)
	if got := d.partials(); len(got) != 1 || len(d.incoming()) != 1 {
		t.Errorf("after a deletion %q, %d incoming files", got, len(d.incoming()))
	}
	d = d.again()
	d.client("delete", "Ada Lovelace").failed(t, "has 1 file on record")
	d.client("delete", "--with-files", "Ada Lovelace").succeeded(t)
	eventually(t, "no content", func() bool { return len(d.incoming()) == 0 })
	if got := d.partials(); len(got) != 0 {
		t.Errorf("after the client was deleted %q", got)
	}
}

// Partial files that nobody goes on with go when their time is over.
func TestPartialFilesExpire(t *testing.T) {
	t.Parallel()
	d := serve(t, "--partial-ttl", "1ms")
	p := login(t, d, "Ada Lovelace")
	p.half("a")
	p.Close()
	eventually(t, "no content", func() bool { return strings.Contains(d.log.String(), "in time") && len(d.incoming()) == 0 })
	d.kept(0)
}
