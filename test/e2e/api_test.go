//go:build unix

package e2e

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sealift/codec"
)

// byAPI are the flags that reach a server on the loopback through its API.
func (d *daemon) byAPI(t testing.TB) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	put(t, path, []byte(adminToken))
	return []string{"--api", "http://" + d.admin(), "--api-token-file", path}
}

// Commands say and do the same through the API as beside the server.
func TestCommandsOverTheAPI(t *testing.T) {
	t.Parallel()
	d := serve(t, append(adminFlags(t, "127.0.0.1"), "--event-url", "http://127.0.0.1:1/", "--event-retry", "1h", "--drain-timeout", "200ms")...)
	api := d.byAPI(t)
	here := func(args ...string) result { return run(t, d.dir, sealiftd, append(args, "--dir", d.dir)...) }
	there := func(args ...string) result { return run(t, t.TempDir(), sealiftd, append(args, api...)...) }
	same := func(args ...string) string {
		t.Helper()
		a, b := here(args...), there(args...)
		if a != b {
			t.Errorf("%q beside the server:\n%+v\nthrough the API:\n%+v", args, a, b)
		}
		return b.stdout
	}

	keyless := connect(t, d, "no key")
	keyless.signUp()
	keyless.Close()
	here("client", "add", "not yet here").succeeded(t)
	p := login(t, d, "Ada <Lovelace>")
	for _, name := range []string{"a/one", `a\two`, "b & c"} {
		p.upload(name, randomBytes(1000, 1))
	}
	p.half("d/half")
	p.Close()
	d.kept(1)
	p.dial()
	p.rejoin()
	waiting := p.File("waiting", []byte("for its 1029"))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)
	eventually(t, "each client's first event was tried", func() bool {
		return strings.Count(there("events", "list", "--json").succeeded(t).stdout, `"attempts":1`) == 2
	})

	for _, list := range [][]string{{"clients"}, {"client", "list"}, {"files"}, {"file", "list"}, {"events", "list"}} {
		for _, more := range [][]string{nil, {"--json"}} {
			if text := same(append(list, more...)...); strings.Count(text, "\n") < 3 {
				t.Errorf("%q: %s", list, text)
			}
		}
	}
	if text := same("file", "list"); !strings.Contains(text, " of 8388608 ") || !strings.Contains(text, " waiting ") {
		t.Errorf("%s", text)
	}
	for _, args := range [][]string{
		{"client", "disable", "nobody"}, {"client", "enable", "--id", codec.ClientID{1}.String()},
		{"file", "delete", "a/*", "--dry-run"}, {"file", "delete", "**", "--dry-run", "--json", "--unverified"},
		{"file", "delete", "**", "--client", "nobody"}, {"file", "delete", "nothing"}, {"events", "drop", "nothing"}, {"events", "retry", "--target", "command"},
	} {
		same(args...)
	}

	if got := there("client", "disable", "Ada <Lovelace>").succeeded(t).stdout; got != "Ada <Lovelace> is disabled\n" {
		t.Errorf("%q", got)
	}
	p.expectEnd()
	if d.state("Ada <Lovelace>") != "disabled" {
		t.Error("it is not disabled")
	}
	if got := there("client", "enable", "--id", p.ID.String()).succeeded(t).stdout; got != "Ada <Lovelace> is enabled\n" {
		t.Errorf("%q", got)
	}
	p.dial()
	p.rejoin()

	got := there("file", "delete", "a/*", "--client", "Ada <Lovelace>").succeeded(t).stdout
	if want := "files/" + p.ID.String() + "/a/one\nfiles/" + p.ID.String() + "/a/two\n2 files deleted (2.0 kB)\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if _, err := os.Stat(d.stored(p.ID, "a/one")); !os.IsNotExist(err) {
		t.Errorf("the file is there when the command has ended: %v", err)
	}
	got = there("file", "delete", "**", "--unverified").succeeded(t).stdout
	if !strings.Contains(got, "/d/half\n") || !strings.Contains(got, "/waiting\n") || !strings.HasSuffix(got, "\n2 files deleted (4.2 MB)\n") || len(d.incoming()) != 0 {
		t.Errorf("%q, and %q are there", got, d.incoming())
	}
	if text := same("files"); strings.Count(text, "\n") != 2 || !strings.Contains(text, "b & c") {
		t.Errorf("%s", text)
	}

	if got := there("events", "retry", "--all").succeeded(t).stdout; got != "2 events made due\n" {
		t.Errorf("%q", got)
	}
	eventually(t, "they were tried again", func() bool { return strings.Count(there("events", "list", "--json").stdout, `"attempts":2`) == 2 })
	n := len(d.waitingEvents())
	if got := there("events", "drop", "--target", "url").succeeded(t).stdout; n < 6 || !strings.HasSuffix(got, " events dropped\n") || len(d.waitingEvents()) != 0 {
		t.Errorf("%q of %d, and %q wait", got, n, d.waitingEvents())
	}
	if strings.Contains(d.log.String(), adminToken) {
		t.Error("the log has the token")
	}
}

