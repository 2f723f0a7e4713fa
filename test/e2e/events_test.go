//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"sealift/codec"
)

// eventRounds is how many servers are killed in TestEventsOfKilledServers:
// SEALIFT_EVENT_ROUNDS, or a few.
func eventRounds(t *testing.T) int {
	text := os.Getenv("SEALIFT_EVENT_ROUNDS")
	if text == "" {
		return 8
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("SEALIFT_EVENT_ROUNDS: %v", err)
	}
	return n
}

// event is what a target was told.
type event struct {
	ID   string
	Data struct {
		Kind, Why string
		Client    struct{ ID, Name string }
		File      struct {
			Name, Path, Stored, Version string
			Size                        int64 `json:"size_bytes"`
			Cksum                       uint32
		}
	}
}

// receiver is who listens at a URL.
type receiver struct {
	url string

	mu       sync.Mutex
	changed  sync.Cond
	requests int
	accepted []event // in the order in which it has accepted them
	answer   func(e *event) int
}

// newReceiver listens until the test ends. answer says with which status an event is
// answered; it is called for one event at a time. 0: the connection ends without an answer.
func newReceiver(t testing.TB, answer func(e *event) int) *receiver {
	t.Helper()
	r := &receiver{answer: answer}
	r.changed.L = &r.mu
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var e event
		if err == nil {
			err = json.Unmarshal(body, &e)
		}
		if err != nil { // its sender was killed
			panic(http.ErrAbortHandler)
		}
		status := r.take(&e)
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(srv.Close)
	r.url = srv.URL
	return r
}

func (r *receiver) take(e *event) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.changed.Broadcast()
	r.requests++
	status := r.answer(e)
	if status/100 == 2 {
		r.accepted = append(r.accepted, *e)
	}
	return status
}

// await waits until n requests more have come, or stop is true, which has to be followed by
// a Broadcast.
func (r *receiver) await(n int, stop *bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n += r.requests; r.requests < n && !*stop; {
		r.changed.Wait()
	}
}

func (r *receiver) all() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.accepted)
}

// waitingEvents is what "sealiftd events list" prints.
func (d *daemon) waitingEvents(args ...string) []string {
	d.t.Helper()
	out := run(d.t, d.dir, sealiftd, append([]string{"events", "list", "--json", "--dir", d.dir}, args...)...).succeeded(d.t).stdout
	return slices.Collect(strings.Lines(out))
}

func (d *daemon) allTold() {
	d.t.Helper()
	eventually(d.t, "all events are told", func() bool { return len(d.waitingEvents()) == 0 })
}

var storedLine = regexp.MustCompile(`(?m)^stored (\S+):`)

// Whenever the server is killed, and though the receiver refuses half of what comes, every
// verified file is announced, no other is, and the order of each client's events is kept.
func TestEventsOfKilledServers(t *testing.T) {
	t.Parallel()
	rnd, answers := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(3, 4)) // that of the receiver
	row := 0                                                                 // of refusals: the wait after them is doubled each time
	r := newReceiver(t, func(*event) int {
		status := []int{200, 500, 204, 0}[answers.IntN(4)]
		if row++; status/100 == 2 {
			row = 0
		} else if row > 5 {
			row, status = 0, 200
		}
		return status
	})
	args := []string{"--event-url", r.url, "--event-retry", "5ms"}
	d := serve(t, args...)
	const senders = 3
	dirs := make([]string, senders)
	for i := range dirs {
		dirs[i] = t.TempDir()
		put(t, filepath.Join(dirs[i], "first"), []byte("x"))
		d.introduce(dirs[i], d.addr)
		run(t, dirs[i], sealift, "send", "--server", d.addr, "--name", fmt.Sprint("client ", i), "first").succeeded(t)
	}
	confirmed := make(map[string]bool) // client name and file: its client had the 1604
	for i := range dirs {
		confirmed[fmt.Sprint("client ", i, "/first")] = true
	}
	rounds := eventRounds(t)
	for round := range rounds {
		var sending []*process
		var names []string
		for n := range 6 {
			names = append(names, fmt.Sprintf("%04d-%d", round, n))
		}
		for _, dir := range dirs {
			for _, name := range names {
				put(t, filepath.Join(dir, name), randomBytes(100+rnd.IntN(60_000), byte(round)))
			}
			sending = append(sending, start(t, dir, nil, sealift, slices.Concat([]string{"send", "--server", d.addr, "--retry-for", "0s"}, names)...))
		}
		ended := false
		var all sync.WaitGroup
		for _, p := range sending {
			all.Go(func() { _ = p.cmd.Wait() }) // it may be killed
		}
		go func() {
			all.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			ended = true
			r.changed.Broadcast()
		}()
		r.await(rnd.IntN(40), &ended)
		d.kill()
		for _, p := range sending { // which would look for the server for some seconds
			_ = p.cmd.Process.Kill() // or it has ended
		}
		all.Wait()
		for i, p := range sending {
			for _, m := range storedLine.FindAllStringSubmatch(p.stdout.String(), -1) {
				confirmed[fmt.Sprint("client ", i, "/", m[1])] = true
			}
		}
		d = serveIn(t, d.dir, append(args, "--listen", d.addr)...)
	}
	d.allTold()
	t.Logf("%d files confirmed in %d rounds, %d requests, %d accepted", len(confirmed), rounds, r.requests, len(r.accepted))
	checkAnnounced(t, d, r.all(), confirmed)
}

