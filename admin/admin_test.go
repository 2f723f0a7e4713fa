package admin

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sealift/crypto/tlskey"
)

const secret = "a-token-of-enough-bytes"

// watched is a server to be watched, which a test decides about.
type watched struct {
	*Server
	t     testing.TB
	stage atomic.Value
	beat  atomic.Pointer[time.Time]
	found atomic.Pointer[Condition]
	asked atomic.Int64  // how often Check was
	hold  chan struct{} // what Check waits for, unless it is nil
	logs  *observer.ObservedLogs
}

// watch answers on a free port of the loopback, with a token. change may be nil.
func watch(t testing.TB, change func(*watched, *Options)) *watched {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	w := &watched{t: t, logs: logs}
	w.stage.Store(Serving)
	w.beat.Store(&time.Time{})
	w.found.Store(&Condition{Free: 100, Reserve: 10})
	o := Options{
		Addr: "127.0.0.1:0", Log: zap.New(core), Metrics: NewMetrics(BuildInfo("v1.2.3")), Token: tokenOf(t, secret),
		Source: Source{
			Alive: func() time.Time { return *w.beat.Load() },
			Stage: func() Stage { return w.stage.Load().(Stage) },
			Check: func() Condition {
				w.asked.Add(1)
				if w.hold != nil {
					<-w.hold
				}
				return *w.found.Load()
			},
			Stats: someStats,
		},
	}
	if change != nil {
		change(w, &o)
	}
	var err error
	if w.Server, err = Open(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func tokenOf(t testing.TB, text string) *Token {
	t.Helper()
	token, err := ReadToken(tokenFile(t, text, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func tokenFile(t testing.TB, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// ask sends a request and returns the status and the body.
func (w *watched) ask(method, path string, change func(*http.Request)) (*http.Response, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+w.Addr().String()+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(body)
}

func (w *watched) get(path string) (status int, body string) {
	w.t.Helper()
	resp, body := w.ask("GET", path, nil)
	return resp.StatusCode, body
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func with(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

// What a request has to be like to be answered.
func TestRequests(t *testing.T) {
	w := watch(t, func(_ *watched, o *Options) { o.Hosts = []string{"Watch.Example."} })
	port := fmt.Sprint(w.Addr().Port)
	both := func(all ...func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			for _, f := range all {
				f(r)
			}
		}
	}
	for _, c := range []struct {
		method, path string
		change       func(*http.Request)
		status       int
	}{
		{"GET", "/healthz", nil, 200},
		{"HEAD", "/healthz", nil, 200},
		{"GET", "/readyz", nil, 200},
		{"GET", "/metrics", nil, 200},
		{"GET", "/healthz?verbose", nil, 200},

		{"GET", "/", nil, 404},
		{"GET", "/healthz/", nil, 404},
		{"GET", "/metrics/../healthz", nil, 404},
		{"GET", "//healthz", nil, 404},
		{"GET", "/debug/", nil, 404},
		{"GET", "/debug/pprof", nil, 404},
		{"GET", "/debug/pprof/a/b", nil, 404},

		{"POST", "/healthz", nil, 405},
		{"PUT", "/readyz", nil, 405},
		{"DELETE", "/metrics", nil, 405},
		{"OPTIONS", "/metrics", nil, 405},
		{"TRACE", "/metrics", nil, 405},
		{"POST", "/debug/pprof/symbol", bearer(secret), 405},

		{"GET", "/debug/pprof/", nil, 401},
		{"GET", "/debug/pprof/heap", nil, 401},
		{"GET", "/debug/pprof/profile?seconds=1", nil, 401},
		{"GET", "/debug/pprof/trace", nil, 401},
		{"GET", "/debug/pprof/cmdline", nil, 401},
		{"GET", "/debug/pprof/symbol", nil, 401},
		{"POST", "/debug/pprof/symbol", nil, 401},
		{"GET", "/debug/pprof/", bearer(secret), 200},
		{"GET", "/debug/pprof/heap", bearer(secret), 200},
		{"GET", "/debug/pprof/cmdline", bearer(secret), 200},
		{"GET", "/debug/pprof/nothing", bearer(secret), 404},
		{"GET", "/debug/pprof/heap", with("Authorization", "bearer "+secret), 200},
		{"GET", "/debug/pprof/heap", func(r *http.Request) { r.SetBasicAuth("prometheus", secret) }, 200},
		{"GET", "/debug/pprof/heap", func(r *http.Request) { r.SetBasicAuth(secret, "") }, 401},
		{"GET", "/debug/pprof/heap", bearer(secret + "x"), 401},
		{"GET", "/debug/pprof/heap", bearer(secret[:len(secret)-1]), 401},
		{"GET", "/debug/pprof/heap", bearer(""), 401},
		{"GET", "/debug/pprof/heap", with("Authorization", secret), 401},
		{"GET", "/debug/pprof/heap?token=" + secret, nil, 401},
		{"GET", "/debug/pprof/profile?seconds=3600", nil, 401},
		{"GET", "/debug/pprof/profile?seconds=3600", bearer(secret), 400},
		{"GET", "/debug/pprof/trace?seconds=60.1", bearer(secret), 400},
		{"GET", "/debug/pprof/trace?seconds=1e999", bearer(secret), 400},
		{"GET", "/debug/pprof/heap?seconds=61", bearer(secret), 400},

		{"GET", "/healthz", host("localhost"), 200},
		{"GET", "/healthz", host("LOCALHOST.:" + port), 200},
		{"GET", "/healthz", host("127.0.0.1:1"), 200}, // by a tunnel
		{"GET", "/healthz", host("[::1]:" + port), 200},
		{"GET", "/healthz", host("watch.example:9256"), 200},
		{"GET", "/healthz", host("evil.example"), 403},
		{"GET", "/healthz", host("localhost.evil.example"), 403},
		{"GET", "/healthz", host("127.0.0.1.evil.example:" + port), 403},
		{"GET", "/healthz", host("192.0.2.1"), 403},
		{"GET", "/debug/pprof/heap", both(bearer(secret), host("evil.example")), 403},

		{"GET", "/metrics", with("Origin", "https://evil.example"), 403},
		{"GET", "/metrics", with("Origin", "null"), 403},
		{"GET", "/metrics", with("Origin", "http://localhost:3000"), 403},
		{"GET", "/metrics", with("Origin", "https://"+w.Addr().String()), 403}, // it is not served over TLS
		{"GET", "/metrics", with("Origin", "http://"+w.Addr().String()), 200},
		{"GET", "/metrics", with("Sec-Fetch-Site", "cross-site"), 403},
		{"GET", "/metrics", with("Sec-Fetch-Site", "same-site"), 403},
		{"GET", "/metrics", with("Sec-Fetch-Site", "same-origin"), 200},
		{"GET", "/metrics", with("Sec-Fetch-Site", "none"), 200},
		{"GET", "/debug/pprof/heap", both(bearer(secret), with("Sec-Fetch-Site", "cross-site")), 403},

		{"GET", "/healthz", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1 }, 413},
		{"GET", "/healthz", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), -1 }, 413},
		{"POST", "/nothing", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1 }, 413},
	} {
		resp, body := w.ask(c.method, c.path, c.change)
		if resp.StatusCode != c.status {
			t.Errorf("%s %s: %d, want %d: %s", c.method, c.path, resp.StatusCode, c.status, body)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s %s: %s: %q, want %q", c.method, c.path, name, got, want)
			}
		}
		if c.status == 405 && resp.Header.Get("Allow") != "GET, HEAD" || c.status == 401 && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s %s: %d with %v", c.method, c.path, resp.StatusCode, resp.Header)
		}
	}
	if n := w.logs.FilterLevelExact(zap.ErrorLevel).Len(); n > 0 {
		t.Errorf("%d errors in the log: %v", n, w.logs.All())
	}
}

// Without a token nobody gets profiles.
func TestNoToken(t *testing.T) {
	w := watch(t, func(_ *watched, o *Options) { o.Token = nil })
	for _, change := range []func(*http.Request){nil, bearer(secret), bearer(""), func(r *http.Request) { r.SetBasicAuth("", "") }} {
		if resp, body := w.ask("GET", "/debug/pprof/heap", change); resp.StatusCode != 403 || !strings.Contains(body, "--admin-token-file") {
			t.Errorf("%d: %s", resp.StatusCode, body)
		}
	}
}

// dial sends text over a connection of its own.
func (w *watched) dial(text string) (net.Conn, *bufio.Reader) {
	w.t.Helper()
	c, err := net.Dial("tcp", w.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, text); err != nil {
		w.t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// A large body is refused before any of it has come, and the connection ends.
func TestLargeBody(t *testing.T) {
	t.Parallel()
	w := watch(t, nil)
	for _, head := range []string{"Content-Length: 10000000", "Transfer-Encoding: chunked"} {
		_, in := w.dial("POST /metrics HTTP/1.1\r\nHost: localhost\r\n" + head + "\r\n\r\n")
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != 413 || err != nil {
			t.Errorf("%s: %d, %v", head, resp.StatusCode, err)
		}
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("%s: the connection stays: %v", head, err)
		}
	}
}

// A header that is too large, or that does not come to its end, ends the connection.
func TestHeaders(t *testing.T) {
	t.Parallel()
	w := watch(t, nil)
	_, in := w.dial("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 2*maxHeader) + "\r\n\r\n")
	if line, _ := in.ReadString('\n'); !strings.Contains(line, " 431 ") {
		t.Errorf("a large header: %q", line)
	}
	_, in = w.dial("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
	if rest, err := io.ReadAll(in); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("a header that does not end: %q, %v", rest, err)
	}
	for _, text := range []string{
		"OPTIONS * HTTP/1.1\r\nHost: evil.example\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
		"GET /healthz HTTP/1.1\r\n\r\n", "GET /healthz HTTP/1.0\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost:\r\n\r\n",
	} {
		_, in = w.dial(text)
		if line, _ := in.ReadString('\n'); !strings.Contains(line, " 400 ") && !strings.Contains(line, " 403 ") {
			t.Errorf("%q: %q", text, line)
		}
	}
}

// As many connections as there may be, with requests that are being answered, leave no room
// for another, until one of them has its answer.
func TestFewConnections(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	w := watch(t, func(w *watched, o *Options) {
		o.Source.Stage = func() Stage {
			begun <- struct{}{}
			<-goOn
			return Serving
		}
	})
	const request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for range maxConnections {
		w.dial(request)
		<-begun
	}
	w.dial(request)
	select {
	case <-begun:
		t.Fatal("one connection too many is answered")
	case <-time.After(100 * time.Millisecond): // nothing can be waited for
	}
	goOn <- struct{}{}
	<-begun
	close(goOn)
}

// A connection that has no request, or half of one, makes room for the next; the oldest
// goes first, and none whose request is being answered.
func TestIdleConnections(t *testing.T) {
	in, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(in, 2)
	defer l.Close()
	defer time.AfterFunc(time.Minute, func() { l.Close() }).Stop() // what waits in vain fails
	enter := func() (*connection, net.Conn) {
		t.Helper()
		out, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { out.Close() })
		_ = out.SetDeadline(time.Now().Add(time.Minute))
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("it waits for a place: %v", err)
		}
		return c.(*connection), out
	}
	gone := func(name string, c net.Conn) {
		t.Helper()
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	a, _ := enter()
	a.answering(true)
	_, b := enter()
	_, c := enter()
	gone("the second", b)
	a.answering(false)
	d, _ := enter()
	gone("the third", c) // without a request for longer than the first
	if a.gone || d.gone {
		t.Error("another one has to go")
	}
}

// A panic is an answer, and a line in the log; the next request is answered.
func TestPanic(t *testing.T) {
	w := watch(t, func(_ *watched, o *Options) {
		o.Source.Stage = func() Stage { panic("of a test") }
	})
	for range 2 {
		if status, _ := w.get("/readyz"); status != 500 {
			t.Errorf("%d", status)
		}
	}
	if status, _ := w.get("/healthz"); status != 200 {
		t.Errorf("%d", status)
	}
	if w.logs.FilterMessage("panic").Len() != 2 {
		t.Errorf("%v", w.logs.All())
	}
}

// A panic of what counts is an error of the scrape, and ends nothing.
func TestPanicOfNumbers(t *testing.T) {
	w := watch(t, func(_ *watched, o *Options) {
		o.Source.Stats = func() Stats { panic("of a test") }
	})
	if status, body := w.get("/metrics"); status != 500 {
		t.Errorf("%d: %s", status, body)
	}
	if status, _ := w.get("/healthz"); status != 200 {
		t.Errorf("%d", status)
	}
}

// Loops that do not answer are no health, once they run.
func TestHealthz(t *testing.T) {
	w := watch(t, nil)
	for age, want := range map[time.Duration]int{0: 200, time.Second: 200, 2 * maxBeat: 503} {
		at := time.Now().Add(-age)
		w.beat.Store(&at)
		if status, body := w.get("/healthz"); status != want {
			t.Errorf("answered %v ago: %d, want %d: %s", age, status, want, body)
		}
		if status, body := w.get("/readyz"); status != want || (want != 200) != strings.Contains(body, LoopsDoNotAnswer) {
			t.Errorf("answered %v ago: %d, want %d: %s", age, status, want, body)
		}
	}
}

// reasons asks /readyz.
func (w *watched) reasons() string {
	w.t.Helper()
	status, body := w.get("/readyz")
	if status == 200 {
		return body
	}
	var all []string
	for d := json.NewDecoder(strings.NewReader(body)); ; {
		var r Reason
		if err := d.Decode(&r); err == io.EOF {
			return fmt.Sprint(status, " ", strings.Join(all, " "))
		} else if err != nil {
			w.t.Fatalf("%v in %q", err, body)
		}
		all = append(all, r.Reason)
	}
}

// A server is ready while it serves, and nothing is wrong. The stage counts at once, what
// is looked at after a short time.
func TestReadyz(t *testing.T) {
	t.Parallel()
	began := time.Now()
	w := watch(t, nil)
	for stage, want := range map[Stage]string{Recovering: "503 recovering", Draining: "503 draining", Serving: "ready\n"} {
		w.stage.Store(stage)
		if got := w.reasons(); got != want {
			t.Errorf("%s: %q, want %q", stage, got, want)
		}
	}
	w.stage.Store(Serving)
	w.found.Store(&Condition{Reasons: []Reason{{Reason: StoreMoved, Detail: "it is away"}, {Reason: RegistryNotWritable}}})
	for end := time.Now().Add(time.Minute); ; {
		if got := w.reasons(); got == "503 store_moved registry_not_writable" {
			break
		} else if got != "ready\n" || time.Now().After(end) {
			t.Fatalf("%q", got)
		}
	}
	// Each look counts for a second. On a machine that is slow there are more than two.
	if n, most := w.asked.Load(), 1+int64(time.Since(began)/checkEvery); n < 2 || n > most {
		t.Errorf("it was looked %d times, want 2 to %d", n, most)
	}
}

// A disk that hangs keeps nobody waiting for long, and one look at it is under way.
func TestDiskThatHangs(t *testing.T) {
	t.Parallel()
	w := watch(t, func(w *watched, _ *Options) { w.hold = make(chan struct{}) })
	for range 3 {
		if got := w.reasons(); got != "503 no_answer" {
			t.Errorf("%q", got)
		}
		if status, body := w.get("/metrics"); status != 200 || !strings.Contains(body, "\nsealift_ready 0\n") || strings.Contains(body, "sealift_disk_free_bytes 1") {
			t.Errorf("%d: %s", status, body)
		}
	}
	if n := w.asked.Load(); n != 1 {
		t.Errorf("it was looked %d times at once", n)
	}
	close(w.hold)
	for end := time.Now().Add(time.Minute); w.reasons() != "ready\n"; {
		if time.Now().After(end) {
			t.Fatal("not ready when the disk answers")
		}
	}
}

// A client that has left while the disk hangs is waited for by nobody.
func TestCheckForNobody(t *testing.T) {
	c := newChecks(func() Condition { select {} })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.latest(ctx)
	panics := newChecks(func() Condition { panic("of a test") })
	if got := panics.latest(t.Context()); len(got.Reasons) != 1 || got.Reasons[0].Reason != StoreFails {
		t.Errorf("%+v", got)
	}
}

// Files that hold no token, or that everybody may use.
func TestTokenFiles(t *testing.T) {
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{secret, 0o600, ""},
		{" " + secret + "\r\n", 0o640, ""},
		{secret, 0o644, "everybody may use the file, its mode is 0644"},
		{secret, 0o602, "everybody may use the file, its mode is 0602"},
		{"fifteen bytes..", 0o600, "the token has 15 bytes: want 16 or more"},
		{"", 0o600, "the token has 0 bytes"},
		{"two words of a token", 0o600, "want ASCII without white space"},
		{strings.Repeat("ß", 16), 0o600, "want ASCII"},
		{strings.Repeat("x", maxToken+1), 0o600, "want 4096 bytes at most"},
	} {
		if runtime.GOOS == "windows" && strings.Contains(c.want, "mode") {
			continue // there are no such modes
		}
		_, err := ReadToken(tokenFile(t, c.text, c.mode))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q, %o: %v, want %q", c.text, c.mode, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows the token: %v", err)
		}
	}
	if _, err := ReadToken(t.TempDir()); err == nil {
		t.Error("a folder is taken for a token")
	}
}

