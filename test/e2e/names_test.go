//go:build unix

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sealift/codec"
)

// tree is every file and folder below dir, with a hash of what is in it. The
// registry's content is not looked at: it changes with every message.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if e.IsDir() && filepath.Base(filepath.Dir(path)) == ".incoming" {
			return nil // comes into being when a key leads there, and stays
		}
		all[rel] = e.Type().String()
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), "defensive.db") {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[rel] = fmt.Sprintf("%x", sha256.Sum256(content))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// No file name leads out of files/<client id>/, and the only file that an
// upload touches is its own.
func TestFileNames(t *testing.T) {
	t.Parallel()
	outer := t.TempDir()
	dir := filepath.Join(outer, "a", "server")
	for _, decoy := range []string{"x", "a/x", "a/server/x", "a/server/port.info", "a/port.info", "a/defensive.db"} {
		put(t, filepath.Join(outer, decoy), []byte("decoy"))
	}
	d := serveIn(t, dir)
	victim := login(t, d, "victim")
	victim.upload("x", []byte("the victim's"))

	const refused = ""
	long := strings.Repeat(strings.Repeat("d", 14)+"/", 16) + strings.Repeat("f", 14) // the most characters and folders there can be
	names := []struct{ name, path string }{
		{"x", "x"},
		{"..", refused},
		{"../x", "x"},
		{"../../x", "x"},
		{"../../../../x", "x"},
		{"../" + victim.ID.String() + "/x", victim.ID.String() + "/x"},
		{victim.ID.String() + "/x", victim.ID.String() + "/x"},
		{"/" + victim.ID.String() + "/x", victim.ID.String() + "/x"},
		{"a/../../x", "x"},
		{"a/..", refused},
		{"a/../b", "b"},
		{"a/b/../../..", refused},
		{"a/../", refused},
		{"a/./../b/../c/", "c"},
		{`client.cpp\..\..\x64\debug\a.txt`, "x64/debug/a.txt"},
		{`..\x`, "x"},
		{`..\..\..\x`, "x"},
		{`a\..\..\x`, "x"},
		{`a/..\..\x`, "x"},
		{"x/", "x"},
		{"", refused},
		{".", refused},
		{"/", refused},
		{"///", refused},
		{`\`, refused},
		{"./.", refused},
		{"./x", "x"},
		{"a//b/./c", "a/b/c"},
		{`a\b\c`, "a/b/c"},
		{"/etc/passwd", "etc/passwd"},
		{filepath.Join(outer, "x"), strings.TrimPrefix(filepath.Join(outer, "x"), "/")},
		{"//server/share/x", "server/share/x"},
		{`\\server\share\x`, "server/share/x"},
		{`C:\Windows\win.ini`, "Windows/win.ini"},
		{"c:/x", "x"},
		{"c:x", "c:x"}, // no slash behind the colon: a name
		{"C:", "C:"},
		{`C:\`, refused},
		{`C:..\x`, "C:../x"},
		{`./C:\x`, "x"},
		{`C:\..\x`, "x"},
		{"defensive.db", "defensive.db"},
		{"/defensive.db", "defensive.db"},
		{"../defensive.db", "defensive.db"},
		{"../../defensive.db", "defensive.db"},
		{`..\..\defensive.db`, "defensive.db"},
		{filepath.Join(dir, "defensive.db"), strings.TrimPrefix(filepath.Join(dir, "defensive.db"), "/")},
		{"defensive.db-wal", "defensive.db-wal"},
		{"../../defensive.db-wal", "defensive.db-wal"},
		{"port.info", "port.info"},
		{"/port.info", "port.info"},
		{"../../port.info", "port.info"},
		{`..\..\port.info`, "port.info"},
		{".incoming", ".incoming"},
		{"../.incoming/x", ".incoming/x"},
		{".lock", ".lock"},
		{"../.lock", ".lock"},
		{"...", "..."},
		{"..x", "..x"},
		{"x..", "x.."},
		{" ", " "},
		{"~/x", "~/x"},
		{"$HOME/x", "$HOME/x"},
		{"x;rm -rf *", "x;rm -rf *"},
		{"%2e%2e/x", "%2e%2e/x"},
		{"CON", "CON"},
		{"r\u00e9sum\u00e9.pdf", "r\u00e9sum\u00e9.pdf"},
		{"re\u0301sume\u0301.pdf", "re\u0301sume\u0301.pdf"},
		{"\u5c65\u6b74\u66f8/\U0001f600.pdf", "\u5c65\u6b74\u66f8/\U0001f600.pdf"},
		{"\u05e9\u05dc\u05d5\u05dd \u0645\u06cc\u200c\u062e", "\u05e9\u05dc\u05d5\u05dd \u0645\u06cc\u200c\u062e"},
		{strings.Repeat("\u00e9", 127), strings.Repeat("\u00e9", 127)},
		{"trailing ", "trailing "},
		{long, long},
		{strings.Repeat("d/", 17) + "f", refused},
		{strings.Repeat("d/", 126) + "ab", refused},
		{strings.Repeat("x", 254), strings.Repeat("x", 254)},
	}
	for c := range 0x20 {
		names = append(names, struct{ name, path string }{"a" + string(rune(c)) + "b", refused})
	}
	names[len(names)-0x20].path = "a" // what follows a null is no part of the name
	for _, odd := range []string{"\x7f", "a\x7f", "caf\xe9", "\xff\xfe", "a\xc0\xafb", "a\xed\xa0\x80b", "a\u0085b", "a\u202egpj.exe", "a\u2028b", "\ufeffa", "a\U000e0041", "\x1b[2J", "..\x00/x", "\r\n", "x\n../../x"} {
		names = append(names, struct{ name, path string }{odd, refused})
	}

	before := tree(t, outer)
	for i, tc := range names {
		p := login(t, d, fmt.Sprint("client ", i))
		own := filepath.Join("a", "server", "files", p.ID.String())
		content := []byte(tc.name)
		f := p.File("f", content)
		head := cut(f, 0)[0].Bytes()
		field := head[codec.RequestHeaderSize+12:][:codec.NameSize]
		clear(field)
		copy(field, tc.name)
		p.send(head)
		verdict := p.Verdict(codec.CodeCRCOK, "f")
		copy(verdict[codec.RequestHeaderSize:], field)
		if tc.path == refused {
			p.expect(codec.CodeError)
			p.send(verdict)
			p.expect(codec.CodeError)
		} else {
			f.Name, _, _ = strings.Cut(tc.name, "\x00")
			p.expectReceived(f)
			p.send(verdict)
			p.expectID(codec.CodeAck)
			checkFile(t, d.stored(p.ID, tc.path), bytes.NewReader(content))
		}
		p.settle() // the connection goes on

		now := tree(t, outer)
		after := maps.Clone(now)
		var got, want []string
		for path, hash := range after {
			if rel, err := filepath.Rel(own, path); err == nil && filepath.IsLocal(rel) {
				if hash != fs.ModeDir.String() {
					got = append(got, rel)
				}
				delete(after, path)
			}
		}
		if tc.path != refused {
			want = append(want, tc.path)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: the client's folder holds %q, want %q", tc.name, got, want)
		}
		if !maps.Equal(before, after) {
			t.Errorf("%q: outside the client's folder there was\n%v\nand is now\n%v", tc.name, before, after)
		}
		if t.Failed() {
			return
		}
		before = now
	}
	run(t, dir, sealiftd, "verify", "--dir", dir).succeeded(t)
}

// A file cannot be stored where a folder is, nor below a file. What is there
// stays.
func TestFileNamesInEachOthersWay(t *testing.T) {
	d := serve(t)
	d.expected = "something else is in the file's place"
	p := login(t, d, "n")
	p.upload("a/b", []byte("a/b"))
	p.upload("c", []byte("c"))
	for _, name := range []string{"a", "a/b/c", "c/d", "c/d/e"} {
		f := p.File(name, []byte("in the way"))
		p.sendPackets(cut(f, 0))
		if code, payload, err := p.Read(); err != nil {
			t.Fatal(err)
		} else if code != codec.CodeError {
			p.must(p.CheckReceived(payload, f))
			p.send(p.Verdict(codec.CodeCRCOK, name))
			p.expect(codec.CodeError)
			p.send(p.Verdict(codec.CodeAbort, name))
			p.expectID(codec.CodeAck)
		}
	}
	d.checkVerified(p.ID, "a/b", []byte("a/b"))
	d.checkVerified(p.ID, "c", []byte("c"))
	if files := d.files(); len(files) != 2 {
		t.Errorf("files %+v", files)
	}
}