// checkAnnounced holds the events that were accepted, all that there were, against what is
// on record, and against the files of which clients know that they are verified.
func checkAnnounced(t *testing.T, d *daemon, accepted []event, confirmed map[string]bool) {
	t.Helper()
	last := make(map[string]string)     // the id that a client's last event has
	seen := make(map[string]bool)       // ids
	received := make(map[string]string) // the version that waits at a place
	announced := make(map[string]event) // the verified one
	names := make(map[string][]string)  // of verified files, in their order, by client
	for _, e := range accepted {
		client, f := e.Data.Client, &e.Data.File
		if seen[e.ID] {
			if last[client.ID] != e.ID {
				t.Errorf("%s %s of %s is told again after a later one", e.Data.Kind, f.Path, client.Name)
			}
			continue
		}
		seen[e.ID], last[client.ID] = true, e.ID
		place := client.Name + "/" + f.Path
		switch e.Data.Kind {
		case "registered":
			if len(names[client.Name]) > 0 {
				t.Errorf("%s is registered after its files", client.Name)
			}
		case "received":
			received[place] = f.Version
		case "verified":
			if received[place] != f.Version {
				t.Errorf("%s: version %s is verified, and %q was received", place, f.Version, received[place])
			}
			announced[place] = e
			names[client.Name] = append(names[client.Name], f.Path)
		case "rejected":
			if received[place] != f.Version {
				t.Errorf("%s: version %s is rejected, and %q was received", place, f.Version, received[place])
			}
			delete(received, place)
		default:
			t.Errorf("%s of %s", e.Data.Kind, place)
		}
	}
	for client, files := range names {
		if !slices.IsSorted(files[1:]) {
			t.Errorf("%s: verified in the order %q", client, files)
		}
	}
	clients := make(map[string]string)
	for _, c := range d.clients() {
		clients[c.ID] = c.Name
	}
	verified := 0
	for _, f := range d.files() {
		if !f.Verified {
			continue
		}
		verified++
		e, ok := announced[clients[f.Client]+"/"+f.FileName]
		if got := &e.Data.File; !ok || got.Size != f.Size || got.Cksum != f.Cksum || got.Stored != f.Path {
			t.Errorf("%+v is verified, and announced was %+v", f, e)
		}
	}
	if verified != len(announced) {
		t.Errorf("%d files are verified, and %d announced", verified, len(announced))
	}
	for place := range confirmed {
		if _, ok := announced[place]; !ok {
			t.Errorf("%s was confirmed to its client, and not announced", place)
		}
	}
}

// A program gets each event, whatever the file is called, and finds the file.
func TestOnEvent(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	script := filepath.Join(out, "hook")
	put(t, script, []byte(`#!/bin/sh
cat >> "$1/told"
test "$SEALIFT_EVENT_KIND" != verified || cp "$SEALIFT_EVENT_STORED" "$1/copy-$SEALIFT_EVENT_VERSION"
`))
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	d := serve(t, "--on-event", "'"+script+"' '"+out+"'")
	p := login(t, d, `a "name" $(id)`)
	name := "-rf \"$(touch " + out + "/x)\" '\u5c65'; `id` \U0001f600"
	p.upload(name, []byte("content"))
	p.upload(name, []byte("newer content"))
	f := p.File("mismatched", []byte("x"))
	p.sendPackets(cut(f, 0))
	p.expectReceived(f)
	p.send(p.Verdict(codec.CodeAbort, f.Name))
	p.expectID(codec.CodeAck)
	d.allTold()
	var got []string
	copies := 0
	for line := range strings.Lines(string(get(t, filepath.Join(out, "told")))) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.TrimSpace(e.Data.Kind+" "+e.Data.Why))
		if e.Data.Client.Name != p.Name || e.Data.File.Name != "" && e.Data.File.Name != name && e.Data.File.Name != "mismatched" {
			t.Errorf("event %+v", e)
		}
		if e.Data.Kind == "verified" {
			copies++
			if _, err := os.Stat(filepath.Join(out, "copy-"+e.Data.File.Version)); err != nil {
				t.Error(err)
			}
		}
	}
	want := []string{"registered", "received", "verified", "received", "verified", "received", "rejected given_up"}
	if !slices.Equal(got, want) || copies != 2 {
		t.Errorf("told %q, want %q", got, want)
	}
	if _, err := os.Stat(filepath.Join(out, "x")); err == nil {
		t.Error("a name was run by a shell")
	}
}