// What is wrong with the way to an API is said, and nothing is done in some other directory.
func TestNoWayToTheAPI(t *testing.T) {
	t.Parallel()
	d := serve(t, adminFlags(t, "127.0.0.1")...)
	api := d.byAPI(t)
	ask := func(why string, args ...string) {
		t.Helper()
		got := run(t, t.TempDir(), sealiftd, append([]string{"clients"}, args...)...).failed(t, why)
		if strings.Contains(got.stderr, adminToken) {
			t.Errorf("it says the token: %s", got.stderr)
		}
	}
	other := filepath.Join(t.TempDir(), "other")
	put(t, other, []byte("the-token-of-another-server"))
	ask("does not take this token", api[0], api[1], "--api-token-file", other)
	ask("want --api-token-file", api[0], api[1])
	ask("no such file", api[0], api[1], "--api-token-file", other+"x")
	ask("would be sent unprotected", append(api, "--api", "http://203.0.113.1:1")...)
	ask("no user", append(api, "--api", "http://"+adminToken+"@127.0.0.1:1")...)
	ask("want http://host:port", append(api, "--api", "127.0.0.1:9256")...)
	ask("want one of them", append(api, "--dir", d.dir)...)
	ask("without --api", api[2:]...)
	ask("is plain", append(api, "--api-fingerprint", "SHA256:"+strings.Repeat("B", 42)+"A")...)

	// The environment does as well; a directory on the command line counts before it.
	env := []string{"SEALIFT_API=" + api[1], "SEALIFT_API_TOKEN_FILE=" + api[3], "SEALIFT_DIR=/nowhere"}
	runEnv(t, t.TempDir(), env, sealiftd, "clients").succeeded(t)
	runEnv(t, t.TempDir(), env, sealiftd, "clients", "--dir", t.TempDir()).failed(t, "defensive.db")

	bare := serve(t, "--admin", "127.0.0.1:0")
	ask("this needs --admin-token-file", append(api, "--api", "http://"+bare.admin())...)
	run(t, bare.dir, sealiftd, "status").failed(t, "has no --admin-token-file")
	d.stop()
	ask("does not answer: ", api...)
}

// Over TLS the server's key is known by its fingerprint, or an authority; else nothing is sent.
func TestAPIOverTLS(t *testing.T) {
	t.Parallel()
	d := serve(t, append(adminFlags(t, "0.0.0.0"), "--tls", "allow")...)
	_, port, err := net.SplitHostPort(d.admin())
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	put(t, token, []byte(adminToken))
	ask := func(more ...string) result {
		return run(t, t.TempDir(), sealiftd, append([]string{"clients", "--api", "https://" + net.JoinHostPort("127.0.0.1", port), "--api-token-file", token}, more...)...)
	}
	ask("--api-fingerprint", d.fingerprint()).succeeded(t)
	ask().failed(t, "cannot be trusted")
	ask("--api-ca", filepath.Join(d.dir, "tls", "cert.pem")).failed(t, "cannot be trusted") // its name is not that of the host
	ask("--api-fingerprint", "SHA256:"+strings.Repeat("B", 42)+"A").failed(t, "another key")
	if got := run(t, d.dir, sealiftd, "status").succeeded(t).stdout; !strings.HasPrefix(got, "State        ready\n") {
		t.Errorf("found in its directory: %s", got)
	}
}

// frame is what "sealiftd status --json" prints.
type frame struct {
	Ready       bool
	Connections []struct {
		Name      string
		Transfers []struct {
			File  string
			Bytes int64
			Total int64 `json:"total_bytes"`
		}
	}
	Refusals []struct{ Message, Reason string }
}

// status finds the server in its directory, and has what it does.
func TestStatus(t *testing.T) {
	t.Parallel()
	d := serve(t, append(adminFlags(t, "127.0.0.1"), "--max-file-size", "16MiB")...)
	p := login(t, d, "Ada Lovelace")
	p.half("film.mp4")
	refused := login(t, d, "too large")
	refused.sendPackets(cut(refused.File("large", make([]byte, 17<<20)), 0)[:1])
	refused.expect(codec.CodeError)
	d.awaitUpload()

	status := func(args ...string) string {
		t.Helper()
		return run(t, d.dir, sealiftd, append([]string{"status"}, args...)...).succeeded(t).stdout
	}
	var f frame
	eventually(t, "half of the file has come", func() bool {
		f = frame{}
		if err := json.Unmarshal([]byte(status("--json")), &f); err != nil {
			t.Fatal(err)
		}
		return len(f.Connections) == 2 && len(f.Connections[0].Transfers) == 1 && f.Connections[0].Transfers[0].Bytes > 4_000_000
	})
	if c := f.Connections[0]; !f.Ready || c.Name != "Ada Lovelace" || c.Transfers[0].File != "film.mp4" || c.Transfers[0].Total != 8<<20 ||
		len(f.Refusals) != 1 || f.Refusals[0].Message != "transfer refused" {
		t.Errorf("%+v", f)
	}
	text := status(d.byAPI(t)...)
	for _, want := range []string{"State        ready\n", "Uploads      1\n", "Connections  2 of ", "Ada Lovelace  film.mp4  419", "  8388608  ", "transfer refused  too large  large"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}

	watch := exec.Command(sealiftd, "status", "--watch", "--json")
	watch.Dir, watch.Env = d.dir, environment()
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 2 {
		if !lines.Scan() || !json.Valid(lines.Bytes()) {
			t.Errorf("%q, %v", lines.Text(), lines.Err())
		}
	}
	_ = watch.Process.Signal(os.Interrupt)
	for lines.Scan() {
	}
	if err := watch.Wait(); err != nil {
		t.Errorf("it was ended by Ctrl-C: %v", err)
	}

	d.kill()
	run(t, d.dir, sealiftd, "status").failed(t, "does not answer: ")
	d = d.again(p)
	d.stop()
	run(t, d.dir, sealiftd, "status").failed(t, "no server with an admin address has the directory")
}
