//go:build linux

package main

import (
	"archive/zip"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// withoutTus sets the environment of a machine that has Go and a curl, but no tusd,
// and whose Go tool gets modules from proxy alone.
func withoutTus(t *testing.T, proxy string) {
	t.Helper()
	golang, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := exec.Command(golang, "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir()
	for _, name := range []string{"go", "curl"} { // this curl is looked for, and not run
		if err := os.Symlink(golang, filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{
		"PATH": path, "TUSD": "", "XDG_CACHE_HOME": t.TempDir(),
		"GOPROXY": proxy, "GOSUMDB": "off", "GONOPROXY": "none", "GOMODCACHE": t.TempDir(), "GOFLAGS": "-modcacherw",
		"GOCACHE": strings.TrimSpace(string(compiled)),
	} {
		t.Setenv(name, value)
	}
}

// A run goes on without a peer that cannot be fetched, and says so in a line.
func TestPeerThatCannotBeFetched(t *testing.T) {
	withoutTus(t, "off")
	h, notes := harnessFor(t, options{rounds: 1, logLevel: "error", tiny: true, kase: "1 x 1 GiB", peers: []string{"sealift", "tusd"}})
	if err := h.runAll(t.Context(), scenarios[:1]); err != nil {
		t.Fatal(err)
	}
	const want = "tusd: go install github.com/tus/tusd/v2/cmd/tusd@v2.9.1: "
	if lines := linesWith(notes, "without tusd"); len(lines) != 1 || !strings.HasPrefix(lines[0], "without "+want) {
		t.Errorf("it says %q", lines)
	}
	if m := h.run.Missing; len(m) != 1 || !strings.HasPrefix(m[0], want) || strings.Contains(m[0], "\n") {
		t.Errorf("missing: %q", m)
	}
	var measured []string
	for _, r := range h.run.Rows(scenarios[0].name) {
		measured = append(measured, r.Peer)
	}
	if !slices.Equal(slices.Compact(measured), []string{"sealift"}) {
		t.Errorf("measured: %v", measured)
	}
}

// tusd is fetched for a full run, or by its name, and is there for the next run.
func TestPeerIsFetchedOnce(t *testing.T) {
	withoutTus(t, "file://"+proxyWithTus(t))
	bulk := scenarios[:1]
	find := func(o options) (fetched bool, missing []string) {
		t.Helper()
		h, notes := harnessFor(t, o)
		if err := h.findPeers(t.Context(), bulk); err != nil {
			t.Fatal(err)
		}
		if has := h.wanted(findPeer("tusd")); has != (len(h.run.Missing) == 0) {
			t.Errorf("tusd will be measured: %v, missing: %q", has, h.run.Missing)
		}
		return len(linesWith(notes, "fetching tusd")) > 0, h.run.Missing
	}
	others := []string{"sealift", "goroutine", "floor", "tusd"} // what needs nothing, and tusd

	kept, err := tusd.kept()
	if err != nil {
		t.Fatal(err)
	}
	h, notes := harnessFor(t, options{tiny: true})
	if err := h.findPeers(t.Context(), bulk); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); !errors.Is(err, fs.ErrNotExist) || len(linesWith(notes, "fetching")) > 0 || h.wanted(findPeer("tusd")) {
		t.Errorf("a tiny run that names no peers: %v, %s", err, notes)
	}
	if fetched, missing := find(options{kase: "no such case", peers: others}); fetched || len(missing) > 0 {
		t.Errorf("a run without a case for tusd: fetched %v, missing %q", fetched, missing)
	}
	t.Setenv("TUSD", "/no/such/tusd")
	if fetched, missing := find(options{peers: others}); fetched || len(missing) != 1 || !strings.Contains(missing[0], "/no/such/tusd") {
		t.Errorf("with a TUSD that is not there: fetched %v, missing %q", fetched, missing)
	}
	t.Setenv("TUSD", "")
	if fetched, missing := find(options{peers: others}); !fetched || len(missing) > 0 {
		t.Errorf("a full run: fetched %v, missing %q", fetched, missing)
	}
	if entries, err := os.ReadDir(filepath.Dir(kept)); err != nil || len(entries) != 1 {
		t.Errorf("kept: %v, %v", entries, err)
	}
	program, err := findTus()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program).Output(); err != nil || string(out) != "fetched" {
		t.Errorf("%s prints %q, %v", program, out, err)
	}
	if v := describeMachine(t.TempDir()).Versions["tusd"]; v != tusd.version {
		t.Errorf("the run says that tusd is %q", v)
	}
	t.Setenv("GOPROXY", "off")
	if fetched, missing := find(options{tiny: true, peers: others}); fetched || len(missing) > 0 {
		t.Errorf("the next run: fetched %v, missing %q", fetched, missing)
	}
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOPROXY", "file://"+proxyWithTus(t))
	if fetched, missing := find(options{tiny: true, peers: others}); !fetched || len(missing) > 0 {
		t.Errorf("a tiny run that names tusd: fetched %v, missing %q", fetched, missing)
	}
}

func harnessFor(t *testing.T, o options) (*harness, *bytes.Buffer) {
	t.Helper()
	o.dir = t.TempDir()
	h, err := newHarness(o)
	if err != nil {
		t.Fatal(err)
	}
	notes := new(bytes.Buffer)
	h.notes = notes
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	return h, notes
}

func linesWith(notes *bytes.Buffer, part string) (found []string) {
	for line := range strings.Lines(notes.String()) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return found
}

// proxyWithTus is a module proxy with a small program of tusd's name and version:
// the real one takes minutes to build.
func proxyWithTus(t *testing.T) string {
	t.Helper()
	const module = "github.com/tus/tusd/v2"
	const gomod = "module " + module + "\n"
	proxy := t.TempDir()
	dir := filepath.Join(proxy, module, "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	packed := new(bytes.Buffer)
	z := zip.NewWriter(packed)
	for name, content := range map[string]string{
		"go.mod":           gomod,
		"cmd/tusd/main.go": "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"fetched\") }\n",
	} {
		w, err := z.Create(module + "@" + tusd.version + "/" + name)
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"list":                 []byte(tusd.version + "\n"),
		tusd.version + ".info": []byte(`{"Version":"` + tusd.version + `"}`),
		tusd.version + ".mod":  []byte(gomod),
		tusd.version + ".zip":  packed.Bytes(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return proxy
}