// What commands do to files is told, beside a server and without one, and what waits can be
// listed, retried and dropped.
func TestEventsCommands(t *testing.T) {
	t.Parallel()
	var up, told bool // under the receiver's lock
	r := newReceiver(t, func(*event) int {
		told = true
		if up {
			return 200
		}
		return 503
	})
	d := serve(t, "--event-url", r.url, "--event-retry", "1h")
	p := login(t, d, "n")
	for _, name := range []string{"a", "b", "c"} {
		p.upload(name, []byte(name))
	}
	eventually(t, "an attempt failed", func() bool {
		return strings.Contains(strings.Join(d.waitingEvents(), ""), "answer 503")
	})
	run(t, d.dir, sealiftd, "file", "delete", "a", "--dir", d.dir).succeeded(t)
	waiting := d.waitingEvents()
	if len(waiting) != 8 || !strings.Contains(waiting[7], `"removed"`) || !strings.Contains(waiting[7], `"deleted"`) {
		t.Fatalf("waiting: %q", waiting)
	}
	var first, second struct{ ID string }
	for i, row := range []any{&first, &second} {
		if err := json.Unmarshal([]byte(waiting[i]), row); err != nil {
			t.Fatal(err)
		}
	}
	run(t, d.dir, sealiftd, "events", "drop", "--dir", d.dir).failed(t, "which events")
	run(t, d.dir, sealiftd, "events", "drop", "--target", "hook", "--dir", d.dir).failed(t, `--target "hook": want command or url`)
	drop := run(t, d.dir, sealiftd, "events", "drop", second.ID, "--dir", d.dir).succeeded(t)
	if drop.stdout != "1 event dropped\n" {
		t.Errorf("drop printed %q", drop.stdout)
	}
	r.mu.Lock()
	up = true
	r.mu.Unlock()
	retry := run(t, d.dir, sealiftd, "events", "retry", "--all", "--dir", d.dir).succeeded(t)
	if retry.stdout != "1 event made due\n" {
		t.Errorf("retry printed %q", retry.stdout)
	}
	d.allTold()
	if all := r.all(); len(all) != 7 || all[0].ID != first.ID {
		t.Errorf("accepted %+v", all)
	}

	// Without a server, for the next one to tell.
	d.stop()
	run(t, d.dir, sealiftd, "file", "delete", "b", "--dir", d.dir).succeeded(t)
	run(t, d.dir, sealiftd, "file", "take", "c", "--to", t.TempDir(), "--dir", d.dir).succeeded(t)
	run(t, d.dir, sealiftd, "client", "delete", "n", "--dir", d.dir).succeeded(t)
	if waiting := d.waitingEvents(); len(waiting) != 3 {
		t.Errorf("waiting: %q", waiting)
	}
	d = serveIn(t, d.dir, "--event-url", r.url)
	d.allTold()
	var got []string
	for _, e := range r.all()[7:] {
		got = append(got, strings.TrimSpace(e.Data.Kind+" "+e.Data.Why+" "+e.Data.File.Path))
	}
	if want := []string{"removed deleted b", "removed taken c", "removed deleted"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}

	// Without targets nothing is recorded, and what waits stays.
	d.stop()
	r.mu.Lock()
	up, told = false, false
	r.mu.Unlock()
	d = serveIn(t, d.dir, "--event-url", r.url, "--event-retry", "1h")
	login(t, d, "m")
	eventually(t, "it was told", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return told })
	d.stop()
	d = serveIn(t, d.dir)
	login(t, d, "o")
	if waiting := d.waitingEvents(); len(waiting) != 1 {
		t.Errorf("waiting: %q", waiting)
	}
	if log := d.log.String(); !strings.Contains(log, "events wait for a target that is not configured") {
		t.Errorf("the log says nothing of it: %s", log)
	}
}
