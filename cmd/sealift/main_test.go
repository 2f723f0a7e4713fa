package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/internal/fakeserver"
	"sealift/internal/infofile"
)

// program is the program under test.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sealift-test-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "sealift")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// result is what a run of the program left.
type result struct {
	stdout, stderr string
	status         int
}

// knownServers is the known_servers of runs in dir: beside it, and not in the
// home of whoever runs the test.
func knownServers(dir string) string { return filepath.Clean(dir) + ".known_servers" }

func command(t *testing.T, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SEALIFT_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "SEALIFT_KNOWN_SERVERS="+knownServers(dir))
	return cmd
}

func run(t *testing.T, dir string, args ...string) result {
	t.Helper()
	return runEnv(t, dir, nil, args...)
}

func runEnv(t *testing.T, dir string, env []string, args ...string) result {
	t.Helper()
	cmd := command(t, dir, args...)
	cmd.Env = append(cmd.Env, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func (r result) succeeded(t *testing.T) result {
	t.Helper()
	if r.status != 0 || r.stderr != "" {
		t.Fatalf("status %d, stdout %q, stderr %q; want success", r.status, r.stdout, r.stderr)
	}
	return r
}

// failed makes sure of status 1, and that the last line says why.
func (r result) failed(t *testing.T, why string) result {
	t.Helper()
	return r.ended(t, 1, why)
}

// misused is failed for a mistake of the user.
func (r result) misused(t *testing.T, why string) result {
	t.Helper()
	return r.ended(t, 2, why)
}

func (r result) ended(t *testing.T, status int, why string) result {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	last := lines[len(lines)-1]
	if r.status != status || !strings.HasPrefix(last, "Fatal error: ") || !strings.Contains(last, why) {
		t.Fatalf("status %d, stdout %q, stderr %q; want %d and a fatal error that says %q", r.status, r.stdout, r.stderr, status, why)
	}
	return r
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func transferInfo(t *testing.T, dir string, s *fakeserver.Server) {
	t.Helper()
	put(t, dir, "transfer.info", s.Addr+"\nMichael Jackson\nspecs/New_product_spec.docx\n")
	put(t, dir, "specs/New_product_spec.docx", "the content")
}

func TestBatchRegistersAndThenReconnects(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	transferInfo(t, dir, s)

	got := run(t, dir).succeeded(t)
	want := `^registered "Michael Jackson" with [0-9.:]+, id [0-9a-f]{32}; kept in me.info
stored specs/New_product_spec.docx: 11 bytes, cksum ` + fmt.Sprint(cksum.Checksum([]byte("the content"))) + `, \d+\.\d\d s, \d+\.\d MB/s
$`
	if !regexp.MustCompile(want).MatchString(got.stdout) {
		t.Errorf("stdout %q does not match %q", got.stdout, want)
	}
	me, err := infofile.ReadMe(filepath.Join(dir, "me.info"))
	if err != nil || me.Name != "Michael Jackson" || !strings.Contains(got.stdout, me.ID.String()) {
		t.Fatalf("me.info: %+v, %v", me, err)
	}
	if info, _ := os.Stat(filepath.Join(dir, "me.info")); runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("me.info has mode %v", info.Mode())
	}
	if content, _ := s.Stored("New_product_spec.docx"); string(content) != "the content" {
		t.Errorf("stored %q", content)
	}

	// The name in transfer.info is only for those who have not registered.
	put(t, dir, "transfer.info", s.Addr+"\r\nsomeone else\r\nspecs/New_product_spec.docx\r\n")
	before, _ := os.ReadFile(filepath.Join(dir, "me.info"))
	got = run(t, dir).succeeded(t)
	if strings.Contains(got.stdout, "registered") || strings.Count(got.stdout, "\n") != 1 {
		t.Errorf("second run: stdout %q", got.stdout)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "me.info")); !bytes.Equal(before, after) {
		t.Error("the second run changed me.info")
	}
	if got, want := s.Sequence(), "conn 1025 1026 1028 1029 conn 1027 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

func TestBatchAfterARejection(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	transferInfo(t, dir, s)
	run(t, dir).succeeded(t)
	old, err := infofile.ReadMe(filepath.Join(dir, "me.info"))
	if err != nil {
		t.Fatal(err)
	}
	s.ForgetClients()
	s.ForgetName("Michael Jackson")
	put(t, dir, "transfer.info", s.Addr+"\nsomeone else\nspecs/New_product_spec.docx\n")

	got := run(t, dir)
	if got.status != 0 || !strings.Contains(got.stderr, "1606") || !strings.Contains(got.stdout, `registered "Michael Jackson"`) {
		t.Errorf("%+v", got)
	}
	me, err := infofile.ReadMe(filepath.Join(dir, "me.info"))
	if err != nil || me.Key.Equal(old.Key) {
		t.Errorf("me.info has the old key, or %v", err)
	}

	// Rejected, and the name is taken: who we are stays.
	s.ForgetClients()
	run(t, dir).failed(t, "(1601)")
	if still, err := infofile.ReadMe(filepath.Join(dir, "me.info")); err != nil || still.ID != me.ID || !still.Key.Equal(me.Key) {
		t.Errorf("me.info: %v, want it as it was", err)
	}
}

func TestBatchMistakes(t *testing.T) {
	s := fakeserver.New(t)
	for _, tc := range []struct {
		transfer, me string
		status       int
		why          string
	}{
		{"", "", 2, "there is no transfer.info here"},
		{"127.0.0.1:1\nname", "", 2, "2 lines"},
		{":1\nname\nfile", "", 2, "no host"},
		{"127.0.0.1:99999\nname\nfile", "", 2, "port"},
		{s.Addr + "\n" + strings.Repeat("x", 101) + "\nfile", "", 2, "101 characters"},
		{s.Addr + "\nJ\xfcrgen\nfile", "", 2, "not UTF-8"},
		{s.Addr + "\nname\nmissing", "", 1, "missing"},
		{s.Addr + "\nname\n.", "", 1, "nothing is left of it"},
		{s.Addr + "\nname\nna\u202eive", "", 1, "turns text around"},
		{s.Addr + "\nname\nfile", "rubbish", 1, "me.info: malformed"},
	} {
		dir := t.TempDir()
		put(t, dir, "file", "content")
		put(t, dir, "na\u202eive", "content")
		if tc.transfer != "" {
			put(t, dir, "transfer.info", tc.transfer)
		}
		if tc.me != "" {
			put(t, dir, "me.info", tc.me)
		}
		got := run(t, dir).ended(t, tc.status, tc.why)
		if strings.Count(got.stderr, "\n") != 1 || got.stdout != "" {
			t.Errorf("%q: more than one clear line: %+v", tc.transfer, got)
		}
		if me, err := os.ReadFile(filepath.Join(dir, "me.info")); string(me) != tc.me || (err == nil) != (tc.me != "") {
			t.Errorf("%q: me.info is now %q", tc.transfer, me)
		}
	}
	if got := s.Sequence(); strings.Contains(got, "10") {
		t.Errorf("the server heard %q", got)
	}
}

func TestSendSeveralFiles(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "a", "first")
	put(t, dir, "b/c d", "second")
	identity := filepath.Join("keys", "id")
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "send", "--server", s.Addr, "--name", "n", "--identity", identity, "a", "b/c d").succeeded(t)
	run(t, dir, "send", "--server", s.Addr, "--identity", identity, "a").succeeded(t)
	run(t, dir, "send", "--server", s.Addr, "--identity", identity, "--name", "other", "a").misused(t, `belongs to "n", not "other"`)
	if got, want := s.Sequence(), "conn 1025 1026 1028 1029 1028 1029 conn 1027 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
	if content, _ := s.Stored("c d"); string(content) != "second" {
		t.Errorf("stored %q", content)
	}
	if _, err := os.Stat(filepath.Join(dir, "me.info")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("me.info: %v", err)
	}
}

