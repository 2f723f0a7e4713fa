//go:build linux

package soak

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"sealift/internal/testpeer"
)

// patience is how long anything may take that should happen at once.
const patience = 2 * time.Minute

// server is a sealiftd that runs in a process of its own.
type server struct {
	r    *run
	dir  string
	addr string
	cmd  *exec.Cmd

	exited chan struct{} // then err is set
	err    error

	mu      sync.Mutex
	changed *sync.Cond // a line came, or the process has ended
	lines   []line
	gone    bool
	other   bytes.Buffer // what is no line of the log: panics, a goroutine dump
}

// line is a line of the log.
type line struct {
	Time    time.Time `json:"ts"`
	Level   string    `json:"level"`
	Msg     string    `json:"msg"`
	Reason  string    `json:"reason"`
	Error   string    `json:"error"`
	Remote  string    `json:"remote"`
	Count   int       `json:"count"`
	Finding string    `json:"finding"`
	Addr    string    `json:"address"`
}

// start runs sealiftd in dir and waits until it takes connections. env are
// additions to the environment.
func (r *run) start(dir string, args ...string) *server {
	r.Helper()
	s := r.launch(exec.Command(sealiftd, serveArgs(dir, args)...), dir)
	s.ready()
	return s
}

func serveArgs(dir string, args []string) []string {
	return append([]string{"serve", "--dir", dir, "--listen", "127.0.0.1:0", "--log-format", "json"}, args...)
}

// launch runs a command that is a server, to be killed at the latest when the
// scenario is over.
func (r *run) launch(cmd *exec.Cmd, dir string) *server {
	r.Helper()
	s := &server{r: r, dir: dir, cmd: cmd, exited: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	cmd.Env = append(cmd.Environ(), testpeer.ServerVariables()...)
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.Fatalf("starting the server: %v", err)
	}
	go func() {
		s.read(out)
		s.err = cmd.Wait()
		s.mu.Lock()
		s.gone = true
		s.changed.Broadcast()
		s.mu.Unlock()
		close(s.exited)
	}()
	r.Cleanup(s.close)
	return s
}

func (s *server) read(out io.Reader) {
	for in := bufio.NewReaderSize(out, 64<<10); ; {
		text, err := in.ReadBytes('\n')
		s.mu.Lock()
		var l line
		if len(text) > 0 && text[0] == '{' && json.Unmarshal(text, &l) == nil {
			s.lines = append(s.lines, l)
			s.changed.Broadcast()
		} else {
			s.other.Write(text)
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// ready waits until the server takes connections.
func (s *server) ready() {
	s.r.Helper()
	l, ok := s.await(func(l line) bool { return l.Msg == "listening" })
	if !ok {
		s.r.Fatalf("the server did not start: %s", s.tail())
	}
	s.addr = l.Addr
}

// await returns the first line of the log that is as wanted, waiting for it if
// need be. ok is false if the server ends without one, or takes too long.
func (s *server) await(wanted func(line) bool) (l line, ok bool) {
	late := time.AfterFunc(patience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})
	defer late.Stop()
	deadline := time.Now().Add(patience)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; ; {
		for ; i < len(s.lines); i++ {
			if wanted(s.lines[i]) {
				return s.lines[i], true
			}
		}
		if s.gone || !time.Now().Before(deadline) {
			return line{}, false
		}
		s.changed.Wait()
	}
}

// all returns the lines of the log that are as wanted.
func (s *server) all(wanted func(line) bool) (lines []line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if wanted(l) {
			lines = append(lines, l)
		}
	}
	return lines
}

// count is how many those are.
func (s *server) count(wanted func(line) bool) int { return len(s.all(wanted)) }

// tail is what went wrong, as the server tells it.
func (s *server) tail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	trouble := make(map[string]int)
	for _, l := range s.lines {
		if l.Level != "info" {
			trouble[fmt.Sprintf("%s %s: %s%s", l.Level, l.Msg, l.Reason, l.Error)]++
		}
	}
	for what, n := range trouble {
		if b.Len() < 4000 {
			fmt.Fprintf(&b, "%d times %s\n", n, what)
		}
	}
	other := s.other.Bytes()
	b.Write(other[:min(len(other), 4000)])
	return b.String()
}

// signal sends the process a signal.
func (s *server) signal(sig syscall.Signal) {
	s.r.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.r.Errorf("signal %v: %v", sig, err)
	}
}

