package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
)

// fake is a server that does what it is told, and remembers it.
type fake struct {
	mu   sync.Mutex
	did  []string
	fail error
}

func (f *fake) do(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, fmt.Sprintf(format, args...))
	return f.fail
}

func (f *fake) done() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.did, "; ")
}

const someClient = "00112233445566778899aabbccddeeff"

func (f *fake) live() *Live {
	return &Live{
		Version: "v1.2.3", Started: time.Unix(1, 0), Tail: NewTail(), Files: new(Recent),
		Observe: func(_ context.Context, most int, client string) (Observed, error) {
			return Observed{2, 1, []Connection{{ID: "c", Client: client, Name: "anna", Transfers: []Transfer{{File: "f", Bytes: int64(most), Total: 1000}}}}}, f.fail
		},
		Clients: func(_ context.Context, after string, most int) ([]Client, bool, error) {
			return []Client{{ID: someClient, Name: after + "+"}}, most == 1, f.fail
		},
		Stored: func(_ context.Context, q FileQuery) ([]StoredFile, bool, error) {
			return []StoredFile{{Client: q.Client, Path: q.After}}, q.Most == pageMost, f.fail
		},
		Names: func(_ context.Context, ids []string) (map[string]string, error) {
			return map[string]string{someClient: "anna"}, nil
		},
		Limits:  func() []Limit { return []Limit{{"max-file-size", "1GiB"}} },
		Disable: func(_ context.Context, client string, yes bool) error { return f.do("disable %s %v", client, yes) },
		Delete:  func(_ context.Context, r FileRef) error { return f.do("delete %v", r) },
		End:     func(_ context.Context, connection string) error { return f.do("end %s", connection) },
		Open: func(_ context.Context, r FileRef) (io.ReadCloser, int64, error) {
			const content = "<script>alert(1)</script>"
			return io.NopCloser(strings.NewReader(content)), int64(len(content)), f.do("open %v", r)
		},
		Waiting: func(context.Context) ([]Waiting, error) { return []Waiting{{Target: "url", Count: 7}}, nil },
	}
}

// watchLive answers with a page and an API.
func watchLive(t testing.TB) (*watched, *fake) {
	f := &fake{}
	return watch(t, func(_ *watched, o *Options) { o.Live = f.live() }), f
}

// post sends an action with the token.
func (w *watched) post(path, body string, change func(*http.Request)) (status int, text string) {
	w.t.Helper()
	resp, text := w.ask("POST", path, func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+secret)
		if change != nil {
			change(r)
		}
	})
	return resp.StatusCode, text
}

// Nobody sees a name without the token, and no browser changes anything by itself.
func TestGuardOfTheAPI(t *testing.T) {
	w, f := watchLive(t)
	for path, at := range w.api.routes() {
		if at.open {
			continue
		}
		method, good := "GET", 200
		if at.action {
			method, good = "POST", 400 // its body is empty
		}
		want := func(what string, change func(*http.Request), status int) {
			t.Helper()
			if path == "/api/v1/stream" && status == 200 {
				return
			}
			resp, body := w.ask(method, path, func(r *http.Request) {
				if method == "POST" {
					r.Header.Set("Content-Type", "application/json")
				}
				if change != nil {
					change(r)
				}
			})
			if resp.StatusCode != status {
				t.Errorf("%s %s: %d, want %d: %s", path, what, resp.StatusCode, status, body)
			}
			if status == 401 && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%s %s: a browser would ask by itself: %q", path, what, resp.Header.Get("WWW-Authenticate"))
			}
		}
		want("without the token", nil, 401)
		want("with another", bearer("not the token of this server"), 401)
		want("with the token", bearer(secret), good)
		want("from another site", func(r *http.Request) { bearer(secret)(r); r.Header.Set("Origin", "https://evil.example") }, 403)
		want("by another name", func(r *http.Request) { bearer(secret)(r); r.Host = "evil.example" }, 403)
		basic := good
		if at.action {
			basic = 401 // a browser keeps it, and sends it by itself
		}
		want("with the token as a password", func(r *http.Request) { r.SetBasicAuth("", secret) }, basic)
		method = map[string]string{"GET": "POST", "POST": "GET"}[method]
		want("with "+method, bearer(secret), 405)
	}
	if status, _ := w.post("/api/v1/clients/disable", `{"client":"`+someClient+`"}`, with("Content-Type", "text/plain")); status != 400 {
		t.Errorf("a form's type: %d", status)
	}
	if status, _ := w.post("/api/v1/clients/disable", `{"client":"x","more":1}`, nil); status != 400 {
		t.Errorf("an unknown field: %d", status)
	}
	if status, _ := w.post("/api/v1/clients/disable", strings.Repeat(" ", maxAction+1), nil); status != 413 {
		t.Errorf("a long body: %d", status)
	}
	if did := f.done(); !strings.HasPrefix(did, "open ") || strings.Contains(did, "disable") || strings.Contains(did, "delete") {
		t.Errorf("the server did %q", did)
	}
}

