//go:build linux

package soak

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sealift/client"
	"sealift/codec"
	"sealift/internal/testpeer"
)

// TestContinue cuts one upload again and again, at random places and in four ways, and has a
// new run of sealift go on with it each time. The file is there, byte for byte, and the
// server got hardly more than it has.
func TestContinue(t *testing.T) {
	r := newRun(t)
	size, cuts := int64(r.size(40<<20, 1<<30)), r.size(8, 200)
	if raceEnabled {
		size, cuts = 24<<20, 4
	}
	u := r.uploads(size)
	dir := r.TempDir()
	s := r.start(dir)
	m := r.meter(s.addr)
	ways := []string{"client killed", "server killed", "reset", "swallowed"}
	var stranded *disturb
	for i := range cuts {
		way := ways[i%len(ways)]
		each := size / int64(cuts)
		d := &disturb{after: each*3/10 + r.rng.Int64N(each*8/10), server: s, swallow: way == "swallowed", reset: way == "reset", kill: way == "server killed"}
		if i == 0 {
			d.after += 2 << 20 // of less nothing is kept
		}
		m.next(d)
		p := u.begin(m.addr())
		select {
		case <-d.reached:
		case <-p.exited:
			r.Fatalf("%s, cut %d: the client has ended: %s", way, i, p.output.String())
		}
		if way == "server killed" {
			p.kill()
			s = r.start(dir)
			m.target.Store(&s.addr)
		} else {
			p.kill()
		}
		if stranded != nil {
			m.release(stranded) // the next run has gone on by now
			stranded = nil
		}
		if d.swallow {
			stranded = d
		}
	}
	m.next(nil)
	p := u.begin(m.addr())
	<-p.exited
	if stranded != nil {
		m.release(stranded)
	}
	if p.status() != 0 {
		r.Fatalf("the last run: status %d, %s", p.status(), p.output.String())
	}
	r.same(filepath.Join(dir, "files", u.id().String(), "file"), u.path)
	r.verify(dir)
	got := m.up.Load()
	r.Logf("%d MiB cut %d times: the server got %.3f of the file", size>>20, cuts, float64(got)/float64(size))
	limit := size + size/20
	if !*full {
		limit += int64(cuts) * (1 << 20) // what is in a server's hands when it is killed
	}
	if got > limit {
		r.Errorf("the server got %d bytes for a file of %d, limit %d", got, size, limit)
	}
	s.finish()
}

// uploads is a folder with a file, from which sealift sends it.
type uploads struct {
	*run
	dir, path string
}

// uploads makes one with random content of that size.
func (r *run) uploads(size int64) *uploads {
	r.Helper()
	dir := r.TempDir()
	u := &uploads{r, dir, filepath.Join(dir, "file")}
	f, err := os.Create(u.path)
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{byte(r.seed), byte(r.seed >> 8)}), size); err != nil {
		r.Fatalf("%v", err)
	}
	return u
}

// sending is a sealift that runs.
type sending struct {
	cmd    *exec.Cmd
	output bytes.Buffer // to be read after exited
	exited chan struct{}
}

// begin starts a sealift that sends the file, and goes on where the server has it.
func (u *uploads) begin(addr string, args ...string) *sending {
	u.Helper()
	args = append([]string{"send", "--resume", "--dialect", "spec", "--server", addr, "--name", "continuing", "--identity", filepath.Join(u.dir, "me.info")}, args...)
	return u.launch(append(args, u.path)...)
}

func (u *uploads) launch(args ...string) *sending {
	u.Helper()
	p := &sending{cmd: exec.Command(sealift, args...), exited: make(chan struct{})}
	p.cmd.Env = clientEnvironment(filepath.Join(u.dir, "known_servers"))
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		u.Fatalf("%v", err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	u.Cleanup(p.kill)
	return p
}

func (p *sending) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

func (p *sending) status() int { return p.cmd.ProcessState.ExitCode() }

// id is whose file it is.
func (u *uploads) id() codec.ClientID {
	u.Helper()
	id, err := client.IdentityFile(filepath.Join(u.dir, "me.info")).Load()
	if err != nil || id == nil {
		u.Fatalf("me.info: %v", err)
	}
	return id.ID
}

// same asserts that two files are the same, byte for byte.
func (r *run) same(a, b string) {
	r.Helper()
	f, errA := os.Open(a)
	g, errB := os.Open(b)
	if err := errors.Join(errA, errB); err != nil {
		r.Errorf("%v", err)
		return
	}
	defer f.Close()
	defer g.Close()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(x)) {
		n, errA := io.ReadFull(f, x)
		k, errB := io.ReadFull(g, y)
		if n != k || !bytes.Equal(x[:n], y[:k]) {
			r.Errorf("%s is not %s, in the MiB at %d (%d and %d bytes there)", a, b, at, n, k)
			return
		}
		if errA != nil || errB != nil {
			return // both ended: n == k
		}
	}
}

