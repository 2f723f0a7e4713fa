//go:build unix

package e2e

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sealift/crypto/cksum"
)

// The demonstration works with nothing but an empty directory, and what it says
// is true.
func TestDemo(t *testing.T) {
	empty, temp := t.TempDir(), t.TempDir()
	in := filepath.Join(empty, "here")
	for _, args := range [][]string{{"demo"}, {"demo", "--dir", in}} {
		out := runEnv(t, empty, []string{"TMPDIR=" + temp}, sealiftd, args...).succeeded(t).stdout
		match := func(what, pattern string, times int) [][]string {
			found := regexp.MustCompile(pattern).FindAllStringSubmatch(out, -1)
			if len(found) != times {
				t.Fatalf("%s: %d times, want %d; output:\n%s", what, len(found), times, out)
			}
			return found
		}
		id := match("a registered client", `(?m)^client +registered +as "demo .*" with id ([0-9a-f]{32})$`, 1)[0][1]
		match("a reconnect", `(?m)^client +reconnected as "demo .*" with id `+id+`$`, 1)
		sent := match("two transfers", `(?m)^client +sent (\S+): (\d+) bytes .* cksum (\d+) on both sides$`, 2)
		stored := match("two stored files", `(?m)^ +(files/`+id+`/\S+) +(\d+) bytes, cksum (\d+), verified: read back, cksum equal$`, 2)
		server := match("the server's directory", `(?m)^server +listens on \S+, keeps everything in (.+)$`, 1)[0][1]
		key := match("TLS", `(?m)^client +from here on over TLS 1\.3, with the server of key (SHA256:\S+)$`, 1)[0][1]
		if got := fingerprint(t, "--dir", server); got != key {
			t.Errorf("the server's key is %s, and the demonstration says %s", got, key)
		}
		match("the page", `(?m)^page +http://127\.0\.0\.1:\d+/ with the token [A-Z2-7]{26}$`, 1)
		match("success", `(?m)^success `, 1)

		content := map[string][]byte{"note.txt": nil, "sealiftd": get(t, sealiftd)}
		for _, line := range stored {
			name := filepath.Base(line[1])
			got := get(t, filepath.Join(server, line[1]))
			if want, ok := content[name]; !ok || want != nil && string(got) != string(want) {
				t.Errorf("%s is not the file that was sent", line[1])
			}
			delete(content, name)
			if sum := strconv.FormatUint(uint64(cksum.Checksum(got)), 10); sum != line[3] || strconv.Itoa(len(got)) != line[2] {
				t.Errorf("%q, but it has %d bytes with cksum %s", line[0], len(got), sum)
			}
			said := false
			for _, s := range sent {
				said = said || s[1] == name && s[2] == line[2] && s[3] == line[3]
			}
			if !said {
				t.Errorf("%s: the client says something else than the server:\n%s", name, out)
			}
		}
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) != 1 {
		t.Errorf("left in the working directory: %v, %v", entries, err)
	}
}

// With --stay the page of the demonstration answers, to its token, until it is told to end.
func TestDemoStays(t *testing.T) {
	cmd := exec.Command(sealiftd, "demo", "--stay", "--dir", t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	page := regexp.MustCompile(`^page +(http://\S+)/ with the token (\S+)$`)
	var url, token string
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "page       stays up") {
		if m := page.FindStringSubmatch(lines.Text()); m != nil {
			url, token = m[1], m[2]
		}
	}
	got := call(t, "GET", url+"/api/v1/recent", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
	if got.status != 200 || !strings.Contains(got.body, `"path":"note.txt"`) {
		t.Errorf("%d: %s", got.status, got.body)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil || !strings.Contains(lines.Text()+string(rest), "success") {
		t.Errorf("%v: %s", err, rest)
	}
}
