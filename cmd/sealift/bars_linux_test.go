package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/mattn/go-runewidth"
	"golang.org/x/sys/unix"

	"sealift/codec"
	"sealift/internal/fakeserver"
)

// terminal is a pseudo-terminal that a program writes to.
type terminal struct {
	t             *testing.T
	master, slave *os.File
	ended         chan struct{}

	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed when there is more text
}

func newTerminal(t *testing.T, columns int) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: master, slave: slave, ended: make(chan struct{}), changed: make(chan struct{})}
	term.resize(columns)
	go func() {
		defer close(term.ended)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			term.mu.Lock()
			term.text.Write(buf[:n])
			close(term.changed)
			term.changed = make(chan struct{})
			term.mu.Unlock()
			if err != nil {
				return // all have closed the other side
			}
		}
	}()
	return term
}

func (term *terminal) resize(columns int) {
	term.t.Helper()
	if err := unix.IoctlSetWinsize(int(term.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}); err != nil {
		term.t.Fatal(err)
	}
}

// start starts cmd with the terminal as its standard output and error.
func (term *terminal) start(cmd *exec.Cmd) {
	term.t.Helper()
	cmd.Stdout, cmd.Stderr = term.slave, term.slave
	if err := cmd.Start(); err != nil {
		term.t.Fatal(err)
	}
	term.slave.Close()
}

// wait waits until done says that the text is enough, and returns it.
func (term *terminal) wait(done func(text string) bool) string {
	term.t.Helper()
	for {
		term.mu.Lock()
		text, changed := term.text.String(), term.changed
		term.mu.Unlock()
		if done(text) {
			return text
		}
		select {
		case <-changed:
		case <-term.ended:
			term.t.Errorf("ended with %q", text)
			return text
		}
	}
}

// has is for wait: the text has all of these.
func has(parts ...string) func(string) bool {
	return func(text string) bool {
		for _, p := range parts {
			if !strings.Contains(text, p) {
				return false
			}
		}
		return true
	}
}

var escape = regexp.MustCompile(`\x1b\[([0-9]*)([A-Za-z])`)

