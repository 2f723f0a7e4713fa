//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
)

// hinted makes sure of the hint after the fatal error.
func (r result) hinted(t testing.TB, what string) result {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "Hint: ") || !strings.Contains(last, what) {
		t.Errorf("the last line is %q, want a hint that says %q", last, what)
	}
	return r
}

// serveInVain makes sure that no server starts on dir.
func serveInVain(t testing.TB, dir, why, hint string, args ...string) {
	t.Helper()
	args = append([]string{"--dir", dir, "--listen", "127.0.0.1:0"}, args...)
	run(t, t.TempDir(), sealiftd, args...).failed(t, why).hinted(t, hint)
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// A client's files that are away at one start are marked, and on record again
// when they are back.
func TestFilesAwayAtOneStart(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p, other := login(t, d, "n"), login(t, d, "other")
	contents := map[string][]byte{}
	for i := range 5 {
		name := fmt.Sprint("docs/", i)
		contents[name] = randomBytes(100_000+i, byte(i))
		p.upload(name, contents[name])
	}
	other.upload("stays", []byte("stays"))
	d.kill()
	away := filepath.Join(t.TempDir(), "away")
	rename(t, d.stored(p.ID, ""), away)

	d = d.again(p, other)
	d.expected = "stored files were not found; they are marked as missing"
	d.await(d.expected)
	for _, f := range d.files() {
		if f.Missing != (f.Client == p.ID.String()) {
			t.Errorf("files: %+v", f)
		}
	}
	run(t, d.dir, sealiftd, "verify", "--dir", d.dir).failed(t, "5 of 6 files are not as they were uploaded")
	p.send(p.Verdict(codec.CodeCRCOK, "docs/0")) // its 1604 was lost, says the client
	p.expect(codec.CodeError)
	p.upload("docs/1", []byte("sent again"))
	contents["docs/1"] = []byte("sent again")
	d.kill()
	if err := os.RemoveAll(filepath.Join(away, "docs", "1")); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if i != 1 {
			rename(t, filepath.Join(away, "docs", fmt.Sprint(i)), d.stored(p.ID, fmt.Sprint("docs/", i)))
		}
	}

	d = d.again(p, other)
	for name, content := range contents {
		d.checkVerified(p.ID, name, content)
		p.confirm(name)
	}
}

// Where no file at all is there, no server starts, and nothing changes, until
// they are back or forgotten.
func TestDiskNotMounted(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "n")
	for i := range 12 {
		p.upload(fmt.Sprint(i), []byte("content"))
	}
	p.Close()
	d.stop()
	folder, away := filepath.Join(d.dir, "files"), filepath.Join(t.TempDir(), "files")
	rename(t, folder, away)
	serveInVain(t, d.dir, "none of the 12 recorded files was found", "Is the right disk mounted? To start without them: sealiftd forget-missing --dir "+d.dir)
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	rename(t, away, folder)
	d = d.again()
	d.checkVerified(p.ID, "7", []byte("content"))
	d.stop()

	if err := os.RemoveAll(d.stored(p.ID, "")); err != nil {
		t.Fatal(err)
	}
	serveInVain(t, d.dir, "none of the 12 recorded files was found", "forget-missing")
	got := run(t, d.dir, sealiftd, "forget-missing", "--dry-run").succeeded(t).stdout
	if !strings.HasSuffix(got, "\n12 missing files would be forgotten\n") || len(d.files()) != 12 {
		t.Errorf("dry run: %s", got)
	}
	got = run(t, d.dir, sealiftd, "forget-missing", "--dir", d.dir).succeeded(t).stdout
	if !strings.HasSuffix(got, "\n12 missing files forgotten\n") || !strings.Contains(got, "files/"+p.ID.String()+"/7\n") || len(d.files()) != 0 {
		t.Errorf("%s", got)
	}
	d = d.again(p)
	p.upload("7", []byte("sent again"))
	d.checkVerified(p.ID, "7", []byte("sent again"))
}

// forget-missing forgets what is missing, also beside the server, and nothing
// else.
func TestForgetMissing(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "n")
	for _, name := range []string{"kept", "gone", "marked"} {
		p.upload(name, []byte(name))
	}
	waiting := p.File("gone", []byte("a new version of it"))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)
	remove := func(name string) {
		if err := os.Remove(d.stored(p.ID, name)); err != nil {
			t.Fatal(err)
		}
	}
	remove("marked")
	d.kill()
	d = d.again(p)
	d.expected = "they are marked as missing"
	d.await(d.expected)
	remove("gone")
	got := run(t, d.dir, sealiftd, "forget-missing", "--dir", d.dir).succeeded(t).stdout
	want := fmt.Sprintf("files/%[1]s/gone\nfiles/%[1]s/marked\n2 missing files forgotten\n", p.ID)
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.confirm("gone")
	d.checkVerified(p.ID, "gone", waiting.Content)
	d.checkVerified(p.ID, "kept", []byte("kept"))
	if got := run(t, d.dir, sealiftd, "forget-missing", "--dir", d.dir).succeeded(t).stdout; got != "0 missing files forgotten\n" {
		t.Errorf("again: %q", got)
	}
}