func TestJSON(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Name == "bad" && m.Code == codec.CodeSendFile || m.Name == "good" && m.Code == codec.CodeSendFile && m.N == 1 {
			right[len(right)-1] ^= 1
		}
		return right
	}
	put(t, dir, "good", "content")
	put(t, dir, "bad", "content")
	put(t, dir, "last", "content")
	got := run(t, dir, "send", "--json", "--log-level=error", "--server", s.Addr, "--name", "n", "good", "bad", "last").failed(t, "1 of 3 files is not stored")
	var objects []map[string]any
	for d := json.NewDecoder(strings.NewReader(got.stdout)); ; {
		var o map[string]any
		if err := d.Decode(&o); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v in %q", err, got.stdout)
		}
		objects = append(objects, o)
	}
	if len(objects) != 3 {
		t.Fatalf("stdout %q, want an object per file", got.stdout)
	}
	want := map[string]any{
		"file": "good", "stored": true, "name": "good", "size_bytes": 7., "cksum": float64(cksum.Checksum([]byte("content"))),
		"packets": 1., "attempts": 2., "server": s.Addr,
	}
	for field, value := range want {
		if objects[0][field] != value {
			t.Errorf("%s is %v, want %v", field, objects[0][field], value)
		}
	}
	for _, field := range []string{"seconds", "mb_per_second", "client_id"} {
		if _, ok := objects[0][field]; !ok {
			t.Errorf("%s is missing", field)
		}
	}
	if objects[1]["stored"] != false || !strings.Contains(fmt.Sprint(objects[1]["error"]), "checksum") || objects[2]["stored"] != true {
		t.Errorf("failures: %v, %v", objects[1], objects[2])
	}
}

