//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sealift/internal/testpeer"
)

// outbox is a folder with a file "file" and, once sealift has registered, a
// me.info.
type outbox struct {
	t   *testing.T
	dir string
}

func newOutbox(t *testing.T) *outbox {
	o := &outbox{t, t.TempDir()}
	put(t, o.path("file"), []byte("content"))
	return o
}

func (o *outbox) path(name string) string { return filepath.Join(o.dir, name) }

func (o *outbox) send(d *daemon, more ...string) result {
	o.t.Helper()
	return run(o.t, o.dir, sealift, slices.Concat([]string{"send", "--server", d.addr}, more, []string{"file"})...)
}

// identities are the files whose names begin with me.info, but for its lock.
func (o *outbox) identities() (names []string) {
	o.t.Helper()
	entries, err := os.ReadDir(o.dir)
	if err != nil {
		o.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "me.info") && e.Name() != "me.info.lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

// has makes sure that these are the identities.
func (o *outbox) has(want ...string) {
	o.t.Helper()
	if got := o.identities(); fmt.Sprint(got) != fmt.Sprint(want) {
		o.t.Errorf("there are %q, want %q", got, want)
	}
}

// The server takes no 1026: the id that it has given stays, and comes to its key
// later, by whichever way.
func TestTheKeyIsNotTaken(t *testing.T) {
	t.Parallel()
	for _, noted := range []bool{true, false} {
		d, o := serve(t, "--fault", "drop=1026:4"), newOutbox(t)
		put(t, o.path("transfer.info"), transferInfo(d.addr, "Ada", "file"))
		run(t, o.dir, sealift).later(t, "message 1026")
		o.has("me.info", "me.info.pending")
		before := get(t, o.path("me.info"))
		if !noted { // as another program leaves it
			if err := os.Remove(o.path("me.info.pending")); err != nil {
				t.Fatal(err)
			}
		}
		run(t, o.dir, sealift).succeeded(t)
		if !bytes.Equal(get(t, o.path("me.info")), before) {
			t.Error("me.info has changed")
		}
		if noted {
			o.has("me.info")
		}
		d.checkVerified(readMe(t, o.path("me.info")).id, "file", []byte("content"))
		if clients := d.clients(); len(clients) != 1 {
			t.Errorf("clients %+v", clients)
		}
	}
	// With time, one run is enough.
	d, o := serve(t, "--fault", "drop=1026:4"), newOutbox(t)
	o.send(d, "--name", "Ada").succeeded(t)
	o.has("me.info")
}

// The server refuses each 1026 of a client that it has just registered: it may
// take the key later, and then the next run goes on.
func TestTheKeyIsRefused(t *testing.T) {
	t.Parallel()
	d, o := serve(t, "--fault", "error=1026:4"), newOutbox(t)
	got := o.send(d, "--name", "Ada").later(t, "message 1026 public key: the server answered with a general error (1607)")
	if !strings.Contains(got.stdout, `registered "Ada" with`) {
		t.Errorf("stdout %q", got.stdout)
	}
	o.has("me.info", "me.info.pending")
	o.send(d).succeeded(t)
	o.has("me.info")
	if clients := d.clients(); len(clients) != 1 {
		t.Errorf("clients %+v", clients)
	}
}

// A client that comes to another server registers there, and who it was at the
// first stays beside. With that it goes on at the first.
func TestAtAnotherServer(t *testing.T) {
	t.Parallel()
	first, second, o := serve(t), serve(t), newOutbox(t)
	o.send(first, "--name", "Ada").succeeded(t)
	before := get(t, o.path("me.info"))
	old := readMe(t, o.path("me.info"))
	kept := "me.info." + old.id.String()
	o.send(second).succeeded(t)
	o.has("me.info", kept)
	if !bytes.Equal(get(t, o.path(kept)), before) {
		t.Error("the old identity was not kept as it was")
	}
	now := readMe(t, o.path("me.info"))
	if now.id == old.id || now.key.Equal(old.key) || now.name != "Ada" {
		t.Errorf("now %q, %v", now.name, now.id)
	}
	second.checkVerified(now.id, "file", []byte("content"))
	// Back at the first, the name is taken, and the error says by whom.
	o.send(first).failed(t, "Who it was before is kept: --identity "+kept)
	put(t, o.path("transfer.info"), transferInfo(first.addr, "Ada", "file"))
	run(t, o.dir, sealift).failed(t, "Who it was before is kept in "+kept)
	if err := os.Rename(o.path(kept), o.path("me.info")); err != nil {
		t.Fatal(err)
	}
	o.send(first).succeeded(t)
	first.checkVerified(old.id, "file", []byte("content"))
}

// Another server, at which the name is taken: nothing is lost, and the error says
// what to do.
func TestAtAnotherServerWithTheName(t *testing.T) {
	t.Parallel()
	first, second, o := serve(t), serve(t), newOutbox(t)
	login(t, second, "Ada")
	o.send(first, "--name", "Ada").succeeded(t)
	before := get(t, o.path("me.info"))
	for range 2 {
		got := o.send(second)
		got.failed(t, "1606")
		got.failed(t, "1601")
		got.failed(t, "Is this the server that it is from?")
		o.has("me.info")
		if !bytes.Equal(get(t, o.path("me.info")), before) {
			t.Fatal("me.info has changed")
		}
	}
	o.send(first).succeeded(t)
}

// A file that has the name under which an identity is to be kept stays.
func TestAKeptIdentityIsNeverOverwritten(t *testing.T) {
	t.Parallel()
	first, second, o := serve(t), serve(t), newOutbox(t)
	o.send(first, "--name", "Ada").succeeded(t)
	before := get(t, o.path("me.info"))
	kept := "me.info." + readMe(t, o.path("me.info")).id.String()
	put(t, o.path(kept), []byte("something else"))
	o.send(second).succeeded(t)
	o.has("me.info", kept, kept+".2")
	if string(get(t, o.path(kept))) != "something else" || !bytes.Equal(get(t, o.path(kept+".2")), before) {
		t.Error("what was kept has changed")
	}
}

// An editor that leaves blanks at the ends of lines changes nobody's name.
func TestBlanksInMeInfo(t *testing.T) {
	t.Parallel()
	d, o := serve(t), newOutbox(t)
	o.send(d, "--name", " Ada ").succeeded(t)
	id := readMe(t, o.path("me.info")).id
	spoilt := bytes.ReplaceAll(get(t, o.path("me.info")), []byte("\n"), []byte(" \t\n"))
	put(t, o.path("me.info"), spoilt)
	o.send(d).succeeded(t)
	o.send(d, "--name", "Ada").succeeded(t)
	if !bytes.Equal(get(t, o.path("me.info")), spoilt) {
		t.Error("me.info was written")
	}
	o.has("me.info")
	d.checkVerified(id, "file", []byte("content"))
}

// Several first runs in one folder: one registers, and the others use what it got.
func TestSeveralFirstRuns(t *testing.T) {
	t.Parallel()
	d, o := serve(t), newOutbox(t)
	var all []*process
	for i := range 4 {
		name := fmt.Sprint("file", i)
		put(t, o.path(name), []byte(name))
		all = append(all, start(t, o.dir, nil, sealift, "send", "--server", d.addr, "--name", "Ada", name))
	}
	registered := 0
	for _, p := range all {
		registered += strings.Count(p.wait().succeeded(t).stdout, "registered")
	}
	if clients := d.clients(); registered != 1 || len(clients) != 1 {
		t.Errorf("%d have registered; clients %+v", registered, clients)
	}
	for i := range 4 {
		d.checkVerified(readMe(t, o.path("me.info")).id, fmt.Sprint("file", i), []byte(fmt.Sprint("file", i)))
	}
	o.has("me.info")
}

// Several runs that are rejected at once: one registers again.
func TestSeveralRejectedRuns(t *testing.T) {
	t.Parallel()
	first, second, o := serve(t), serve(t), newOutbox(t)
	o.send(first, "--name", "Ada").succeeded(t)
	old := readMe(t, o.path("me.info")).id
	var all []*process
	for i := range 4 {
		name := fmt.Sprint("file", i)
		put(t, o.path(name), []byte(name))
		all = append(all, start(t, o.dir, nil, sealift, "send", "--server", second.addr, name))
	}
	for _, p := range all {
		p.wait().succeeded(t)
	}
	if clients := second.clients(); len(clients) != 1 || !clients[0].Key {
		t.Errorf("clients %+v", clients)
	}
	o.has("me.info", "me.info."+old.String())
}

// A symbolic link is followed, through a chain and to a file that is not there
// yet: it stays, and everything else is where it leads.
func TestLinkedIdentity(t *testing.T) {
	t.Parallel()
	first, second, o := serve(t), serve(t), newOutbox(t)
	for _, dir := range []string{"a", "b/c"} {
		if err := os.MkdirAll(o.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"me.info": "a/link", "a/link": "../d/../who", "d": "b/c"} {
		if err := os.Symlink(to, o.path(link)); err != nil {
			t.Fatal(err)
		}
	}
	target := o.path("b/who") // d/.. is where d leads to, one up
	o.send(first, "--name", "Ada").succeeded(t)
	old := readMe(t, target)
	o.send(first).succeeded(t)
	o.send(second).succeeded(t)
	if now := readMe(t, target); now.id == old.id {
		t.Error("the second server has the id of the first")
	}
	if kept := readMe(t, target+"."+old.id.String()); kept.id != old.id {
		t.Error("another identity was kept")
	}
	if info, err := os.Lstat(o.path("me.info")); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
	if _, err := os.Stat(target + ".lock"); err != nil {
		t.Error(err)
	}
	o.has("me.info")
}

// What is no identity stays as it is, and the server hears nothing of it.
func TestMeInfoThatIsNone(t *testing.T) {
	t.Parallel()
	d := serve(t)
	whole := newOutbox(t)
	whole.send(d, "--name", "whole").succeeded(t)
	text := get(t, whole.path("me.info"))
	for what, make := range map[string]func(path string) error{
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"empty":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"half":     func(path string) error { return os.WriteFile(path, text[:len(text)/2], 0o600) },
		"zeros":    func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte{0}, len(text)), 0o600) },
		"a loop":   func(path string) error { return os.Symlink("me.info", path) },
	} {
		o := newOutbox(t)
		if err := make(o.path("me.info")); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(o.path("me.info"))
		o.send(d, "--name", "Ada").failed(t, "me.info")
		if after, _ := os.ReadFile(o.path("me.info")); !bytes.Equal(before, after) {
			t.Errorf("%s: me.info was %q and is %q", what, before, after)
		}
		o.has("me.info")
	}
	if clients := d.clients(); len(clients) != 1 {
		t.Errorf("clients %+v", clients)
	}
}