// TestStopped ends the server in the middle of an upload, by SIGTERM and by a kill, and
// starts it again. All that it had received is there.
func TestStopped(t *testing.T) {
	r := newRun(t)
	size := max(12<<20, r.size(12<<20, 256<<20)) // less than 1 MiB is not kept
	for _, how := range []string{"SIGTERM", "kill -9"} {
		dir := r.TempDir()
		s := r.start(dir, "--drain-timeout", "50ms")
		p := s.join("stopped "+how, 0)
		content := pattern(r.seed, size)
		f := p.File("file", content)
		packets := f.Packets(testpeer.Spec, 65_536)
		sent := len(packets) * 2 / 3
		if err := p.SendPackets(packets[:sent]); err != nil {
			r.Fatalf("%v", err)
		}
		least := int64(sent)*65_536 - 64 // but for the block that waits
		r.until("the content to be written", func() bool { return r.arrived(dir) >= least })
		if how == "SIGTERM" {
			s.signal(syscall.SIGTERM)
			if status := s.wait(); status != 0 {
				r.Errorf("status %d: %s", status, s.tail())
			}
		} else {
			s.kill()
		}
		s = r.start(dir)
		again := &peer{Conn: p.Conn, r: r}
		r.redial(s, again)
		offset, err := again.Resume("file", content, 65_536)
		if err != nil {
			r.Fatalf("after %s: %v: %s", how, err, s.tail())
		}
		if offset < least {
			r.Errorf("after %s %d bytes are there, of %d that were written", how, offset, least)
		}
		r.checkStore(dir, []stored{again.stored("file", content)})
		r.Logf("%s after %d bytes: continued at %d", how, least, offset)
		again.close()
		s.finish()
	}
}

// arrived is how many bytes of files are there that are being received or were cut.
func (r *run) arrived(dir string) (n int64) {
	r.Helper()
	r.eachFile(dir, func(path string) {
		if info, err := os.Stat(filepath.Join(dir, "files", path)); err == nil && strings.HasPrefix(path, ".incoming/") {
			n += info.Size()
		}
	})
	return n
}

// redial gives p, who knows who it is, a new connection.
func (r *run) redial(s *server, p *peer) {
	r.Helper()
	c := s.mustDial()
	p.Use(c.Net)
	if err := p.Rejoin(); err != nil {
		r.Fatalf("%v: %s", err, s.tail())
	}
}

// TestTwins has two runs of sealift go on with one file at once, in the folder of one
// client. It is there in the end, and whoever says so is right.
func TestTwins(t *testing.T) {
	r := newRun(t)
	u := r.uploads(int64(max(24<<20, r.size(24<<20, 512<<20)))) // more than comes before the cut
	dir := r.TempDir()
	s := r.start(dir)
	m := r.meter(s.addr)
	rounds := r.size(3, 20)
	for round := range rounds {
		d := &disturb{after: 4<<20 + r.rng.Int64N(4<<20)}
		m.next(d)
		first := u.begin(m.addr(), "--as", fmt.Sprint("file ", round))
		select {
		case <-d.reached:
		case <-first.exited:
			r.Fatalf("round %d: sealift ends before it is cut: status %d: %s", round, first.status(), first.output.String())
		}
		first.kill()
		m.next(nil)
		twins := []*sending{u.begin(m.addr(), "--as", fmt.Sprint("file ", round)), u.begin(m.addr(), "--as", fmt.Sprint("file ", round))}
		stored := 0
		for _, p := range twins {
			<-p.exited
			switch p.status() {
			case 0:
				stored++
			case 1, 75:
			default:
				r.Errorf("status %d: %s", p.status(), p.output.String())
			}
		}
		if stored == 0 {
			r.Errorf("neither got through: %s\n%s", twins[0].output.String(), twins[1].output.String())
			continue
		}
		r.same(filepath.Join(dir, "files", u.id().String(), fmt.Sprint("file ", round)), u.path)
	}
	r.verify(dir)
	s.finish()
}
