//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealift/codec"
)

// outcomeRow is a line of "file take --json" and "file delete --json".
type outcomeRow struct {
	Client string `json:"client"`
	From   string `json:"from"`
	To     string `json:"to"`
	Size   int64  `json:"size_bytes"`
	OK     bool   `json:"ok"`
	Error  string `json:"error"`
}

// removed waits until the server has removed a file from its place.
func (d *daemon) removed(id codec.ClientID, path string) {
	d.t.Helper()
	eventually(d.t, path+" is removed", func() bool {
		_, err := os.Lstat(d.stored(id, path))
		return errors.Is(err, fs.ErrNotExist)
	})
}

// Files are taken away beside the running server, and without one: each is where the
// output says, the server has it no more, and a 1029 that comes again gets its 1604, also
// after a restart. A new version is taken when the one before was carried away.
func TestFileTake(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "Ada Lovelace")
	content := randomBytes(100_003, 1)
	p.upload("docs/a.txt", content)
	p.upload("b", []byte("b"))
	waiting := p.File("waiting", []byte("for its 1029"))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)

	out := t.TempDir()
	taken := func(path string) string { return filepath.Join(out, p.ID.String(), filepath.FromSlash(path)) }
	line := func(path string) string {
		return fmt.Sprintf("files/%s/%s -> %s\n", p.ID, path, taken(path))
	}
	d.file("take", "**").failed(t, "--to is not set")
	d.file("take", "--to", out).failed(t, "0 arguments: want sealiftd file take PATTERN --to DIR")
	d.file("take", "a", "b", "--to", out).failed(t, "2 arguments: want sealiftd file take PATTERN --to DIR").hinted(t, "Quote")
	d.file("take", "**", "--to", filepath.Join(out, "none")).failed(t, "does not exist").hinted(t, "mkdir")
	d.file("take", "**", "--to", out, "--client", "nobody").failed(t, "no such client").hinted(t, "sealiftd clients")
	if got := d.file("take", "none", "--to", out).succeeded(t).stdout; got != "0 files taken (0 B)\n" {
		t.Errorf("%q", got)
	}
	if got := d.file("take", "docs/**", "--to", out, "--dry-run").succeeded(t).stdout; got != line("docs/a.txt")+"1 file would be taken (100 kB)\n" {
		t.Errorf("%q", got)
	}
	if got := d.file("take", "docs/**", "--to", out).succeeded(t).stdout; got != line("docs/a.txt")+"1 file taken (100 kB)\n" {
		t.Errorf("%q", got)
	}
	checkFile(t, taken("docs/a.txt"), bytes.NewReader(content))
	d.removed(p.ID, "docs/a.txt")
	p.confirm("docs/a.txt")
	for _, f := range d.files() {
		if isTaken := f.Taken != nil; isTaken != strings.HasSuffix(f.Path, "docs/a.txt") {
			t.Errorf("on record is %+v", f)
		}
	}

	// A new version, while the first one is where it was taken to.
	p.upload("docs/a.txt", []byte("new"))
	r := d.file("take", "**", "--to", out, "--json", "--client", "Ada Lovelace").failed(t, "1 file left")
	for _, row := range rows[outcomeRow](t, r.stdout) {
		if row.OK != (row.To == taken("b")) || row.OK != (row.Error == "") || row.Client != p.ID.String() {
			t.Errorf("%+v", row)
		}
	}
	checkFile(t, taken("docs/a.txt"), bytes.NewReader(content))
	d.checkVerified(p.ID, "docs/a.txt", []byte("new"))
	if err := os.RemoveAll(filepath.Join(out, p.ID.String())); err != nil {
		t.Fatal(err)
	}
	d.file("take", "**", "--to", out, "--id", p.ID.String()).succeeded(t)
	checkFile(t, taken("docs/a.txt"), strings.NewReader("new"))
	d.removed(p.ID, "docs/a.txt")
	d.removed(p.ID, "b")
	p.confirm("docs/a.txt")
	p.confirm("waiting")
	p.Close()
	run(t, d.dir, sealiftd, "verify").succeeded(t)
	d.stop()
	for _, f := range d.files() {
		if f.Missing {
			t.Errorf("what was taken is called missing: %+v", f)
		}
	}

	d.file("take", "*", "--to", out).succeeded(t)
	checkFile(t, taken("waiting"), bytes.NewReader(waiting.Content))
	if entries, err := os.ReadDir(filepath.Join(d.dir, "files", p.ID.String())); err == nil {
		t.Errorf("in the store are %v", entries)
	}
	d = d.again(p)
	p.rejoin()
	for _, name := range []string{"docs/a.txt", "b", "waiting"} {
		p.confirm(name)
	}
	p.Close()
	if strings.Contains(d.log.String(), "missing") {
		t.Errorf("the server complains:\n%s", d.log)
	}
	run(t, d.dir, sealiftd, "verify").succeeded(t)
	run(t, d.dir, sealiftd, "backup", "--to", filepath.Join(t.TempDir(), "copy")).succeeded(t)
}

// To a folder on another file system files are copied.
func TestFileTakeElsewhere(t *testing.T) {
	t.Parallel()
	out, err := os.MkdirTemp("/dev/shm", "sealift-e2e-")
	if err != nil {
		t.Skip("there is no other file system:", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(out) })
	d := serve(t)
	p := login(t, d, "Ada Lovelace")
	content := randomBytes(3_000_003, 1)
	p.upload("a", content)
	d.file("take", "**", "--to", out).succeeded(t)
	checkFile(t, filepath.Join(out, p.ID.String(), "a"), bytes.NewReader(content))
	d.removed(p.ID, "a")
	p.confirm("a")
	p.Close()
}

// Files are deleted beside the running server, and without one: a 1029 for one gets 1607, and
// the client may send it again.
func TestFileDelete(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "Ada Lovelace")
	for _, running := range []bool{true, false} {
		p.upload("docs/a", []byte("a"))
		p.upload("b", []byte("b"))
		for _, name := range []string{"waiting", "docs/a"} {
			waiting := p.File(name, []byte("for its 1029"))
			p.sendPackets(cut(waiting, 0))
			p.expectReceived(waiting)
		}
		d.file("delete", "**", "--client", "nobody").failed(t, "no such client")
		if got := d.file("delete", "**", "--dry-run").succeeded(t).stdout; !strings.HasSuffix(got, "2 files would be deleted (2 B)\n") {
			t.Errorf("%q", got)
		}
		if !running {
			p.Close()
			d.stop()
		}
		want := fmt.Sprintf("files/%s/docs/a\n1 file deleted (12 B)\n", p.ID)
		if got := d.file("delete", "docs/*", "--unverified").succeeded(t).stdout; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		d.checkVerified(p.ID, "docs/a", []byte("a"))
		rows := rows[outcomeRow](t, d.file("delete", "**", "--json").succeeded(t).stdout)
		if len(rows) != 2 || !rows[0].OK || !rows[1].OK {
			t.Errorf("%+v", rows)
		}
		if all := d.files(); len(all) != 1 || all[0].FileName != "waiting" {
			t.Errorf("on record are %+v", all)
		}
		if _, err := os.Lstat(d.stored(p.ID, "b")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the content: %v", err)
		}
		if !running {
			d = d.again(p)
			p.rejoin()
		}
		for _, name := range []string{"docs/a", "b"} {
			p.send(p.Verdict(codec.CodeCRCOK, name))
			p.expect(codec.CodeError)
		}
		p.confirm("waiting")
		d.file("delete", "waiting").succeeded(t)
	}
	p.Close()
}