// Another token in the file counts when it is read again; what is none leaves the old one.
func TestAnotherToken(t *testing.T) {
	path := tokenFile(t, secret, 0o600)
	token, err := ReadToken(path)
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, func(_ *watched, o *Options) { o.Token = token })
	asks := func(token string, want int) {
		t.Helper()
		if resp, _ := w.ask("GET", "/debug/pprof/cmdline", bearer(token)); resp.StatusCode != want {
			t.Errorf("%q: %d, want %d", token, resp.StatusCode, want)
		}
	}
	asks(secret, 200)
	write := func(text string) (bool, error) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return token.Reload()
	}
	if changed, err := write(secret + "\n"); changed || err != nil {
		t.Errorf("the same: %v, %v", changed, err)
	}
	if changed, err := write("short"); changed || err == nil {
		t.Errorf("a short one: %v, %v", changed, err)
	}
	asks(secret, 200)
	if changed, err := write("another-token-of-enough-bytes"); !changed || err != nil {
		t.Errorf("another: %v, %v", changed, err)
	}
	asks(secret, 401)
	asks("another-token-of-enough-bytes", 200)
}

// Beyond the loopback there has to be a token and TLS.
func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		addr             string
		token, protected bool
		ok               bool
	}{
		{"127.0.0.1:0", false, false, true},
		{"127.8.9.1:0", false, false, true},
		{"[::1]:0", false, false, true},
		{"localhost:0", false, false, true},
		{"0.0.0.0:0", true, true, true},
		{":0", true, true, true},
		{":0", false, false, false},
		{":0", true, false, false},
		{":0", false, true, false},
		{"[::]:0", true, false, false},
		{"192.0.2.1:0", true, false, false},
		{"watch.example:0", true, false, false},
		{"127.0.0.1", true, true, false},
		{"", true, true, false},
	} {
		if err := Check(c.addr, nil, c.token, c.protected); (err == nil) != c.ok {
			t.Errorf("%q, token %v, TLS %v: %v", c.addr, c.token, c.protected, err)
		}
	}
	for _, name := range []string{"", "a:1", "http://a", "a b"} {
		if Check("127.0.0.1:0", []string{name}, false, false) == nil {
			t.Errorf("--admin-host %q is taken", name)
		}
	}
	if err := Check("127.0.0.1:0", []string{"a.example", "::1"}, false, false); err != nil {
		t.Error(err)
	}
}

// Beyond the loopback everything needs the token, and goes over TLS.
func TestBeyondTheLoopback(t *testing.T) {
	key, err := tlskey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tlskey.SelfSigned(key, "test", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, func(_ *watched, o *Options) {
		o.Addr, o.TLS = "0.0.0.0:0", &tls.Config{Certificates: []tls.Certificate{pair}}
	})
	at := fmt.Sprintf("127.0.0.1:%d", w.Addr().Port)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/cmdline", "/nothing"} {
		for _, token := range []string{"", "wrong", secret} {
			r, _ := http.NewRequest("GET", "https://"+at+path, nil)
			if token != "" {
				bearer(token)(r)
			}
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			want := 401
			if token == secret {
				if want = 200; path == "/nothing" {
					want = 404
				}
			}
			if resp.StatusCode != want {
				t.Errorf("%s with token %q: %d, want %d", path, token, resp.StatusCode, want)
			}
		}
	}
	if resp, err := http.Get("http://" + at + "/healthz"); err == nil {
		resp.Body.Close()
		if resp.StatusCode == 200 {
			t.Error("it answers without TLS")
		}
	}
}
