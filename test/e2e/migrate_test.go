//go:build unix

package e2e

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sealift/internal/testservices"
)

// depot is what a server was moved from, and the stores that it is moved to.
type depot struct {
	t        testing.TB
	dir      string
	postgres *testservices.Postgres
	bucket   *testservices.Bucket
}

// stores returns the URLs of an empty database, and of an empty part of the bucket.
func (d *depot) stores(prefix string) (registry, files string) {
	d.t.Helper()
	registry, err := d.postgres.Database()
	if err != nil {
		d.t.Fatal(err)
	}
	return registry, d.bucket.URL(prefix)
}

// run runs a sealiftd that may ask the bucket.
func (d *depot) run(args ...string) result {
	d.t.Helper()
	return runEnv(d.t, d.dir, d.bucket.Env(), sealiftd, args...)
}

// objects lists the objects below a prefix.
func (d *depot) objects(prefix string) (all []string) {
	d.t.Helper()
	err := filepath.WalkDir(filepath.Join(d.bucket.Dir, prefix), func(path string, e fs.DirEntry, err error) error {
		// What a store that is opened tries out may be left by one that was killed.
		if err == nil && e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".sealift-") {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}

// lists are what the commands list, with these flags.
func (d *depot) lists(flags ...string) string {
	d.t.Helper()
	var all strings.Builder
	for _, list := range [][]string{{"client", "list"}, {"file", "list"}, {"events", "list"}} {
		all.WriteString(d.run(append(append(list, "--json"), flags...)...).succeeded(d.t).stdout)
	}
	return putOff.ReplaceAllString(all.String(), "")
}

// putOff is when an event is told that was not accepted: one that was moved is told at once.
var putOff = regexp.MustCompile(`"due":"[^"]*",`)

// moved is a server with files of all kinds that is stopped, and its client.
func moved(t *testing.T) (*depot, *peer) {
	t.Helper()
	d := &depot{t: t, postgres: testservices.NewPostgres(t, testservices.PostgresOptions{}), bucket: testservices.S3(t)}
	s := serve(t, "--on-event", "false")
	d.dir = s.dir
	p := login(t, s, "Ada Lovelace")
	for i := range 70 {
		p.upload(fmt.Sprint("docs/", i), randomBytes(100+i, byte(i)))
	}
	p.upload("large", randomBytes(3<<20, 1))
	waiting := p.File("waiting", randomBytes(100_000, 2))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)
	p.half("half")
	p.Close()
	s.await("partial file kept")
	s.kept(1)
	s.stop()
	return d, p
}

// A directory is moved by a command that is killed at random moments and started again: what
// is on record is the same, each object is there once, and the server on the new stores gives
// each client its answer.
func TestMigrateKilled(t *testing.T) {
	t.Parallel()
	rounds := 4
	if large {
		rounds = 50
	}
	d, p := moved(t)
	before := d.lists("--dir", d.dir)
	if n := strings.Count(before, `"partial_bytes":`); n != 1 {
		t.Fatalf("%d partial files in %s", n, before)
	}
	var whole time.Duration // of a move that is not killed
	var registry, files string
	for round := range rounds {
		prefix := fmt.Sprint("round", round)
		registry, files = d.stores(prefix)
		move := []string{"migrate", "--from", d.dir, "--to", registry, "--to", files}
		kills := 0
		for began := time.Now(); round > 0 && kills < 3; {
			m := start(t, d.dir, d.bucket.Env(), sealiftd, move...)
			kill := time.AfterFunc(rand.N(whole), func() { _ = m.cmd.Process.Kill() })
			ended := m.wait()
			if kill.Stop(); ended.status != -1 {
				ended.succeeded(t)
				break
			}
			if kills++; time.Since(began) > patience {
				t.Fatal("it takes too long")
			}
		}
		began := time.Now()
		last := d.run(move...).succeeded(t).stdout
		if round == 0 {
			whole = time.Since(began)
			if !strings.HasPrefix(last, "1 client, 72 files (3.3 MB), 1 partial file, 144 events and 0 added names moved; 72 files sent") {
				t.Errorf("%q", last)
			}
		}
		if after := d.lists("--registry", registry, "--files", files); after != before {
			t.Fatalf("after %d kills there is\n%s\nbefore there was\n%s", kills, after, before)
		}
		if got := d.run("verify", "--registry", registry, "--files", files).succeeded(t).stdout; !strings.HasPrefix(got, "71 of 71 files") {
			t.Errorf("%q", got)
		}
		// What is there of the partial file is one object: its tail.
		if all := d.objects(prefix); len(all) != 73 {
			t.Errorf("after %d kills there are %d objects of 72 files and a part of one:\n%s", kills, len(all), strings.Join(all, "\n"))
		}
		if round < rounds-1 {
			if err := os.Remove(filepath.Join(d.dir, "moved")); err != nil {
				t.Fatal(err)
			}
		}
		if t.Failed() {
			return
		}
	}

	d.run("serve", "--dir", d.dir).failed(t, "was moved to").hinted(t, "--registry")
	s := launch(t, t.TempDir(), d.bucket.Env(), "serve", "--listen", "127.0.0.1:0", "--registry", registry, "--files", files)
	s.ready()
	p.addr = s.addr
	p.dial()
	p.rejoin()
	p.confirm("waiting")
	p.confirm("docs/1")
	if offset, err := p.Resume("half", randomBytes(8<<20, 7), 1<<20); err != nil || offset != 4<<20 {
		t.Errorf("the upload that was cut goes on at %d, %v", offset, err)
	}
	inbox := t.TempDir()
	got := d.run("file", "take", "{waiting,docs/1}", "--to", inbox, "--registry", registry, "--files", files).succeeded(t).stdout
	if got != "0 files taken (0 B)\n" {
		t.Errorf("%q", got)
	}
	got = d.run("file", "take", "waiting", "--to", inbox, "--registry", registry, "--files", files).succeeded(t).stdout
	if !strings.HasSuffix(got, "\n1 file taken (100 kB)\n") {
		t.Errorf("%q", got)
	}
	checkFile(t, filepath.Join(inbox, p.ID.String(), "waiting"), strings.NewReader(string(randomBytes(100_000, 2))))
}
