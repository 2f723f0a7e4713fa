//go:build unix

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sealift/crypto/cksum"
)

// cells splits the lines of a table where two spaces or more are.
func cells(text string) (lines [][]string) {
	for line := range strings.Lines(text) {
		lines = append(lines, regexp.MustCompile(`  +`).Split(strings.TrimSpace(line), -1))
	}
	return lines
}

// clients, files and verify, beside the running server and without it.
func TestListings(t *testing.T) {
	t.Parallel()
	began := time.Now().Add(-time.Second)
	d := serve(t)
	keyless := connect(t, d, "no key")
	keyless.signUp()
	keyless.Close()
	p := login(t, d, "Michael Jackson")
	content := randomBytes(100_003, 1)
	p.upload(`specs\New product.docx`, content)
	waiting := p.File("waiting", []byte("for its 1029"))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)

	for _, running := range []bool{true, false} {
		if !running {
			p.Close()
			d.stop()
		}
		table := func(command string) [][]string {
			t.Helper()
			return cells(run(t, d.dir, sealiftd, command).succeeded(t).stdout) // in --dir .
		}
		recent := func(at time.Time) bool { return at.After(began) && at.Before(time.Now().Add(time.Second)) }

		clients := map[string]clientRow{}
		for _, c := range d.clients() {
			clients[c.Name] = c
		}
		me := clients["Michael Jackson"]
		if len(clients) != 2 || clients["no key"].Key || !me.Key || me.ID != p.ID.String() || me.LastSeen == nil || !recent(*me.LastSeen) {
			t.Errorf("clients %+v", clients)
		}
		lines := table("clients")
		if len(lines) != 3 || strings.Join(lines[0], "|") != "ID|NAME|KEY|LAST SEEN|STATE|TLS KEY" {
			t.Fatalf("clients %q", lines)
		}
		for _, line := range lines[1:] {
			c, ok := clients[line[1]]
			if !ok || line[0] != c.ID || (line[2] == "yes") != c.Key {
				t.Errorf("clients: %q, and %+v as JSON", line, c)
			}
		}

		files := map[string]fileRow{}
		for _, f := range d.files() {
			files[f.FileName] = f
			if f.Client != p.ID.String() || !recent(f.Received) {
				t.Errorf("files: %+v", f)
			}
		}
		stored := files[`specs\New product.docx`]
		if len(files) != 2 || !stored.Verified || stored.Size != 100_003 || stored.Cksum != cksum.Checksum(content) ||
			stored.Path != "files/"+p.ID.String()+"/specs/New product.docx" || files["waiting"].Verified {
			t.Errorf("files %+v", files)
		}
		lines = table("files")
		if len(lines) != 3 || strings.Join(lines[0], "|") != "PATH|SIZE|CKSUM|STATE|RECEIVED" {
			t.Fatalf("files %q", lines)
		}
		if all := fmt.Sprint(lines); !strings.Contains(all, fmt.Sprintf("[%s 100003 %d verified ", stored.Path, stored.Cksum)) || !strings.Contains(all, " waiting ") {
			t.Errorf("files %q", lines)
		}

		const all = "1 of 1 files are as they were uploaded (98 KiB in " // the other one is not there for good
		if got := run(t, d.dir, sealiftd, "verify").succeeded(t).stdout; !strings.HasPrefix(got, all) {
			t.Errorf("verify: %q", got)
		}
		for _, row := range rows[fileRow](t, run(t, d.dir, sealiftd, "verify", "--json").succeeded(t).stdout) {
			if !row.OK || row.Error != "" {
				t.Errorf("verify: %+v", row)
			}
		}
	}
}

// verify finds a byte that has flipped, a file that has grown or shrunk, and
// one that is gone, names each, and ends with status 1.
func TestVerifyFindsDamage(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "n")
	for _, name := range []string{"good", "flipped", "longer", "shorter", "missing"} {
		p.upload(name, randomBytes(100_003, 1))
	}
	p.Close()
	d.stop()
	run(t, d.dir, sealiftd, "verify").succeeded(t)

	damaged := randomBytes(100_003, 1)
	damaged[50_000] ^= 1
	put(t, d.stored(p.ID, "flipped"), damaged)
	put(t, d.stored(p.ID, "longer"), append(randomBytes(100_003, 1), 0))
	put(t, d.stored(p.ID, "shorter"), randomBytes(100_002, 1))
	if err := os.Remove(d.stored(p.ID, "missing")); err != nil {
		t.Fatal(err)
	}
	got := run(t, d.dir, sealiftd, "verify").failed(t, "4 of 5 files are not as they were uploaded")
	json := rows[fileRow](t, run(t, t.TempDir(), sealiftd, "verify", "--json", "--dir", d.dir).failed(t, "4 of 5").stdout)
	if len(json) != 5 {
		t.Errorf("as JSON: %+v", json)
	}
	for _, row := range json {
		bad := row.FileName != "good"
		if row.OK == bad || (row.Error != "") != bad {
			t.Errorf("as JSON: %+v", row)
		}
		if strings.Contains(got.stdout, row.Path+": ") != bad {
			t.Errorf("%s: output %s", row.FileName, got.stdout)
		}
	}
}

func TestListingsWithoutServer(t *testing.T) {
	for _, command := range []string{"clients", "files", "verify"} {
		dir := t.TempDir()
		run(t, dir, sealiftd, command).failed(t, "defensive.db")
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("%s leaves %v, %v", command, entries, err)
		}
		put(t, filepath.Join(dir, "defensive.db"), []byte("this is no database, only a text that is long enough to be read as one"))
		run(t, dir, sealiftd, command).failed(t, "defensive.db")
	}
}

// Both programs say in the same form which version they are, also the one that a
// packager gave them.
func TestVersion(t *testing.T) {
	packaged := t.TempDir()
	build := exec.Command("go", "build", "-o", packaged+string(filepath.Separator),
		"-ldflags", "-X sealift/internal/version.released=v12.3.4", "sealift/cmd/sealift", "sealift/cmd/sealiftd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tc := range []struct{ program, version string }{
		{sealift, `\S+`}, {sealiftd, `\S+`},
		{filepath.Join(packaged, "sealift"), `v12\.3\.4`}, {filepath.Join(packaged, "sealiftd"), `v12\.3\.4`},
	} {
		pattern := "^" + filepath.Base(tc.program) + " " + tc.version + `, protocol version 3, go\S+ \w+/\w+\n$`
		if got := run(t, t.TempDir(), tc.program, "version").succeeded(t).stdout; !regexp.MustCompile(pattern).MatchString(got) {
			t.Errorf("%q, want %s", got, pattern)
		}
	}
}