// Where nothing can be written nobody registers; who has registered goes on.
func TestNoRoomForMeInfo(t *testing.T) {
	t.Parallel()
	d, second, o := serve(t), serve(t), newOutbox(t)
	full := func(server *daemon, args string) result {
		return run(t, o.dir, "/bin/sh", "-c", fmt.Sprintf("ulimit -f 0; exec %s send --server %s %s file", sealift, server.addr, args))
	}
	noKey, noServer := "nothing was registered", "nothing was registered"
	if testpeer.OverTLS() { // these are written before
		noKey, noServer = "me.key cannot be made", "cannot be kept, so nothing was sent"
	}
	full(d, "--name Ada").failed(t, noKey)
	o.has()
	if clients := d.clients(); len(clients) != 0 {
		t.Errorf("clients %+v", clients)
	}
	o.send(d, "--name", "Ada").succeeded(t)
	before := get(t, o.path("me.info"))
	full(d, "").succeeded(t)
	full(second, "").failed(t, noServer)
	if clients := second.clients(); len(clients) != 0 {
		t.Errorf("clients %+v", clients)
	}
	o.has("me.info")
	if !bytes.Equal(get(t, o.path("me.info")), before) {
		t.Error("me.info has changed")
	}
	if _, err := os.Stat(o.path("me.info.pending")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A run that ends at the wrong moment leaves what the next one needs.
func TestWhatAnInterruptedRunLeft(t *testing.T) {
	t.Parallel()
	d, o := serve(t), newOutbox(t)
	o.send(d, "--name", "Ada").succeeded(t)
	text := get(t, o.path("me.info"))
	// The id was given and written, and the file has not come to its place.
	if err := os.Rename(o.path("me.info"), o.path(".me.info.123.tmp")); err != nil {
		t.Fatal(err)
	}
	// Room that was made ready for an id which never came.
	lines := strings.SplitAfter(string(text), "\n")
	put(t, o.path(".me.info.456.tmp"), []byte(lines[0]+strings.Repeat("0", 32)+"\n"+lines[2]))
	o.send(d, "--name", "Ada").succeeded(t)
	o.has("me.info")
	if !bytes.Equal(get(t, o.path("me.info")), text) {
		t.Error("me.info has changed")
	}
}