// Without a token's file nobody gets names.
func TestAPIWithoutAToken(t *testing.T) {
	f := &fake{}
	w := watch(t, func(_ *watched, o *Options) { o.Live, o.Token = f.live(), nil })
	if resp, body := w.ask("GET", "/api/v1/status", bearer("")); resp.StatusCode != 403 || !strings.Contains(body, "--admin-token-file") {
		t.Errorf("%d: %s", resp.StatusCode, body)
	}
	if status, _ := w.get("/"); status != 200 {
		t.Errorf("the page: %d", status)
	}
}

// Actions do what they say, and what is wrong with them is told.
func TestActions(t *testing.T) {
	w, f := watchLive(t)
	for _, c := range []struct{ path, body, did string }{
		{"/api/v1/clients/disable", `{"client":"x"}`, "disable x true"},
		{"/api/v1/clients/enable", `{"client":"x"}`, "disable x false"},
		{"/api/v1/connections/end", `{"connection":"x"}`, "end x"},
		{"/api/v1/files/delete", `{"client":"x","path":"y","version":"z","verified":true}`, "delete {x y z true}"},
	} {
		f.did = nil
		if status, text := w.post(c.path, c.body, nil); status != 200 || f.done() != c.did {
			t.Errorf("%s: %d %s, the server did %q", c.path, status, text, f.done())
		}
		for _, e := range []struct {
			err    error
			status int
		}{{ErrNotFound, 404}, {ErrInput, 400}, {errors.New("broken"), 500}, {context.DeadlineExceeded, 503}} {
			f.fail = fmt.Errorf("that: %w", e.err)
			if status, text := w.post(c.path, c.body, nil); status != e.status || !strings.Contains(text, e.err.Error()) {
				t.Errorf("%s: %v: %d %s", c.path, e.err, status, text)
			}
		}
		f.fail = nil
	}
}

