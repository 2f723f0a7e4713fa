//go:build unix

package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealift/codec"
	"sealift/crypto/tlskey"
)

const adminToken = "a-token-of-32-bytes-for-the-tests"

// adminFlags are those of an admin address with a token, on a free port of host.
func adminFlags(t testing.TB, host string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(adminToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--admin", net.JoinHostPort(host, "0"), "--admin-token-file", path}
}

// admin is where the admin address of a server is, as its log says.
func (d *daemon) admin() string {
	d.t.Helper()
	var line struct{ Address string }
	if err := json.Unmarshal([]byte(d.await("the admin address answers")), &line); err != nil {
		d.t.Fatal(err)
	}
	return line.Address
}

// answer is what the admin address said.
type answer struct {
	status int
	header http.Header
	body   string
}

var adminClient = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       patience,
}

// call sends a request to the admin address. change may be nil.
func call(t testing.TB, method, url string, change func(*http.Request)) answer {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	resp, err := adminClient.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// ask gets a path of the admin address of a server on the loopback.
func (d *daemon) ask(path string) answer {
	d.t.Helper()
	return call(d.t, "GET", "http://"+d.admin()+path, nil)
}

// adminPaths are all that there are, and whether they need the token also on the
// loopback.
var adminPaths = map[string]bool{
	"/healthz": false, "/readyz": false, "/metrics": false,
	"/debug/pprof/": true, "/debug/pprof/cmdline": true, "/debug/pprof/profile?seconds=1": true, "/debug/pprof/symbol": true,
	"/debug/pprof/trace?seconds=1": true, "/debug/pprof/heap": true, "/debug/pprof/goroutine?debug=2": true,
	"/debug/pprof/allocs": true, "/debug/pprof/block": true, "/debug/pprof/mutex": true, "/debug/pprof/threadcreate": true,
}

// Nobody gets more of the admin address than he may have, whatever he sends.
func TestAdminCrawler(t *testing.T) {
	d := serve(t, adminFlags(t, "127.0.0.1")...)
	base := "http://" + d.admin()
	shows := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { shows(adminToken)(r); r.Header.Set(name, value) }
	}
	t.Cleanup(func() { // when all below have ended
		if got := d.ask("/healthz"); got.status != 200 {
			t.Errorf("%d: %s", got.status, got.body)
		}
	})
	for path, secret := range adminPaths {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			want := func(what string, got answer, status int) {
				t.Helper()
				if got.status != status {
					t.Errorf("%s: %d, want %d: %.200s", what, got.status, status, got.body)
				}
				if status != 200 && (strings.Contains(got.body, "goroutine") || strings.Contains(got.body, "sealift_")) {
					t.Errorf("%s: the answer has what it should not: %.200s", what, got.body)
				}
			}
			open := 200
			if secret {
				open = 401
			}
			want("the token", call(t, "GET", base+path, shows(adminToken)), 200)
			want("HEAD", call(t, "HEAD", base+path, shows(adminToken)), 200)
			want("no token", call(t, "GET", base+path, nil), open)
			want("a wrong token", call(t, "GET", base+path, shows("wrong")), open)
			want("half a token", call(t, "GET", base+path, shows(adminToken[:16])), open)
			want("a token in the query", call(t, "GET", base+path+"?token="+adminToken, nil), open)
			want("a wrong host", call(t, "GET", base+path, func(r *http.Request) { shows(adminToken)(r); r.Host = "evil.example" }), 403)
			want("another origin", call(t, "GET", base+path, header("Origin", "https://evil.example")), 403)
			want("another site", call(t, "GET", base+path, header("Sec-Fetch-Site", "cross-site")), 403)
			for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
				want(method, call(t, method, base+path, shows(adminToken)), 405)
				if status := call(t, method, base+path, nil).status; status != 405 && status != 401 {
					t.Errorf("%s without a token: %d", method, status)
				}
			}
			want("10 MB of body", postLarge(t, d.admin(), path), 413)
			want("a wrong path", call(t, "GET", base+"/nothing"+path, shows(adminToken)), 404)
		})
	}
	t.Run("slow headers", func(t *testing.T) {
		t.Parallel()
		c, err := net.Dial("tcp", d.admin())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: "); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(bufio.NewReader(c)); strings.Contains(string(got), " 200 ") {
			t.Errorf("%s", got)
		}
	})
}

