//go:build linux

package soak

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/internal/testpeer"
)

// TestTake has clients upload, and commands take away what they have uploaded, all the
// time, while the server and the commands are killed at random moments. Somebody carries
// away at once what appears. Each file that got its 1604 must have come exactly once, and
// a 1029 that is sent again gets its 1604, whether the file was taken meanwhile or not.
func TestTake(t *testing.T) {
	r := newRun(t)
	rounds := r.size(8, 100)
	k := &takings{run: r, dir: r.TempDir(), outs: []string{r.TempDir(), r.TempDir()}, came: make(map[stored]int)}
	if other, err := os.MkdirTemp("/dev/shm", "sealift-soak-"); err == nil { // where files are copied
		r.Cleanup(func() { _ = os.RemoveAll(other) })
		k.outs = append(k.outs, other)
	}
	k.server.Store(r.start(k.dir))
	var wg, carrying sync.WaitGroup
	for i := range 4 {
		c := &takenClient{k: k, number: i, rng: rand.New(rand.NewPCG(r.seed, uint64(i)))}
		k.clients = append(k.clients, c)
		wg.Go(c.work)
	}
	for i := range len(k.outs) + 1 { // two for the first
		rng := rand.New(rand.NewPCG(r.seed, uint64(100+i)))
		wg.Go(func() { k.takeAlways(k.outs[i%len(k.outs)], rng) })
	}
	var enough atomic.Bool
	carrying.Go(func() {
		for !enough.Load() {
			k.carry()
			time.Sleep(time.Millisecond)
		}
	})
	began := time.Now()
	for range rounds {
		time.Sleep(time.Duration(r.rng.IntN(300)) * time.Millisecond)
		s := k.server.Load()
		s.alive()
		s.kill()
		k.server.Store(r.start(k.dir))
	}
	k.stop.Store(true)
	wg.Wait()
	k.finish()
	enough.Store(true)
	carrying.Wait()
	k.carry()
	k.server.Load().kill()
	k.check()
	r.Logf("%d rounds in %.1f s: %d files got their 1604 and each came once; %d 1029s were sent again; "+
		"of %d commands %d were killed; %d uploads were cut off",
		rounds, time.Since(began).Seconds(), k.uploads(), k.again.Load(), k.runs.Load(), k.kills.Load(), k.failures.Load())
}

// takings is what the clients, the takers and the killer share.
type takings struct {
	*run
	dir     string
	outs    []string
	server  atomic.Pointer[server]
	stop    atomic.Bool
	clients []*takenClient

	runs, kills, again, failures atomic.Int64

	mu   sync.Mutex
	came map[stored]int // how often each version of a file was carried away
}

// takeAlways takes files to out again and again. Most of the commands are killed.
func (k *takings) takeAlways(out string, rng *rand.Rand) {
	for !k.stop.Load() {
		cmd, complaint := k.command(out)
		if err := cmd.Start(); err != nil {
			k.Errorf("%v", err)
			return
		}
		k.runs.Add(1)
		after := patience
		if rng.IntN(3) > 0 {
			after = time.Duration(rng.IntN(100)) * time.Millisecond
		}
		end := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		end.Stop()
		switch {
		case err == nil:
		case cmd.ProcessState.ExitCode() < 0:
			k.kills.Add(1)
		case !isUsual(complaint.String()):
			k.Errorf("file take --to %s: %s", out, complaint)
		}
	}
}

func (k *takings) command(out string) (*exec.Cmd, *bytes.Buffer) {
	cmd, complaint := exec.Command(sealiftd, "file", "take", "**", "--dir", k.dir, "--to", out), new(bytes.Buffer)
	cmd.Stderr = complaint
	return cmd, complaint
}

// isUsual reports whether a command may end so: a file is left whose earlier version waits
// to be carried away, or another command is at work.
func isUsual(complaint string) bool {
	return strings.Contains(complaint, " left\n") || strings.Contains(complaint, "another command takes files there")
}

// carry takes everything out of the folders that files are taken to.
func (k *takings) carry() {
	for _, out := range k.outs {
		err := fs.WalkDir(os.DirFS(out), ".", func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil || path == ".":
				return nil // it is gone
			case path == ".taking":
				return fs.SkipDir
			case e.IsDir():
				return nil
			}
			id, below, _ := strings.Cut(path, "/")
			at := filepath.Join(out, filepath.FromSlash(path))
			content, err := os.ReadFile(at)
			if err != nil {
				return err
			}
			for p := at; p != out && os.Remove(p) == nil; p = filepath.Dir(p) { // a folder that is empty, too
			}
			k.mu.Lock()
			defer k.mu.Unlock()
			k.came[stored{fileName{clientID(id), below}, int64(len(content)), cksum.Checksum(content)}]++
			return nil
		})
		if err != nil {
			k.Errorf("%v", err)
		}
	}
}

