package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// continuing runs pycontinue.py, a client written from section 15 of docs/PROTOCOL.md, in the scene's folder, and
// returns its messages and the offsets that it was told.
func (s scene) continuing(exit int, args ...string) (codes string, offsets []int) {
	s.Helper()
	script := filepath.Join(filepath.Dir(s.programs.pyClient), "pycontinue.py")
	client := exec.CommandContext(s.Context(), s.programs.python, append([]string{script, s.server.AddrFor(Python), "Michael Jackson", "file.bin"}, args...)...)
	client.Dir = s.dir
	var stdout, stderr bytes.Buffer
	client.Stdout, client.Stderr = &stdout, &stderr
	err := client.Run()
	status := 0
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) {
		status = ended.ExitCode()
	}
	if status != exit {
		s.Fatalf("status %d, want %d: %s", status, exit, stderr.String())
	}
	for _, m := range regexp.MustCompile(`(?m)^offset (\d+)$`).FindAllStringSubmatch(stdout.String(), -1) {
		offset, _ := strconv.Atoi(m[1])
		offsets = append(offsets, offset)
	}
	return Transcript{Output: stdout.String()}.Codes(), offsets
}

// TestContinueFromThePage has a client that knows nothing but docs/PROTOCOL.md lose its connection, go on in segments,
// and find out that its file has changed.
func TestContinueFromThePage(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	const size, cut, segment = 3<<20 + 5, 2 << 20, 600_000
	s := newScene(t, programs, Server{Maker: Sealift}, size)
	if codes, _ := s.continuing(3, "--cut", strconv.Itoa(cut)); codes != "1025 1600 1026 1602 1032 1608 1028x32" {
		t.Errorf("cut: %s", codes)
	}
	codes, offsets := s.continuing(0, "--segment", strconv.Itoa(segment))
	if !strings.HasPrefix(codes, "1027 1605 1032 1608 1028") || !strings.HasSuffix(codes, " 1603 1029 1604") {
		t.Errorf("continued: %s", codes)
	}
	for i, offset := range offsets {
		if i == 0 && (offset > cut || offset < cut-1<<20) || i > 0 && offset != offsets[i-1]+segment {
			t.Errorf("the offsets are %d", offsets)
		}
	}
	if len(offsets) < 2 {
		t.Errorf("%d offsets", len(offsets))
	}
	s.wantStoredAs(s.pythonID())

	// It is cut again, and the file changes.
	s.continuing(3, "--cut", strconv.Itoa(cut))
	changed := bytes.Repeat([]byte("changed"), size/7+1)[:size]
	if err := os.WriteFile(filepath.Join(s.dir, "file.bin"), changed, 0o600); err != nil {
		t.Fatal(err)
	}
	codes, offsets = s.continuing(0)
	if !strings.HasPrefix(codes, "1027 1605 1032 1608 1031 1604 1032 1608 1028") || len(offsets) != 2 || offsets[0] == 0 || offsets[1] != 0 {
		t.Errorf("changed: %s, offsets %d", codes, offsets)
	}
	s.wantStoredAs(s.pythonID())
}

// pythonID is the client id that pycontinue.py has.
func (s scene) pythonID() string {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "me.json"))
	if err != nil {
		s.Fatal(err)
	}
	var me struct{ ID string }
	if err := json.Unmarshal(text, &me); err != nil {
		s.Fatal(err)
	}
	return me.ID
}