// postLarge posts 10 MB. Go's client does not wait for an answer to what it cannot write.
func postLarge(t testing.TB, addr, path string) answer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	go func() {
		_, _ = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", path, adminToken, 10<<20)
		_, _ = c.Write(make([]byte, 10<<20)) // it fails when the server has closed the connection
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// Beyond the loopback nothing is answered without the token, or without TLS; the
// certificate is the server's.
func TestAdminBeyondTheLoopback(t *testing.T) {
	flags := adminFlags(t, "0.0.0.0")
	d := serve(t, append(flags, "--tls", "allow")...)
	_, port, err := net.SplitHostPort(d.admin())
	if err != nil {
		t.Fatal(err)
	}
	at := net.JoinHostPort("127.0.0.1", port)
	for path := range adminPaths {
		if got := call(t, "GET", "https://"+at+path, nil); got.status != 401 {
			t.Errorf("%s: %d without a token", path, got.status)
		}
	}
	if got := call(t, "GET", "https://"+at+"/readyz", func(r *http.Request) { r.SetBasicAuth("x", adminToken) }); got.status != 200 {
		t.Errorf("%d: %s", got.status, got.body)
	}
	if got := call(t, "GET", "http://"+at+"/healthz", nil); got.status == 200 {
		t.Error("it answers without TLS")
	}
	c, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := tlskey.Of(c.ConnectionState().PeerCertificates[0]).String(); got != d.fingerprint() {
		t.Errorf("it shows the key %s, want %s", got, d.fingerprint())
	}
}

// What an admin address needs is said at the start.
func TestAdminFlags(t *testing.T) {
	dir := t.TempDir()
	token := adminFlags(t, "127.0.0.1")[3]
	short, open := filepath.Join(dir, "short"), filepath.Join(dir, "open")
	put(t, short, []byte("short\n"))
	if err := os.Chmod(short, 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, open, []byte(adminToken)) // 0644
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--admin", "0.0.0.0:0"}, "beyond the loopback the address needs --admin-token-file, and TLS"},
		{[]string{"--admin", ":0", "--admin-token-file", token, "--tls", "off"}, "beyond the loopback the address needs --admin-token-file, and TLS"},
		{[]string{"--admin", "127.0.0.1"}, "want host:port, such as 127.0.0.1:9256"},
		{[]string{"--admin-token-file", token}, "--admin-token-file or --admin-host without --admin"},
		{[]string{"--admin", "127.0.0.1:0", "--admin-host", "a:1"}, "want a name without a port"},
		{[]string{"--admin", "127.0.0.1:0", "--admin-token-file", short}, "the token has 5 bytes: want 16 or more"},
		{[]string{"--admin", "127.0.0.1:0", "--admin-token-file", open}, "everybody may use the file, its mode is 0644"},
		{[]string{"--admin", "127.0.0.1:0", "--admin-token-file", filepath.Join(dir, "absent")}, "absent: no such file or directory"},
		{[]string{"--admin", "192.0.2.1:0", "--admin-token-file", token}, "--admin: listening: "},
	} {
		run(t, t.TempDir(), sealiftd, append([]string{"serve", "--listen", "127.0.0.1:0"}, c.args...)...).failed(t, c.want)
	}
}

// notReady returns the reasons of /readyz, "" if there are none.
func (d *daemon) notReady() (reasons string) {
	d.t.Helper()
	got := d.ask("/readyz")
	if got.status == 200 {
		return ""
	}
	var all []string
	for _, r := range rows[struct{ Reason string }](d.t, got.body) {
		all = append(all, r.Reason)
	}
	return strings.Join(all, " ")
}

// A server whose store or database is away is alive, and not ready until it is back.
func TestReadiness(t *testing.T) {
	d := serve(t, adminFlags(t, "127.0.0.1")...)
	d.expected = "moved"
	becomes := func(want string) {
		t.Helper()
		eventually(t, "readiness is "+want, func() bool { return d.notReady() == want })
		if got := d.ask("/healthz"); got.status != 200 {
			t.Errorf("/healthz: %d: %s", got.status, got.body)
		}
	}
	becomes("")
	for name, reason := range map[string]string{"files": "store_moved", "defensive.db": "registry_not_writable"} {
		path := filepath.Join(d.dir, name)
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		becomes(reason)
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
		becomes("")
	}
	p := login(t, d, "a client")
	p.upload("a file", []byte("content"))
}

// A disk without room for content is said before a client comes.
func TestReadinessOfAFullDisk(t *testing.T) {
	d := serve(t, append(adminFlags(t, "127.0.0.1"), "--min-free", "1EiB")...)
	if got := d.notReady(); got != "disk_below_reserve" {
		t.Errorf("%q", got)
	}
}

// A server that drains is alive, and not ready; the address answers until it has ended.
func TestReadinessWhileDraining(t *testing.T) {
	d := serve(t, adminFlags(t, "127.0.0.1")...)
	p := login(t, d, "a client")
	content := randomBytes(100_000, 1)
	f := p.File("a file", content)
	packets := cut(f, 10_000)
	p.sendPackets(packets[:2])
	eventually(t, "the transfer begins", func() bool { return metric(t, d.metrics(), "sealift_uploads_begun_total") == 1 })
	d.signal(os.Interrupt)
	d.await(`"msg":"draining"`)
	if got := d.notReady(); got != "draining" {
		t.Errorf("%q", got)
	}
	if got := d.ask("/healthz"); got.status != 200 {
		t.Errorf("/healthz: %d: %s", got.status, got.body)
	}
	p.sendPackets(packets[2:])
	p.expectReceived(f)
	p.send(p.Verdict(codec.CodeCRCOK, "a file"))
	p.expectID(codec.CodeAck)
	if state := d.wait(); state.ExitCode() != 0 {
		t.Errorf("%v", state)
	}
	if _, err := net.Dial("tcp", d.admin()); err == nil {
		t.Error("the admin address is open after the end")
	}
}

// Beyond the loopback the page's files are there for everybody, and nothing that it shows.
func TestPageBeyondTheLoopback(t *testing.T) {
	d := serve(t, append(adminFlags(t, "0.0.0.0"), "--tls", "allow")...)
	_, port, err := net.SplitHostPort(d.admin())
	if err != nil {
		t.Fatal(err)
	}
	at := net.JoinHostPort("127.0.0.1", port)
	if got := call(t, "GET", "https://"+at+"/", nil); got.status != 200 || strings.Contains(got.body, adminToken) {
		t.Errorf("%d: %s", got.status, got.body)
	}
	for _, path := range []string{"/api/v1/status", "/api/v1/stream", "/nothing"} {
		if got := call(t, "GET", "https://"+at+path, nil); got.status != 401 {
			t.Errorf("%s: %d: %s", path, got.status, got.body)
		}
	}
	got := call(t, "GET", "https://"+at+"/api/v1/status", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+adminToken) })
	if got.status != 200 || !strings.Contains(got.body, `"stage":"serving"`) {
		t.Errorf("%d: %s", got.status, got.body)
	}
}
