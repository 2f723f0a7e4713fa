package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sealift/internal/testpeer"
)

// sendTimeout ends a client that hangs. A client may spend two minutes on probes alone.
const sendTimeout = 5 * time.Minute

// A RunningServer is a server process. Its owner calls Stop.
type RunningServer struct {
	Addr string // HOST:PORT
	// Of the tests over TLS: Sealift's programs protect their connections, and the others do not know how. So between the
	// two there is a relay that does it for the other.
	relay *testpeer.Relay
	ours  bool // the server is Sealift's
	dir   string
	log   string // of a peer: one line a message

	cmd    *exec.Cmd
	stderr bytes.Buffer  // to be read after exited
	stop   func()        // asks the process to end
	exited chan struct{} // closed when it has
}

// AddrFor is where a client of that maker reaches the server.
func (s *RunningServer) AddrFor(maker Maker) string {
	if s.relay != nil && s.ours != (maker == Sealift) {
		return s.relay.Addr()
	}
	return s.Addr
}

// Start runs a server that keeps its files in dir, which must exist and be empty, and returns when it listens.
func (p *Programs) Start(ctx context.Context, server Server, dir string) (*RunningServer, error) {
	running, err := p.start(ctx, server, dir)
	if err != nil || !testpeer.OverTLS() {
		return running, err
	}
	running.ours, running.relay = server.Maker == Sealift, new(testpeer.Relay)
	if running.ours {
		// Who only puts TLS around another's connection has no key of that client.
		running.relay.Far = (&testpeer.TLS{AnyServer: true}).Client
	} else {
		running.relay.Near, _ = testpeer.Terminate()
	}
	if err := running.relay.Start(running.Addr); err != nil {
		running.Stop()
		return nil, err
	}
	return running, nil
}

func (p *Programs) start(ctx context.Context, server Server, dir string) (*RunningServer, error) {
	if server.Maker == Sealift {
		return p.startSealiftd(ctx, dir, server)
	}
	log := filepath.Join(dir, "log")
	args := append([]string{"--dir", dir, "--listen", "127.0.0.1:0", "--log", log}, server.Dialect.args("--packet")...)
	for _, quirk := range server.Quirks {
		args = append(args, "--quirk", quirk)
	}
	command := p.cppServer
	if server.Maker == Python {
		command, args = p.python, append([]string{p.pyServer}, args...)
	}
	stdout := &firstLine{line: make(chan string, 1)}
	running, err := startServer(ctx, dir, stdout, command, args...)
	if err != nil {
		return nil, err
	}
	running.log = log
	select {
	case line := <-stdout.line:
		running.Addr = strings.TrimPrefix(line, "listening ")
		return running, nil
	case <-running.exited:
		return nil, fmt.Errorf("%s does not listen: %s", server, bytes.TrimSpace(running.stderr.Bytes()))
	}
}

// startSealiftd runs sealiftd, which writes the address it is bound to into a file.
func (p *Programs) startSealiftd(ctx context.Context, dir string, server Server) (*RunningServer, error) {
	addrFile := filepath.Join(dir, "addr")
	args := []string{"serve", "--dir", dir, "--listen", "127.0.0.1:0", "--addr-file", addrFile, "--fault", strings.Join(server.Quirks, ",")}
	if server.Keyless {
		args = append(args, "--tls-clients", "any")
	}
	running, err := startServer(ctx, dir, io.Discard, p.sealiftd, args...)
	if err != nil {
		return nil, err
	}
	for {
		addr, err := os.ReadFile(addrFile)
		if err == nil && bytes.ContainsRune(addr, ':') {
			running.Addr = string(bytes.TrimSpace(addr))
			return running, nil
		}
		select {
		case <-running.exited:
			return nil, fmt.Errorf("sealiftd does not listen: %s", bytes.TrimSpace(running.stderr.Bytes()))
		case <-time.After(5 * time.Millisecond): // a file can only be looked for
		}
	}
}

func startServer(ctx context.Context, dir string, stdout io.Writer, command string, args ...string) (*RunningServer, error) {
	ctx, stop := context.WithCancel(ctx)
	running := &RunningServer{dir: dir, stop: stop, exited: make(chan struct{})}
	running.cmd = exec.CommandContext(ctx, command, args...)
	running.cmd.Cancel = func() error { return running.cmd.Process.Signal(syscall.SIGTERM) }
	running.cmd.Env = append(os.Environ(), testpeer.ServerVariables()...)
	running.cmd.WaitDelay = 10 * time.Second
	running.cmd.Stdout, running.cmd.Stderr = stdout, &running.stderr
	if err := running.cmd.Start(); err != nil {
		stop()
		return nil, err
	}
	go func() {
		_ = running.cmd.Wait() // the signal that ends it is an error, too
		stop()
		close(running.exited)
	}()
	return running, nil
}