func TestFatalErrors(t *testing.T) {
	for _, tc := range []struct {
		code codec.Code
		why  string
		more []string
	}{
		{codec.CodeRegister, "message 1025 register: the server answered with a general error (1607); tried 4 times", nil},
		// With time, a 1027 would show that this server has taken the key.
		{codec.CodePublicKey, "message 1026 public key: the server answered with a general error (1607); tried 4 times", []string{"--retry-for", "0"}},
		{codec.CodeSendFile, `message 1028 send file of "file": the server answered with a general error (1607); tried 4 times`, nil},
	} {
		s, dir := fakeserver.New(t), t.TempDir()
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			if m.Code == tc.code {
				return fakeserver.GeneralError
			}
			return right
		}
		put(t, dir, "file", "content")
		got := run(t, dir, append([]string{"send", "--dialect", "spec", "--server", s.Addr, "--name", "n", "file"}, tc.more...)...).ended(t, 75, tc.why)
		if n := strings.Count(got.stderr, "trying again"); n != 3 {
			t.Errorf("%d retries shown: %q", n, got.stderr)
		}
		if n := strings.Count(s.Sequence(), fmt.Sprint(uint16(tc.code))); n != 4 {
			t.Errorf("%v: sent %d times", tc.code, n)
		}
	}
}

func TestVerboseShowsTheMessages(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "file", "content")
	for _, flag := range []string{"--verbose", "--log-level=debug"} {
		got := run(t, dir, "send", flag, "--server", s.Addr, "--name", "n", "--identity", "id"+flag[2:3], "file")
		s.ForgetName("n")
		codes := regexp.MustCompile(`msg=(?:sent|received) message="(\d+)`).FindAllStringSubmatch(got.stderr, -1)
		var sequence []string
		for _, c := range codes {
			sequence = append(sequence, c[1])
		}
		if got, want := strings.Join(sequence, " "), "1025 1600 1026 1602 1028 1603 1029 1604"; got != want {
			t.Errorf("%s: %q, want %q", flag, got, want)
		}
	}
}

func TestFlagsFromTheEnvironment(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	transferInfo(t, dir, s)
	env := []string{"SEALIFT_DIALECT=zero-based", "SEALIFT_PACKET_SIZE=5", "SEALIFT_JSON=true"}
	got := runEnv(t, dir, env).succeeded(t)
	if !strings.Contains(s.Sequence(), "1028(0)") || !strings.Contains(got.stdout, `"packets":4,`) {
		t.Errorf("sequence %q, stdout %q", s.Sequence(), got.stdout)
	}
	// A flag wins.
	if got := runEnv(t, dir, env, "--json=false").succeeded(t); !strings.HasPrefix(got.stdout, "stored") {
		t.Errorf("stdout %q", got.stdout)
	}
	runEnv(t, dir, []string{"SEALIFT_PACKET_SIZE=x"}).misused(t, "SEALIFT_PACKET_SIZE")
	runEnv(t, dir, []string{"SEALIFT_DIALECT=klingon"}).misused(t, "klingon")
}

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "file", "content")
	for _, tc := range []struct {
		args []string
		why  string
	}{
		{[]string{"file"}, "unknown command"},
		{[]string{"send"}, "no file"},
		{[]string{"send", "file"}, "--server is missing"},
		{[]string{"send", "--server", "h", "file"}, "--name is missing"},
		{[]string{"send", "--server", "h:x", "--name", "n", "file"}, "port"},
		{[]string{"--no-such-flag"}, "no-such-flag"},
		{[]string{"--packet-size=-1"}, "negative"},
		{[]string{"--packet-size=5", "--dialect=single"}, "single"},
		{[]string{"--log-level=loud"}, "loud"},
		{[]string{"--timeout=-1s"}, "negative"},
		{[]string{"send", "--retry-for=-1s", "--server", "h", "--name", "n", "file"}, "negative"},
		{[]string{"send", "--parallel=-3", "--server", "h", "--name", "n", "file"}, "--parallel -3: want 1 or more"},
		{[]string{"send", "--parallel=0", "--server", "h", "--name", "n", "file"}, "--parallel 0: want 1 or more"},
		{[]string{"send", "--as=", "--server", "h", "--name", "n", "file"}, "--as is empty"},
		{[]string{"send", "--identity=", "--server", "h", "--name", "n", "file"}, "--identity is empty"},
		{[]string{"--codes=925"}, "there are auto, 1025 and 825"},
		{[]string{"version", "x"}, "x"},
	} {
		got := run(t, dir, tc.args...).misused(t, tc.why)
		if strings.Count(got.stderr, "\n") != 1 || got.stdout != "" {
			t.Errorf("%v: more than one clear line: %+v", tc.args, got)
		}
	}
	if got := run(t, dir, "version").succeeded(t); !strings.HasPrefix(got.stdout, "sealift ") {
		t.Errorf("version: %q", got.stdout)
	}
}

func TestAnIdentityThatCouldNotBeKept(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "file", "content")
	run(t, dir, "send", "--server", s.Addr, "--name", "n", "--identity", "no/such/folder/me.info", "file").failed(t, "no/such/folder")
	if got := s.Sequence(); strings.Contains(got, "1025") {
		t.Errorf("%q: a name is taken that nobody can use", got)
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