// barsOf returns the lines of text that are bars.
func barsOf(text string) (lines []string) {
	for line := range strings.SplitSeq(strings.ReplaceAll(escape.ReplaceAllString(text, ""), "\r", ""), "\n") {
		if regexp.MustCompile(` \d+%`).MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// screen returns what text leaves on a terminal of so many columns.
func screen(t *testing.T, text string, columns int) string {
	t.Helper()
	rows, row, column := [][]rune{nil}, 0, 0
	put := func(r rune) {
		if column >= columns {
			row, column = row+1, 0
		}
		for len(rows) <= row {
			rows = append(rows, nil)
		}
		for len(rows[row]) <= column {
			rows[row] = append(rows[row], ' ')
		}
		rows[row][column] = r
		column++
	}
	for len(text) > 0 {
		if m := escape.FindStringSubmatch(text); m != nil && strings.HasPrefix(text, m[0]) {
			text = text[len(m[0]):]
			n := 1
			_, _ = fmt.Sscan(m[1], &n)
			switch m[2] {
			case "A":
				row = max(row-n, 0)
			case "J":
				rows = rows[:min(row+1, len(rows))]
				rows[row] = rows[row][:min(column, len(rows[row]))]
			default:
				t.Fatalf("an escape that this terminal does not know: %q", m[0])
			}
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		switch r {
		case '\r':
			column = 0
		case '\n':
			row++
			for len(rows) <= row {
				rows = append(rows, nil)
			}
		default:
			put(r)
		}
	}
	var out strings.Builder
	for _, r := range rows {
		out.WriteString(strings.TrimRight(string(r), " ") + "\n")
	}
	return strings.TrimRight(out.String(), "\n") + "\n"
}

// held has the server answer no 1028 until release is called.
func held(s *fakeserver.Server) (release func()) {
	seen := make(chan struct{})
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeSendFile {
			select {
			case <-seen:
			case <-s.Over():
			}
		}
		return right
	}
	return func() { close(seen) }
}

// withTerminal says that the program has a terminal, and is not run by a machine.
func withTerminal(cmd *exec.Cmd, kind string) *exec.Cmd {
	cmd.Env = append(cmd.Env, "TERM="+kind, "CI=")
	return cmd
}

// There is a bar for each file that is under way and one for all of them, each
// on one line, however narrow the terminal is; the lines about files stand above
// them, and nothing of a bar is left at the end.
func TestBars(t *testing.T) {
	for _, columns := range []int{30, 80, 200} {
		s, dir := fakeserver.New(t), t.TempDir()
		release := held(s)
		args := []string{"send", "--server", s.Addr, "--name", "n", "--parallel", "2"}
		for _, f := range []string{"one", "two-has-a-name-that-is-longer-than-the-whole-line-of-a-terminal", "three-日本語日本語日本語", "four"} {
			put(t, dir, f, strings.Repeat(f, 1000))
			if !strings.Contains(f, "日") {
				args = append(args, f)
			}
		}
		put(t, dir, "five", "5")
		args = append(args, "five")
		term := newTerminal(t, columns)
		cmd := withTerminal(command(t, dir, args...), "xterm")
		term.start(cmd)
		term.wait(has("one ", "two-has-a", "0 of 4 files", "100%"))
		release()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		<-term.ended
		text := term.wait(func(string) bool { return true })
		for _, line := range barsOf(text) {
			if n := runewidth.StringWidth(line); n >= columns {
				t.Errorf("%d columns: %d in %q", columns, n, line)
			}
		}
		if n := len(barsOf(text)); n < 3 {
			t.Errorf("%d lines of bars: %q", n, text)
		}
		left := screen(t, text, columns)
		flat := strings.ReplaceAll(left, "\n", "")
		for _, want := range []string{`registered "n" with`, "stored one: ", "stored two-has-", "stored four: ", "stored five: "} {
			if strings.Count(flat, want) != 1 {
				t.Errorf("%d columns: %q is not there once:\n%s", columns, want, left)
			}
		}
		if strings.Contains(left, "%") || strings.Contains(left, "[") {
			t.Errorf("%d columns: something of a bar is left:\n%s", columns, left)
		}
	}
}

// The lines of the log stand above the bar, whole.
func TestBarsAndTheLog(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	release := held(s)
	put(t, dir, "file", strings.Repeat("content ", 100_000))
	term := newTerminal(t, 80)
	cmd := withTerminal(command(t, dir, "send", "--verbose", "--server", s.Addr, "--name", "n", "file"), "xterm-256color")
	term.start(cmd)
	term.wait(has("file ", "100%  800 kB / 800 kB"))
	release()
	_ = cmd.Wait()
	<-term.ended
	left := screen(t, term.wait(func(string) bool { return true }), 80)
	for _, want := range []string{`message="1028 send file"`, `message="1604 acknowledged"`, "stored file: 800000 bytes"} {
		if strings.Count(left, want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, left)
		}
	}
	if strings.Contains(left, "%") {
		t.Errorf("something of a bar is left:\n%s", left)
	}
}

// A window that becomes narrower has narrower bars.
func TestBarsInAWindowThatChanges(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	release := held(s)
	put(t, dir, "file", strings.Repeat("content ", 1000))
	put(t, dir, "other", "")
	term := newTerminal(t, 100)
	cmd := withTerminal(command(t, dir, "send", "--server", s.Addr, "--name", "n", "file", "other"), "xterm")
	term.start(cmd)
	before := term.wait(has("file ", "of 2 files", "100%"))
	term.resize(25)
	narrow := func(text string) bool {
		for _, line := range barsOf(text[len(before):]) {
			if n := runewidth.StringWidth(line); n > 10 && n < 25 {
				return true
			}
		}
		return false
	}
	now := len(term.wait(narrow))
	text := term.wait(func(text string) bool { return len(text) > now+100 })
	for _, line := range barsOf(text[now:]) {
		if n := runewidth.StringWidth(line); n >= 25 {
			t.Errorf("%d columns in %q", n, line)
		}
	}
	release()
	_ = cmd.Wait()
}

// A terminal that cannot move its cursor, and a log, get lines and nothing else.
func TestNoBars(t *testing.T) {
	for _, env := range []string{"TERM=dumb", "TERM=", "CI=true"} {
		s, dir := fakeserver.New(t), t.TempDir()
		put(t, dir, "file", strings.Repeat("content ", 100_000))
		term := newTerminal(t, 80)
		cmd := withTerminal(command(t, dir, "send", "--server", s.Addr, "--name", "n", "file"), "xterm")
		cmd.Env = append(cmd.Env, env)
		term.start(cmd)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		<-term.ended
		text := term.wait(func(string) bool { return true })
		if strings.Contains(text, "\x1b") || strings.Contains(text, "%") || strings.Count(text, "\n") != 2 || !strings.Contains(text, "stored file: ") {
			t.Errorf("%s: %q", env, text)
		}
	}
}
