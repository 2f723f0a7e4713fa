//go:build unix

package main_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/internal/fakeserver"
)

// Ctrl-C while the server is thinking.
func TestInterrupt(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	reached := make(chan struct{})
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeSendFile {
			close(reached)
			<-s.Over()
			return nil
		}
		return right
	}
	put(t, dir, "file", "content")
	cmd := command(t, dir, "send", "--server", s.Addr, "--name", "n", "file")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-reached
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Errorf("ended with %v", err)
	}
	if got := strings.TrimSpace(stderr.String()); got != "Fatal error: interrupted" {
		t.Errorf("stderr %q", got)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 3 { // file, me.info, me.info.lock
		t.Errorf("left behind: %v", entries)
	}
}
