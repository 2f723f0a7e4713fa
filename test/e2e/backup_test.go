//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sealift/codec"
)

// A copy that is made while the server replaces the files is whole, each of its
// files is one of the versions, and a server starts on it.
func TestBackupOfARunningServer(t *testing.T) {
	t.Parallel()
	d := serve(t)
	put(t, filepath.Join(d.dir, "port.info"), []byte("12345"))
	p := login(t, d, "n")
	const files = 40
	content := func(i, version int) []byte { return randomBytes(50_000+1000*i+version, byte(i*7+version)) }
	for i := range files {
		p.upload(fmt.Sprint("docs/", i), content(i, 0))
	}
	waiting := p.File("waiting", []byte("for its 1029"))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)

	stop, version := make(chan struct{}), 0
	var writing sync.WaitGroup
	writing.Add(1)
	go func() {
		defer writing.Done()
		for {
			version++
			for i := range files {
				select {
				case <-stop:
					return
				default:
					p.upload(fmt.Sprint("docs/", i), content(i, version%4))
				}
			}
		}
	}()
	var copies []string
	for i := range 3 {
		to := filepath.Join(t.TempDir(), "copy")
		if i == 1 {
			if err := os.Mkdir(to, 0o700); err != nil { // an empty one is as good
				t.Fatal(err)
			}
		}
		run(t, d.dir, sealiftd, "backup", "--to", to).succeeded(t)
		copies = append(copies, to)
	}
	close(stop)
	writing.Wait()

	for _, to := range copies {
		got := run(t, to, sealiftd, "verify").succeeded(t).stdout
		if !strings.HasPrefix(got, fmt.Sprintf("%d of %d files", files, files)) {
			t.Errorf("verify of the copy: %s", got)
		}
		if _, err := os.Stat(to + ".partial"); err == nil {
			t.Error("the partial copy is still there")
		}
		if got := string(get(t, filepath.Join(to, "port.info"))); got != "12345" {
			t.Errorf("port.info is %q", got)
		}
		if info, err := os.Stat(filepath.Join(to, "defensive.db")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the database has mode %v, %v: it holds keys", info.Mode(), err)
		}
	}
	c := serveIn(t, copies[0])
	for i := range files {
		stored := get(t, c.stored(p.ID, fmt.Sprint("docs/", i)))
		one := false
		for v := range 4 {
			one = one || bytes.Equal(stored, content(i, v))
		}
		if !one {
			t.Errorf("docs/%d is none of the versions", i)
		}
	}
	q := *p
	q.addr, q.Net = c.addr, nil
	q.dial()
	q.rejoin()
	q.send(q.Verdict(codec.CodeCRCOK, "waiting"))
	q.expect(codec.CodeError) // it was left out
	q.upload("waiting", waiting.Content)
	c.checkVerified(q.ID, "waiting", waiting.Content)
}

// A backup of a server that misses files says which, and has all the others.
func TestBackupWithoutWhatIsMissing(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "n")
	for _, name := range []string{"good", "missing", "damaged"} {
		p.upload(name, []byte(name))
	}
	if err := os.Remove(d.stored(p.ID, "missing")); err != nil {
		t.Fatal(err)
	}
	put(t, d.stored(p.ID, "damaged"), []byte("Damaged"))
	to := filepath.Join(t.TempDir(), "copy")
	got := run(t, d.dir, sealiftd, "backup", "--to", to).failed(t, "the copy is made, without 2 files")
	for _, name := range []string{"missing", "damaged"} {
		if !strings.Contains(got.stdout, "/"+name+": ") {
			t.Errorf("%s is not told of: %s", name, got.stdout)
		}
	}
	c := serveIn(t, to)
	c.expected = "they are marked as missing"
	for _, f := range c.files() {
		if f.Missing != (f.FileName != "good") {
			t.Errorf("in the copy: %+v", f)
		}
	}
	checkFile(t, c.stored(p.ID, "good"), strings.NewReader("good"))
}

// A backup that is interrupted leaves nothing behind, or the whole of it.
func TestBackupInterrupted(t *testing.T) {
	t.Parallel()
	d := serve(t)
	login(t, d, "n").upload("file", randomBytes(64<<20, 1))
	to := filepath.Join(t.TempDir(), "copy")
	p := start(t, d.dir, nil, sealiftd, "backup", "--to", to)
	eventually(t, "the copy is begun", func() bool {
		names, err := filepath.Glob(to + "*")
		return err == nil && len(names) > 0
	})
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	switch got := p.wait(); got.status {
	case 0:
		run(t, to, sealiftd, "verify").succeeded(t)
	default:
		got.failed(t, "context canceled")
		if names, err := filepath.Glob(to + "*"); err != nil || len(names) > 0 {
			t.Errorf("left behind: %q, %v", names, err)
		}
	}
}

func TestBackupRefusals(t *testing.T) {
	t.Parallel()
	d := serve(t)
	login(t, d, "n").upload("file", []byte("content"))
	base := t.TempDir()
	full := filepath.Join(base, "full")
	put(t, filepath.Join(full, "something"), nil)
	put(t, filepath.Join(base, "begun.partial", "something"), nil)
	for to, why := range map[string]string{
		"":                           "--to is not set",
		full:                         "is not empty: want an empty folder, or none",
		filepath.Join(base, "begun"): "begun.partial exists",
		filepath.Join(base, "no", "such", "folder"):   "no such file",
		filepath.Join(d.dir, "files", "copy"):         "is among the files of the server",
		filepath.Join(full, "something"):              "not a directory",
		filepath.Join(d.dir, "files", ".", "", "sub"): "is among the files of the server",
	} {
		run(t, d.dir, sealiftd, "backup", "--to", to).failed(t, why)
	}
	empty := t.TempDir()
	run(t, empty, sealiftd, "backup", "--to", filepath.Join(base, "copy")).failed(t, "defensive.db")
	for _, dir := range []string{empty, base} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != map[string]int{empty: 0, base: 2}[dir] {
			t.Errorf("left behind: %v, %v", entries, err)
		}
	}
}
