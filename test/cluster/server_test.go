//go:build linux

package cluster

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"sealift/internal/testpeer"
)

// server is a sealiftd in a process of its own.
type server struct {
	r    *run
	addr string
	cmd  *exec.Cmd

	exited    chan struct{}
	listening chan struct{}

	mu      sync.Mutex
	trouble map[string]int // lines of the log above info
	other   bytes.Buffer   // what is no line of the log: panics, a goroutine dump
}

// launch runs a server, to be killed at the latest when the scenario is over.
func (r *run) launch(cmd *exec.Cmd) *server {
	r.Helper()
	s := &server{r: r, cmd: cmd, exited: make(chan struct{}), listening: make(chan struct{}), trouble: make(map[string]int)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.Fatalf("starting the server: %v", err)
	}
	go func() {
		s.read(out)
		_ = cmd.Wait()
		close(s.exited)
	}()
	r.Cleanup(s.close)
	return s
}

func (s *server) read(out io.Reader) {
	for in := bufio.NewReaderSize(out, 64<<10); ; {
		text, err := in.ReadBytes('\n')
		var l struct {
			Level   string `json:"level"`
			Msg     string `json:"msg"`
			Reason  string `json:"reason"`
			Error   string `json:"error"`
			Address string `json:"address"`
		}
		if len(text) == 0 || text[0] != '{' || json.Unmarshal(text, &l) != nil {
			s.mu.Lock()
			s.other.Write(text)
			s.mu.Unlock()
		} else if l.Msg == "listening" {
			s.addr = l.Address
			close(s.listening)
		} else if l.Level != "info" {
			s.mu.Lock()
			s.trouble[fmt.Sprintf("%s %s: %s %s", l.Level, l.Msg, l.Reason, l.Error)]++
			s.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// ready waits until the server takes connections.
func (s *server) ready() {
	s.r.Helper()
	select {
	case <-s.listening:
	case <-s.exited:
		s.r.Fatalf("the server has ended: %s", s.tail())
	case <-time.After(patience):
		s.r.Fatalf("the server does not start: %s", s.tail())
	}
}

// tail is what went wrong, as the server tells it.
func (s *server) tail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for what, n := range s.trouble {
		if b.Len() < 6000 {
			fmt.Fprintf(&b, "%d times %s\n", n, what)
		}
	}
	other := s.other.Bytes()
	b.Write(other[:min(len(other), 6000)])
	return b.String()
}

func (s *server) signal(sig syscall.Signal) {
	s.r.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.r.Errorf("signal %v: %v", sig, err)
	}
}

// alive fails the run if the server has ended.
func (s *server) alive() {
	s.r.Helper()
	select {
	case <-s.exited:
		s.r.Fatalf("the server has ended: %s", s.tail())
	default:
	}
}

// kill ends the process as a power cut of its machine would.
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
	for what := range s.trouble {
		if strings.Contains(what, "panic") {
			other += "panic: " + what
		}
	}
	for _, sign := range []string{"DATA RACE", "panic: ", "fatal error: "} {
		if i := strings.Index(other, sign); i >= 0 {
			s.r.Errorf("the server said:\n%s", other[max(0, i-200):min(len(other), i+4000)])
			return
		}
	}
}

// dial connects a peer to addr: a server, or the balancer.
func dial(addr string, p *testpeer.Conn) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	p.Use(c)
	return nil
}