// finish has everything taken, with nobody at work.
func (k *takings) finish() {
	for _, out := range k.outs {
		k.until("everything to be taken", func() bool {
			cmd, complaint := k.command(out)
			printed, err := cmd.Output()
			if err != nil && !isUsual(complaint.String()) {
				k.Fatalf("file take --to %s: %s", out, complaint)
			}
			return string(printed) == "0 files taken (0 B)\n"
		})
	}
	k.until("the server to remove what is taken", func() bool {
		for _, f := range k.records(k.dir) {
			if f.Leaves() {
				return false
			}
		}
		return true
	})
}

func (k *takings) uploads() (n int) {
	for _, c := range k.clients {
		n += len(c.done)
	}
	return n
}

// check asserts that each file that got its 1604 has come once, and nothing twice or that
// nobody has sent.
func (k *takings) check() {
	for _, c := range k.clients {
		for _, f := range c.done {
			if n := k.came[f]; n != 1 {
				k.Errorf("%v/%s got its 1604 and came %d times", f.id, f.path, n)
			}
		}
	}
	for f, n := range k.came {
		if n > 1 {
			k.Errorf("%v/%s, cksum %d, came %d times", f.id, f.path, f.cksum, n)
		}
		sent := false
		for _, c := range k.clients {
			sent = sent || c.sent[f]
		}
		if !sent {
			k.Errorf("%v/%s came, with %d bytes and cksum %d, and nobody has sent that", f.id, f.path, f.size, f.cksum)
		}
	}
	for _, out := range k.outs {
		if entries, err := os.ReadDir(filepath.Join(out, ".taking")); err != nil || len(entries) != 1 {
			k.Errorf("%s/.taking has %v, %v, want nothing but the lock", out, entries, err)
		}
	}
	k.checkStore(k.dir, nil)
}

// takenClient is a client that uploads one file after the other, and asks about old ones.
type takenClient struct {
	k      *takings
	number int
	names  int // that it has tried to register
	rng    *rand.Rand
	me     *peer // the last connection
	known  bool

	sent   map[stored]bool
	done   []stored // have their 1604, each with a name of its own
	unsure *stored  // has its 1603, and the answer to its 1029 was lost
}

func (c *takenClient) work() {
	c.sent = make(map[stored]bool)
	for n := 0; !c.k.stop.Load() || c.unsure != nil; n++ {
		if err := c.step(n); err != nil {
			c.k.failures.Add(1)
			c.leave()
		}
	}
	c.leave()
}

func (c *takenClient) leave() {
	if c.me != nil && c.me.Net != nil {
		c.me.close()
		c.me.Net = nil
	}
}

func (c *takenClient) step(n int) error {
	if c.me == nil || c.me.Net == nil {
		if err := c.connect(); err != nil {
			return err
		}
	}
	if f := c.unsure; f != nil {
		err := c.askAgain(f)
		if err == nil {
			c.done = append(c.done, *f)
			c.unsure = nil
		}
		return err
	}
	if len(c.done) > 0 && c.rng.IntN(3) == 0 {
		return c.askAgain(&c.done[c.rng.IntN(len(c.done))])
	}
	return c.upload(n)
}

// askAgain sends a 1029 once more, which must get its 1604.
func (c *takenClient) askAgain(f *stored) error {
	err := c.me.Confirm(f.path)
	if err == nil {
		c.k.again.Add(1)
	}
	if testpeer.Refused(err, codec.CodeError) {
		c.k.Errorf("a 1029 again for %v/%s: %v", f.id, f.path, err)
		c.unsure = nil
	}
	return err
}

// connect makes a connection, for a client that registered if there is one.
func (c *takenClient) connect() error {
	p, err := c.k.server.Load().dial("")
	if err != nil {
		time.Sleep(time.Millisecond) // there is no server now
		return err
	}
	if c.known {
		c.me.Net = p.Net
		return c.me.Rejoin()
	}
	c.me = p
	c.names++
	if err := p.enter(fmt.Sprintf("client %d.%d", c.number, c.names), c.number); err != nil {
		return err
	}
	c.known = true
	return nil
}

func (c *takenClient) upload(n int) error {
	size := c.rng.IntN(8_000)
	if c.rng.IntN(10) == 0 {
		size = c.rng.IntN(400_000)
	}
	name := fmt.Sprintf("folder %d/file %d", n%7, n)
	if n%4 == 0 {
		name = "same"
	}
	content := pattern(c.rng.Uint64(), size)
	f := c.me.File(name, content)
	is := c.me.stored(name, content)
	c.sent[is] = true
	if err := c.me.SendPackets(f.Packets(testpeer.Spec, 1000+c.rng.IntN(60_000))); err != nil {
		return err
	}
	if err := c.me.Received(f); err != nil {
		return err
	}
	err := c.me.Confirm(name)
	switch {
	case name == "same": // a newer version may take its place before it is taken
	case err == nil:
		c.done = append(c.done, is)
	default:
		c.unsure = &is
	}
	return err
}