// A file is saved and never shown, whatever it is and is called; a ticket is good once.
func TestDownload(t *testing.T) {
	w, _ := watchLive(t)
	_, text := w.post("/api/v1/downloads", `{"client":"x","path":"a/b.html","version":"z","verified":true}`, nil)
	var offer struct{ Location string }
	if err := json.Unmarshal([]byte(text), &offer); err != nil || !strings.HasPrefix(offer.Location, "/download/") {
		t.Fatalf("%s: %v", text, err)
	}
	for i, status := range []int{200, 404} {
		resp, body := w.ask("GET", offer.Location, nil)
		if resp.StatusCode != status {
			t.Fatalf("time %d: %d: %s", i+1, resp.StatusCode, body)
		}
		if status != 200 {
			continue
		}
		h := resp.Header
		if body != "<script>alert(1)</script>" || h.Get("Content-Type") != "application/octet-stream" || h.Get("X-Content-Type-Options") != "nosniff" ||
			!strings.Contains(h.Get("Content-Security-Policy"), "sandbox") || h.Get("Content-Disposition") != `attachment; filename="b.html"; filename*=UTF-8''b.html` {
			t.Errorf("%s, %v", body, h)
		}
	}
	if status, _ := w.get("/download/ABC"); status != 404 {
		t.Errorf("a ticket that nobody gave: %d", status)
	}
	for name, want := range map[string]string{
		"a/b c.txt":            `attachment; filename="b c.txt"; filename*=UTF-8''b%20c.txt`,
		"é%.txt":               `attachment; filename="__.txt"; filename*=UTF-8''%C3%A9%25.txt`,
		"x\"\r\nSet-Cookie: a": `attachment; filename="x___Set-Cookie_ a"; filename*=UTF-8''x___Set-Cookie_%20a`,
		"\u202egpj.exe":        `attachment; filename="_gpj.exe"; filename*=UTF-8''_gpj.exe`,
		".bashrc":              `attachment; filename="bashrc"; filename*=UTF-8''bashrc`,
		"..":                   `attachment; filename="file"; filename*=UTF-8''file`,
	} {
		if got := disposition(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// Who watches is told what happens, once, and the rest is shared.
func TestStream(t *testing.T) {
	w, _ := watchLive(t)
	live := w.api.live
	log := live.Tail.Wrap(zap.NewNop())
	log.Info("verified", zap.String("remote", "a"), zap.String("file", "one"))
	log.Warn("transfer refused", zap.String("remote", "a"), zap.String("reason", "why"))
	log.Warn("something else")
	live.Files.Add(StoredFile{Client: someClient, Path: "one"})
	_, in := w.dial("GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + secret + "\r\n\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatal(resp, err)
	}
	lines := bufio.NewScanner(resp.Body)
	next := func(event string) string {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == "event: "+event {
				lines.Scan()
				return lines.Text()
			}
		}
		t.Fatal("the stream ended: ", lines.Err())
		return ""
	}
	for _, c := range []struct{ event, has string }{
		{"frame", `"name":"anna"`}, {"history", `"points":[]`}, {"files", `"name":"anna","path":"one"`},
		{"refusals", `"message":"transfer refused"`}, {"log", `"message":"something else"`},
	} {
		if text := next(c.event); !strings.Contains(text, c.has) || c.event == "refusals" && (strings.Contains(text, "something else") || strings.Contains(text, "verified")) {
			t.Errorf("%s: %s", c.event, text)
		}
	}
	live.Files.Add(StoredFile{Client: someClient, Path: "two"})
	if text := next("files"); !strings.Contains(text, "two") || strings.Contains(text, "one") {
		t.Errorf("%s", text)
	}
}

// Whoever asks for the page without a token, and reads nothing, keeps nobody out: such a
// connection makes room for the next.
func TestPageThatNobodyReads(t *testing.T) {
	w, _ := watchLive(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	defer close(goOn)
	w.guard.routes["/"] = route{open: true, handler: func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-goOn
	}}
	for range maxConnections + 3 {
		w.dial("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		select {
		case <-begun:
		case <-time.After(time.Minute):
			t.Fatal("a connection waits for a place")
		}
	}
	if status, _ := w.get("/healthz"); status != 200 {
		t.Error(status)
	}
}

// A registry that does not say who a client is holds up neither frames nor lists.
func TestNamesThatDoNotCome(t *testing.T) {
	w, _ := watchLive(t)
	asked := make(chan struct{})
	w.api.live.Names = func(ctx context.Context, _ []string) (map[string]string, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	listed := make(chan string)
	go func() {
		_, text := w.ask("GET", "/api/v1/files?client="+someClient, bearer(secret))
		listed <- text
	}()
	<-asked
	framed := make(chan *Frame)
	go func() { framed <- w.api.frame(t.Context()) }()
	select {
	case f := <-framed:
		if f.Connections != 2 {
			t.Errorf("%+v", f)
		}
	case <-listed:
		t.Error("the frame waits for the names")
		<-framed
		return
	}
	if text := <-listed; !strings.Contains(text, someClient) {
		t.Error(text)
	}
}

// Another token ends what the one before has begun: whoever watches, and the tickets of
// downloads.
func TestAnotherTokenEndsStreams(t *testing.T) {
	path := tokenFile(t, secret, 0o600)
	token, err := ReadToken(path)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	w := watch(t, func(_ *watched, o *Options) { o.Live, o.Token = f.live(), token })
	_, in := w.dial("GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + secret + "\r\n\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	_, text := w.post("/api/v1/downloads", `{"client":"`+someClient+`","path":"f","version":"v"}`, nil)
	var offer struct{ Location string }
	if err := json.Unmarshal([]byte(text), &offer); err != nil {
		t.Fatal(text, err)
	}
	if err := os.WriteFile(path, []byte("another-token-of-enough-bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := token.Reload(); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if status, _ := w.get(offer.Location); status != 404 {
		t.Errorf("a download by the token before: %d", status)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil { // until the minute of dial is over
		t.Errorf("the stream goes on: %v", err)
	}
}

// A frame is for all who ask: that the first of them goes before it is made spoils it for
// nobody.
func TestFrameOfOneWhoHasGone(t *testing.T) {
	w, _ := watchLive(t)
	observe := w.api.live.Observe
	w.api.live.Observe = func(ctx context.Context, most int, client string) (Observed, error) {
		if err := ctx.Err(); err != nil {
			return Observed{}, err
		}
		return observe(ctx, most, client)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if f := w.api.frame(gone); f.Problem != "" || f.Connections != 2 {
		t.Errorf("%+v", f)
	}
}

// Only so many watch at once; the others are told.
func TestManyStreams(t *testing.T) {
	w, _ := watchLive(t)
	for i := range maxStreams + 1 {
		_, in := w.dial("GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + secret + "\r\n\r\n")
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{false: 200, true: 503}[i == maxStreams]; resp.StatusCode != want {
			t.Errorf("stream %d: %d, want %d", i+1, resp.StatusCode, want)
		}
	}
	if status, _ := w.get("/healthz"); status != 200 {
		t.Errorf("health beside them: %d", status)
	}
}

// The tail has the last lines, each whole, and no more than it keeps.
func TestTail(t *testing.T) {
	tail := NewTail()
	log := tail.Wrap(zap.NewNop()).With(zap.Int("always", 1))
	for i := range keptLines + 10 {
		log.Info("line", zap.Int("n", i))
	}
	log.Error("large", zap.String("stack", strings.Repeat("x", maxLine)))
	lines, next := tail.Lines(0, 2)
	if next != keptLines+11 || len(lines) != 2 || !strings.Contains(string(lines[0]), fmt.Sprintf(`"message":"line","always":1,"n":%d`, keptLines+9)) || strings.Contains(string(lines[1]), "xxx") {
		t.Errorf("%d: %s", next, lines)
	}
	if all, _ := tail.Lines(0, 10*keptLines); len(all) != keptLines || !strings.Contains(string(all[0]), `"n":11`) {
		t.Errorf("%d lines from %s on", len(all), all[0])
	}
	if none, _ := tail.Lines(next, 10); len(none) > 0 {
		t.Errorf("%s", none)
	}
}

// docs/API.md has each path, with its method, and each field of an answer; and no others.
func TestAPIDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/API.md")
	if err != nil {
		t.Fatal(err)
	}
	w, _ := watchLive(t)
	paths := make(map[string]bool)
	for path, at := range w.api.routes() {
		method := "GET"
		if at.action {
			method = "POST"
		}
		if at.prefix {
			path += "TICKET"
		}
		paths[method+" "+path] = true
	}
	fields := make(map[string]bool)
	for _, v := range []any{Frame{}, Observed{}, Totals{}, Disk{}, Memory{}, Reason{}, Limit{}, Connection{}, Transfer{}, Client{}, StoredFile{}, FileRef{}, Point{}, Waiting{}} {
		of := reflect.TypeOf(v)
		for i := range of.NumField() {
			if name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ","); name != "" {
				fields[name] = true
			}
		}
	}
	for kind, c := range map[string]struct {
		pattern string
		want    map[string]bool
	}{
		"paths":  {"(?m)^\\| `((?:GET|POST) [^` ?]+)[^`]*` \\|", paths},
		"fields": {"(?m)^\\| `([a-z_]+)` \\|", fields},
	} {
		has := make(map[string]bool)
		for _, m := range regexp.MustCompile(c.pattern).FindAllStringSubmatch(string(text), -1) {
			has[m[1]] = true
		}
		if got, want := slices.Sorted(maps.Keys(has)), slices.Sorted(maps.Keys(c.want)); !slices.Equal(got, want) {
			t.Errorf("%s in docs/API.md:\n%q, want\n%q", kind, got, want)
		}
	}
}

// The page's own files need no token, and let a browser use nothing but them.
func TestPageFiles(t *testing.T) {
	w, _ := watchLive(t)
	_, index := w.get("/")
	for path := range pageRoutes() {
		resp, body := w.ask("GET", path, nil)
		if resp.StatusCode != 200 || resp.Header.Get("Content-Security-Policy") != pagePolicy || body == "" {
			t.Errorf("%s: %d, %v", path, resp.StatusCode, resp.Header)
		}
		if path != "/" && !strings.Contains(index, `"`+path+`"`) {
			t.Errorf("the page does not use %s", path)
		}
	}
	for _, bad := range []string{"<style", " style=", " onclick=", "<script>", "http://", "https://"} {
		if strings.Contains(index, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

// BenchmarkTail is what a line of the log costs beside the writing of it.
func BenchmarkTail(b *testing.B) {
	log := NewTail().Wrap(zap.NewNop())
	b.ReportAllocs()
	for b.Loop() {
		log.Info("verified", zap.String("remote", "127.0.0.1:12345"), zap.String("client", someClient), zap.String("name", "anna"), zap.String("file", "a/file.txt"), zap.Int64("bytes", 12345))
	}
}