// firstLine is a Writer that hands on the first line written to it.
type firstLine struct {
	text []byte
	line chan string // takes one without a reader
}

func (f *firstLine) Write(p []byte) (int, error) {
	before := bytes.ContainsRune(f.text, '\n')
	f.text = append(f.text, p...)
	if line, _, found := bytes.Cut(f.text, []byte("\n")); found && !before {
		f.line <- string(line)
	}
	return len(p), nil
}

// Stop ends the process and waits for it.
func (s *RunningServer) Stop() {
	if s.relay != nil {
		s.relay.Close()
	}
	s.stop()
	<-s.exited
}

// Stored is the path under which the server keeps a client's file.
func (s *RunningServer) Stored(clientID, name string) string {
	return filepath.Join(s.dir, "files", clientID, name)
}

// Codes is the sequence of messages that a peer has received and sent, in the form of [Transcript.Codes].
func (s *RunningServer) Codes() (string, error) {
	log, err := os.ReadFile(s.log)
	return codes(string(log)), err
}

// A Transcript is what a client that has ended leaves behind.
type Transcript struct {
	Output string // of a peer: one line a message, and the file's checksum
	Errors string // standard error
	Exit   int    // status; -1 if it was killed
}

// Codes is the sequence of the messages that a peer has sent and received, runs of equal ones counted:
// "1027 1605 1028x10 1603 1029 1604".
func (t Transcript) Codes() string { return codes(t.Output) }

// Cksum is the checksum that a peer has printed, in decimal.
func (t Transcript) Cksum() string {
	for line := range strings.Lines(t.Output) {
		if sum, ok := strings.CutPrefix(line, "cksum "); ok {
			return strings.TrimSpace(sum)
		}
	}
	return ""
}

func codes(log string) string {
	var sequence []string
	last, run := "", 0
	flush := func() {
		if run > 1 {
			last += fmt.Sprintf("x%d", run)
		}
		if run > 0 {
			sequence = append(sequence, last)
		}
	}
	for line := range strings.Lines(log) {
		direction, code, _ := strings.Cut(strings.TrimSpace(line), " ")
		if direction != "sent" && direction != "received" {
			continue
		}
		if code != last {
			flush()
			last, run = code, 0
		}
		run++
	}
	flush()
	return strings.Join(sequence, " ")
}

// Send has a client send the files of these names in the directory dir to addr, all in one run; only sealift with
// OneRun takes more than one. The client keeps its me.info in dir; where there is none it registers as user. The error is
// for a client that could not be run; how it fared is in the Transcript.
func (p *Programs) Send(ctx context.Context, client Client, addr, user, dir string, names ...string) (Transcript, error) {
	info := fmt.Sprintf("%s\n%s\n%s\n", addr, user, names[0])
	if client.Maker == Sealift && testpeer.OverTLS() {
		info = "tls://" + info
	}
	if err := os.WriteFile(filepath.Join(dir, "transfer.info"), []byte(info), 0o600); err != nil {
		return Transcript{}, err
	}
	var command string
	var args []string
	switch {
	case client.Maker == Cpp:
		command, args = p.cppClient, append(client.Dialect.args("--packet"), client.Habits...)
	case client.Maker == Python:
		command, args = p.python, append([]string{p.pyClient}, client.Dialect.args("--packet")...)
		args = append(args, client.Habits...)
	case client.Batch:
		command, args = p.sealift, client.Dialect.args("--packet-size")
	default:
		command, args = p.sealift, append([]string{"send", "--server", addr, "--name", user},
			client.Dialect.args("--packet-size")...)
		args = append(args, names...)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = clientEnvironment(dir)
	err := cmd.Run()
	transcript := Transcript{Output: stdout.String(), Errors: stderr.String()}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		transcript.Exit, err = exit.ExitCode(), nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%s hangs: %w", client, ctx.Err())
	}
	return transcript, err
}

// clientEnvironment is that of a sealift, with a known_servers in dir, and not the user's.
func clientEnvironment(dir string) []string {
	return append(append(os.Environ(), "SEALIFT_KNOWN_SERVERS="+filepath.Join(dir, "known_servers")), testpeer.ClientVariables()...)
}

// clientID is the id in the me.info of dir, as servers name their directories: 32 digits, in lower case.
func clientID(dir string) (string, error) {
	info, err := os.ReadFile(filepath.Join(dir, "me.info"))
	if err != nil {
		return "", err
	}
	lines := strings.FieldsFunc(string(info), func(r rune) bool { return r == '\n' || r == '\r' })
	if len(lines) < 3 {
		return "", errors.New("me.info has less than three lines")
	}
	return strings.ToLower(strings.ReplaceAll(lines[1], "-", "")), nil
}