func TestTakeStrays(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "n")
	p.upload("kept", []byte("kept"))
	p.upload("grown", []byte("short"))
	waiting := p.File("waiting", []byte("an upload"))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)
	stray := randomBytes(100_000, 1)
	put(t, d.stored(p.ID, "docs/new product.txt"), stray)
	put(t, d.stored(p.ID, "grown"), stray[:1000])
	put(t, d.stored(p.ID, "waiting"), []byte("not the upload"))
	put(t, d.stored(codec.ClientID{1}, "f"), []byte("whose?"))

	run(t, d.dir, sealiftd, "take-strays", "--dir", d.dir).failed(t, "another sealiftd uses this directory").hinted(t, "Stop the server first")
	p.Close()
	d.stop()
	before := fmt.Sprint(d.files())
	dry := run(t, d.dir, sealiftd, "take-strays", "--dry-run").failed(t, "2 files left alone").stdout
	if after := fmt.Sprint(d.files()); after != before {
		t.Errorf("the dry run changed %s\nto %s", before, after)
	}
	got := run(t, d.dir, sealiftd, "take-strays").failed(t, "2 files left alone").stdout
	if strings.ReplaceAll(dry, "would be ", "") != got {
		t.Errorf("dry run: %s\nand then: %s", dry, got)
	}
	for _, want := range []string{
		fmt.Sprintf("files/%s/docs/new product.txt  100000 bytes, cksum %d\n", p.ID, cksum.Checksum(stray)),
		fmt.Sprintf("files/%s/grown  1000 bytes, cksum %d\n", p.ID, cksum.Checksum(stray[:1000])),
		"/waiting: an upload of that name awaits its 1029",
		codec.ClientID{1}.String() + "/f: the registry has no client with that id\n",
		"\n2 files taken\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}

	d = d.again(p)
	d.checkVerified(p.ID, "docs/new product.txt", stray)
	d.checkVerified(p.ID, "grown", stray[:1000])
	p.confirm("docs/new product.txt") // as for a file whose 1604 was lost
	p.confirm("waiting")
	d.checkVerified(p.ID, "waiting", waiting.Content)
}

// A lost database is told from a new directory.
func TestLostDatabase(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "n")
	p.upload("file", []byte("content"))
	p.Close()
	d.stop()
	database, away := filepath.Join(d.dir, "defensive.db"), filepath.Join(t.TempDir(), "defensive.db")
	rename(t, database, away)
	const why, hint = "there are stored files, and no record of any client", "Put it back from a backup."
	for range 2 {
		serveInVain(t, d.dir, why, hint)
		for _, command := range []string{"clients", "files", "verify", "forget-missing", "take-strays"} {
			run(t, d.dir, sealiftd, command).failed(t, why).hinted(t, hint)
		}
		if _, err := os.Stat(database); err == nil {
			t.Error("a refusal leaves a database")
		}
	}
	put(t, database, nil) // as some copies end
	serveInVain(t, d.dir, why, hint)

	rename(t, away, database)
	d = d.again(p)
	p.rejoin()
	d.checkVerified(p.ID, "file", []byte("content"))
}

// A registry in memory takes no directory that has a database, and gives nobody
// the id of a client of an earlier run.
func TestMemoryRegistryOnAUsedDirectory(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "n")
	waiting := p.File("file", []byte("content"))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)
	p.Close()
	d.stop()
	serveInVain(t, d.dir, "want a directory without a database", "Give a registry in memory another --dir.", "--registry", "memory")
	d.again(p)
	p.confirm("file")

	m := serve(t, "--registry", "memory")
	q := login(t, m, "n")
	q.upload("file", []byte("content"))
	m.kill()
	m = serveIn(t, m.dir, "--registry", "memory")
	m.await("stored files of earlier clients were found")
	mallory := connect(t, m, "mallory")
	mallory.ID = q.ID
	mallory.send(mallory.Reconnect())
	mallory.expect(codec.CodeReconnectRejected)
	mallory.send(mallory.OtherPublicKey(otherKey()))
	mallory.expect(codec.CodeError)
	checkFile(t, m.stored(q.ID, "file"), strings.NewReader("content"))
}
