//go:build unix

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sealift/codec"
)

// Names that people have go through every program, and come out as they were: in
// the server's folder, its lists, a backup, and where they are sent again.
func TestUnicodeNames(t *testing.T) {
	t.Parallel()
	d := serve(t)
	dir := t.TempDir()
	files := map[string]string{
		"r\u00e9sum\u00e9.pdf":                    "composed",
		"re\u0301sume\u0301.pdf":                  "the same in its other form",
		"\u5c65\u6b74\u66f8.txt":                  "wide",
		"\u05e9\u05dc\u05d5\u05dd.txt":            "from right to left",
		"\U0001f469\u200d\U0001f680 \u2764\ufe0f": "emoji of several characters",
		strings.Repeat("\u00e9", 127):             "the longest",
	}
	for i, user := range []string{"J\u00fcrgen", strings.Repeat("\u674e", 84), strings.Repeat("\u00e9", 100)} {
		home := filepath.Join(dir, fmt.Sprint(i))
		var args []string
		for name, content := range files {
			put(t, filepath.Join(home, name), []byte(content))
			args = append(args, name)
		}
		run(t, home, sealift, append([]string{"send", "--server", d.addr, "--name", user}, args...)...).succeeded(t)
		run(t, home, sealift, append([]string{"send", "--server", d.addr}, args...)...).succeeded(t) // reconnects
		for _, c := range d.clients() {
			if c.Name != user {
				continue
			}
			for name, content := range files {
				checkFile(t, filepath.Join(d.dir, "files", c.ID, name), strings.NewReader(content))
			}
		}
	}
	names := map[string]int{}
	for _, f := range d.files() {
		if !f.Verified || filepath.Base(f.Path) != f.FileName {
			t.Errorf("%+v", f)
		}
		names[f.FileName]++
	}
	for name := range files {
		if names[name] != 3 {
			t.Errorf("%q is on record %d times", name, names[name])
		}
	}
	copied := filepath.Join(dir, "copy")
	run(t, dir, sealiftd, "backup", "--dir", d.dir, "--to", copied).succeeded(t)
	for _, at := range []string{d.dir, copied} {
		if got := run(t, dir, sealiftd, "verify", "--dir", at).succeeded(t).stdout; !strings.HasPrefix(got, "18 of 18 files") {
			t.Errorf("verify: %s", got)
		}
	}
	if got := len(d.clients()); got != 3 {
		t.Errorf("%d clients", got)
	}
	d.stop()
	d = serveIn(t, d.dir)
	for _, level := range []string{"error", "warn"} {
		if log := d.log.String(); strings.Contains(log, `"level":"`+level) {
			t.Errorf("after a restart: %s", log)
		}
	}
}

// What is no name gets 1607, and the log says what is wrong with it.
func TestNamesThatAreNone(t *testing.T) {
	t.Parallel()
	d := serve(t)
	for name, why := range map[string]string{
		"caf\xe9.txt": "it is not UTF-8: byte e9 at 3", "a\xed\xa0\x80": "it is not UTF-8: byte ed at 1",
		"a\u009b2J": "it has a control character: U+009B", "a\u202egpj.exe": "it has a character that turns text around: U+202E",
		"a\u2029": "it has a line separator: U+2029", "\ufeffa": "it has a byte order mark: U+FEFF",
	} {
		p := connect(t, d, name)
		p.send(p.Register())
		p.expect(codec.CodeError)
		line := d.await(why)
		if !strings.Contains(line, `"code":1025`) {
			t.Errorf("%q: log %s", name, line)
		}
	}
}

// A table has its columns under each other on a terminal, where some characters
// take two places and others none. What cannot be seen is written out; JSON has
// the names as they are.
func TestTablesOfUnicodeNames(t *testing.T) {
	t.Parallel()
	d := serve(t)
	names := map[string]struct {
		shown  string
		places int
	}{
		"plain":                    {"plain", 5},
		"\u5c65\u6b74\u66f8":       {"\u5c65\u6b74\u66f8", 6},
		"re\u0301sume\u0301":       {"re\u0301sume\u0301", 6},
		"a\u200bb\u00adc":          {`a\u200bb\u00adc`, 15},
		"\U000f0000":               {`\U000f0000`, 10},
		"\u0645\u06cc\u200c\u062e": {"\u0645\u06cc\u200c\u062e", 3},
	}
	p := login(t, d, "n")
	for name := range names {
		p.upload(name, []byte("x"))
	}
	table := run(t, d.dir, sealiftd, "files").succeeded(t).stdout
	lines := strings.Split(strings.TrimSpace(table), "\n")
	prefix := len("files//") + 2*len(p.ID)
	width := strings.Index(lines[0], "SIZE")
	for name, want := range names {
		cell := "files/" + p.ID.String() + "/" + want.shown
		found := false
		for _, line := range lines {
			if rest, ok := strings.CutPrefix(line, cell+" "); ok && strings.HasPrefix(strings.TrimLeft(rest, " "), "1 ") {
				found = true
				if got := prefix + want.places + 1 + len(rest) - len(strings.TrimLeft(rest, " ")); got != width {
					t.Errorf("%q: the next column begins at %d, in the header at %d:\n%s", name, got, width, table)
				}
			}
		}
		if !found {
			t.Errorf("no %q in\n%s", want.shown, table)
		}
	}
	out := run(t, d.dir, sealiftd, "files", "--json").succeeded(t).stdout
	for line := range strings.Lines(out) {
		var row fileRow
		if err := json.NewDecoder(bytes.NewReader([]byte(line))).Decode(&row); err != nil {
			t.Fatal(err)
		}
		if _, ok := names[row.FileName]; !ok {
			t.Errorf("JSON has %q", row.FileName)
		}
	}
}