// wait waits for the process to end and returns its exit status, -1 if a signal
// ended it.
func (s *server) wait() int {
	s.r.Helper()
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.r.Fatalf("the server does not end: %s", s.tail())
	}
	return s.cmd.ProcessState.ExitCode()
}

// alive fails the run if the server has ended.
func (s *server) alive() {
	s.r.Helper()
	select {
	case <-s.exited:
		s.r.Fatalf("the server has ended (%v): %s", s.err, s.tail())
	default:
	}
}

// kill ends the process as a power cut would, but for the disk's cache.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// close kills a server that still runs, and looks at what it said.
func (s *server) close() {
	s.kill()
	s.mu.Lock()
	defer s.mu.Unlock()
	other := s.other.String()
	for _, l := range s.lines {
		if strings.HasPrefix(l.Msg, "panic") {
			other += "panic: " + l.Error
		}
	}
	for _, sign := range []string{"DATA RACE", "panic: ", "fatal error: "} {
		if i := strings.Index(other, sign); i >= 0 {
			s.r.Errorf("the server said:\n%s", other[max(0, i-200):min(len(other), i+4000)])
			return
		}
	}
}

// status reads a line of /proc/PID/status, in KiB.
func (s *server) status(name string) int {
	s.r.Helper()
	n, ok := statusOf(s.cmd.Process.Pid, name)
	if !ok {
		s.r.Fatalf("there is no %s in /proc/PID/status: %s", name, s.tail())
	}
	return n
}

// statusOf is status of any process. ok is false if it is gone.
func statusOf(pid int, name string) (kib int, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	for l := range strings.Lines(string(b)) {
		if words := strings.Fields(l); len(words) > 1 && words[0] == name+":" {
			n, err := strconv.Atoi(words[1])
			return n, err == nil
		}
	}
	return 0, false
}

// rss and peak are the memory of the process and the most it had, in KiB.
func (s *server) rss() int { return s.status("VmRSS") }

func (s *server) peak() int { return s.status("VmHWM") }

// resetPeak makes the memory of now the peak.
func (s *server) resetPeak() {
	s.r.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid), []byte("5"), 0); err != nil {
		s.r.Fatalf("%v", err)
	}
}

// cpu is the processor time that the process has used.
func (s *server) cpu() time.Duration {
	s.r.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		s.r.Fatalf("%v: %s", err, s.tail())
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name of the program comes before
	var ticks time.Duration
	for _, field := range strings.Fields(rest)[11:13] { // in user mode, and in the kernel
		n, err := strconv.Atoi(field)
		if err != nil {
			s.r.Fatalf("/proc/PID/stat: %v", err)
		}
		ticks += time.Duration(n)
	}
	return ticks * time.Second / 100 // USER_HZ, which is 100 on all that Go runs on
}

// descriptors is how many the process has open.
func (s *server) descriptors() int {
	s.r.Helper()
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		s.r.Fatalf("%v: %s", err, s.tail())
	}
	return len(d)
}

// until polls what another process does, for which there is no event.
func (r *run) until(what string, ok func() bool) {
	r.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("in vain waited for: %s", what)
		}
	}
}

// clientEnvironment is that of a sealift, whose known_servers is not the user's.
func clientEnvironment(known string) []string {
	return append(append(os.Environ(), "SEALIFT_KNOWN_SERVERS="+known), testpeer.ClientVariables()...)
}

// program runs one of the programs to its end, and returns what it wrote to
// standard output and its exit status.
func program(path string, args ...string) (stdout, stderr string, status int, err error) {
	cmd := exec.Command(path, args...)
	if path == sealift {
		known, err := os.CreateTemp(built, "known-servers-")
		if err != nil {
			return "", "", 0, err
		}
		defer os.Remove(known.Name())
		defer known.Close()
		cmd.Env = clientEnvironment(known.Name())
	}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil
	}
	return out.String(), complaint.String(), cmd.ProcessState.ExitCode(), err
}

// growthLimit is what the memory of a server may grow by, in KiB: the budget,
// what comes on top of it for packets before their turn, and 64 KiB for each
// connection.
func growthLimit(connections int) int { return (64<<20+16<<20)>>10 + 64*connections }

// grown asserts that the server's memory stays within its bound, and returns
// how much it has grown at most since it was before.
func (s *server) grown(before, connections int) int {
	s.r.Helper()
	n := s.peak() - before
	if limit := growthLimit(connections); n > limit && !raceEnabled {
		s.r.Errorf("memory has grown by %d KiB, more than %d", n, limit)
	}
	return n
}
