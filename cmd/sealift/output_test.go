//go:build unix

package main_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"sealift/codec"
	"sealift/internal/fakeserver"
)

// Output that nobody gets is a failure, and the files are sent all the same.
func TestOutputThatCannotBeWritten(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/dev/full is Linux's")
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	r, closed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer closed.Close()
	for why, stdout := range map[string]*os.File{"no space left on device": full, "broken pipe": closed} {
		s, dir := fakeserver.New(t), t.TempDir()
		put(t, dir, "a", "1")
		put(t, dir, "b", "2")
		to := func(args ...string) result {
			t.Helper()
			cmd := command(t, dir, args...)
			cmd.Stdout = stdout
			return finish(t, cmd)
		}
		for _, args := range [][]string{{"a", "b", "--name", "n"}, {"--json", "b", "a"}} {
			got := to(append([]string{"send", "--server", s.Addr}, args...)...).failed(t, "standard output cannot be written: "+why)
			if strings.Count(got.stderr, "\n") != 1 {
				t.Errorf("more than one line: %q", got.stderr)
			}
		}
		heard(t, s, "a=1", "b=2")
		for _, args := range [][]string{{"--help"}, {"version"}, {"send", "--help"}} {
			to(args...).failed(t, "standard output cannot be written")
		}
	}
}

func TestClosedOutput(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "a", "1")
	shell := func(redirect string) result {
		t.Helper()
		cmd := command(t, dir)
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `exec "$0" send --server "$1" --name n a ` + redirect, program, s.Addr}
		return finish(t, cmd)
	}
	shell(">&-").failed(t, "standard output is closed")
	silent(t, s)
	shell(">/dev/null").succeeded(t)
	if got := shell("2>&-"); got.status != 0 || !strings.Contains(got.stdout, "stored a") {
		t.Errorf("%+v", got)
	}
}

// Whatever a path is, what sealift says of it does nothing to a terminal.
func TestPathsDoNothingToATerminal(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "file", "content")
	odd := "odd\x1b[31m\u202e\xff"
	put(t, dir, odd, "rubbish")
	for _, got := range []result{
		send(t, s, dir, "--as", "x", odd+"2").failed(t, "no such file"),
		send(t, s, dir, "--as", "x", odd+"/file").failed(t, "not a directory"),
		run(t, dir, "send", "--server", s.Addr, "--name", "n", "--identity", odd, "file").failed(t, "malformed"),
		run(t, dir, "send", "--server", s.Addr, "--identity", odd+"2", "file").misused(t, "--name is missing"),
		run(t, dir, "send", "--server", s.Addr, "--name", "n", "--identity", odd+"3", "file").succeeded(t),
	} {
		all := got.stdout + got.stderr
		if strings.ContainsAny(all, "\x1b\u202e") || !utf8.ValidString(all) || !strings.Contains(all, `odd\x1b[31m\u202e\xff`) {
			t.Errorf("%q", all)
		}
	}
}

// A standard input that is closed has no content, not even an empty one.
func TestClosedInput(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	from := func(redirect string) result {
		t.Helper()
		cmd := command(t, dir)
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `exec "$0" send --server "$1" --name n --as empty - ` + redirect, program, s.Addr}
		return finish(t, cmd)
	}
	from("<&-").failed(t, "standard input is closed")
	silent(t, s)
	from("</dev/null").succeeded(t)
	heard(t, s, "empty=")
}

// finish runs cmd to its end. What its Stdout is set to stays.
func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// The second interrupt ends whatever sealift waits for: here a pipe that
// somebody has in the place of transfer.info.
func TestSecondInterrupt(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "transfer.info")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, dir)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0) // sealift reads, and gets nothing
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	interrupt(t, cmd)
	line, _ := bufio.NewReader(stderr).ReadString('\n')
	if !strings.Contains(line, "interrupt again") {
		t.Errorf("%q", line)
	}
	interrupt(t, cmd)
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 130 {
		t.Errorf("status %d", got)
	}
}

// An identity is read more than once, so a pipe cannot hold one.
func TestPipeAsIdentity(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "file", "content")
	put(t, dir, "transfer.info", s.Addr+"\nn\nfile\n")
	if err := syscall.Mkfifo(filepath.Join(dir, "me.info"), 0o600); err != nil {
		t.Fatal(err)
	}
	finish(t, command(t, dir)).failed(t, "me.info: malformed: not a regular file")
}

func interrupt(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
}

// A pipe in the place of a file to send is told, and not waited for. The first
// interrupt ends the reading of standard input.
func TestPipesAsFiles(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	send(t, s, dir, "pipe").failed(t, "pipe is a pipe, not a regular file. To send what comes out of it: sealift send --as NAME - <pipe")

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd := command(t, dir, "send", "--server", s.Addr, "--name", "n", "-", "--as", "x")
	cmd.Stdin = r
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	// More than the pipe holds has gone in: sealift reads.
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	interrupt(t, cmd)
	_ = cmd.Wait()
	if got := (result{"", stderr.String(), cmd.ProcessState.ExitCode()}); got.status != 130 || got.stderr != "Fatal error: interrupted\n" {
		t.Errorf("%+v", got)
	}
	silent(t, s)
}

// An interrupt in the middle of several files says of each what became of it.
func TestInterruptInTheMiddle(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	reached := make(chan struct{})
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeSendFile && m.Name == "b" {
			close(reached)
			<-s.Over()
			return nil
		}
		return right
	}
	for _, f := range []string{"a", "b", "c"} {
		put(t, dir, f, f)
	}
	cmd := command(t, dir, "send", "--json", "--server", s.Addr, "--name", "n", "a", "b", "c")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-reached
	interrupt(t, cmd)
	_ = cmd.Wait()
	got := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	o := outcomes(t, got, 3)
	if got.status != 130 || got.stderr != "Fatal error: interrupted; 2 of 3 files are not stored\n" {
		t.Errorf("%+v", got)
	}
	if o["a"]["stored"] != true || o["b"]["error"] != "interrupted" || o["c"]["error"] != "not tried" {
		t.Errorf("%v", o)
	}
}
