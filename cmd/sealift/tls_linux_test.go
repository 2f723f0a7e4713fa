package main_test

import (
	"io"
	"os/exec"
	"strings"
	"testing"

	"sealift/internal/fakeserver"
)

// hangUp is an answer that is none: an interrupt.
const hangUp = "interrupt"

// asked runs the program on a terminal until it asks about a key, and types an answer to
// each question. It returns what was on the terminal, and the status.
func asked(t *testing.T, cmd *exec.Cmd, answers ...string) (text string, status int) {
	t.Helper()
	term := newTerminal(t, 200)
	cmd.Stdin = term.slave
	term.start(withTerminal(cmd, "xterm"))
	seen := 0
	for _, answer := range answers {
		text := term.wait(func(text string) bool {
			return strings.HasSuffix(text[seen:], "? ") || strings.HasSuffix(text[seen:], "fingerprint: ")
		})
		seen = len(text)
		if answer == hangUp {
			interrupt(t, cmd)
			continue
		}
		if _, err := io.WriteString(term.master, answer); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	<-term.ended
	return term.wait(func(string) bool { return true }), cmd.ProcessState.ExitCode()
}

// On a terminal its user is asked about a server that is new, and only then.
func TestAskedAboutTheKey(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answers []string
		says    string // besides the question; KEY is the server's
		stored  bool
	}{
		{"yes", []string{"yes\n"}, "stored file", true},
		{"yes, in the end", []string{"y\n", "\n", "Yes\n"}, "stored file", true},
		{"its fingerprint", []string{"KEY\n"}, "stored file", true},
		{"another fingerprint", []string{otherKey + "\n"}, "Fatal error: 2 of 2 files are not stored: the TLS key KEY of ADDR is not trusted: it should be " + otherKey, false},
		{"no", []string{"no\n"}, "Fatal error: 2 of 2 files are not stored: the TLS key KEY of ADDR is not trusted: the answer was no", false},
		{"the end", []string{"\x04"}, "Fatal error: 2 of 2 files are not stored: the TLS key KEY of ADDR is not trusted: there was no answer", false},
		{"an interrupt", []string{"what?\n", hangUp}, "Fatal error: interrupted", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, key := fakeserver.OverTLS(t, nil)
			dir := t.TempDir()
			names := strings.NewReplacer("KEY", key.String(), "ADDR", s.Addr)
			put(t, dir, "file", strings.Repeat("content", 1000))
			put(t, dir, "other", "")
			args := []string{"send", "--tls", "--server", s.Addr, "--name", "n", "file", "other"}
			cmd := command(t, dir, args...)
			var answers []string
			for _, a := range tc.answers {
				answers = append(answers, names.Replace(a))
			}
			text, status := asked(t, cmd, answers...)
			if want := "The server " + s.Addr + " is not known yet. Its TLS key has the fingerprint\r\n  " + key.String(); !strings.Contains(text, want) {
				t.Errorf("%q is not in %q", want, text)
			}
			if want := names.Replace(tc.says); !strings.Contains(text, want) {
				t.Errorf("%q is not in %q", want, text)
			}
			if (status == 0) != tc.stored || strings.Contains(known(t, dir), key.String()) != tc.stored {
				t.Errorf("status %d, known_servers %q", status, known(t, dir))
			}
			if heard := strings.ContainsAny(s.Sequence(), "0123456789"); heard != tc.stored {
				t.Errorf("the server heard %q", s.Sequence())
			}
			if !tc.stored {
				return
			}
			if text, status := asked(t, command(t, dir, args...)); status != 0 || strings.Contains(text, "?") {
				t.Errorf("the second time: status %d, %q", status, text)
			}
		})
	}
}
