package events_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"sealift/events"
	"sealift/storage"
)

// hostile is an event with all in its names that a server takes.
func hostile() *storage.Event {
	return &storage.Event{
		ID: "EVENT1", Kind: storage.EventVerified, Why: storage.WhyFoundAgain, Attempts: 2,
		Happened: time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC), Client: clientID(7), ClientName: `an"na $(id) ` + "`x`; \u200f",
		FileName: `..\-rf "$HOME"` + " \u5c65\U0001f600'", Path: `-rf "$HOME"` + " \u5c65\U0001f600' </script>", Version: "k1",
		Size: 1 << 40, Cksum: 1<<32 - 1,
	}
}

// message is what a target is told, as it would read it.
type message struct {
	SpecVersion, ID, Source, Type, Subject, Time, DataContentType string
	Data                                                          struct {
		Kind, Why string
		Client    struct{ ID, Name string }
		File      *struct {
			Name, Path, Stored, Version string
			Size                        int64 `json:"size_bytes"`
			Cksum                       uint32
		}
	}
}

// wantMessage checks that body tells e.
func wantMessage(t *testing.T, body []byte, e *storage.Event) {
	t.Helper()
	var m message
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	id := e.Client.String()
	if m.SpecVersion != "1.0" || m.ID != e.ID || m.Source != "/sealift/test" || m.Type != "sealift."+string(e.Kind) ||
		m.Subject != strings.TrimSuffix(id+"/"+e.Path, "/") || m.Time != "2026-03-04T05:06:07.089Z" || m.DataContentType != "application/json" {
		t.Errorf("message %+v", m)
	}
	if m.Data.Kind != string(e.Kind) || m.Data.Why != string(e.Why) || m.Data.Client.ID != id || m.Data.Client.Name != e.ClientName {
		t.Errorf("data %+v", m.Data)
	}
	switch f := m.Data.File; {
	case e.Path == "":
		if f != nil {
			t.Errorf("file %+v, want none", f)
		}
	case f == nil || f.Name != e.FileName || f.Path != e.Path || f.Stored != "files/"+id+"/"+e.Path || f.Version != e.Version || f.Size != e.Size || f.Cksum != e.Cksum:
		t.Errorf("file %+v", f)
	}
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func webhook(t *testing.T, url, secrets string) *events.Webhook {
	t.Helper()
	w, err := events.NewWebhook(events.WebhookOptions{URL: url, SecretFile: secrets, Source: "/sealift/test", UserAgent: "Sealift/test", Parallel: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

const exampleSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// The example that the libraries of Standard Webhooks are tested with.
func TestSignature(t *testing.T) {
	secrets, err := events.ReadSecrets(secretFile(t, exampleSecret+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	if got := events.Sign(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`)); got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

func TestWebhookRequest(t *testing.T) {
	var header http.Header
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.String() != "/hook?x=1" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		header = r.Header
		body, _ = io.ReadAll(r.Body)
	}))
	defer srv.Close()
	other := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", 32)))
	path := secretFile(t, exampleSecret)
	w := webhook(t, srv.URL+"/hook?x=1", path)
	tell := func(e *storage.Event) {
		t.Helper()
		if err := w.Tell(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		wantMessage(t, body, e)
		secrets, err := events.ReadSecrets(path)
		if err != nil {
			t.Fatal(err)
		}
		want := events.Sign(secrets, e.ID, header.Get("webhook-timestamp"), body)
		if header.Get("webhook-id") != e.ID || header.Get("webhook-signature") != want {
			t.Errorf("header %v, want the signature %s", header, want)
		}
		if got := header.Get("Content-Type"); got != "application/cloudevents+json; charset=utf-8" {
			t.Errorf("Content-Type %q", got)
		}
	}
	tell(hostile())
	tell(&storage.Event{ID: "E2", Kind: storage.EventRegistered, Happened: hostile().Happened, Client: clientID(1), ClientName: "ben"})

	// Two secrets sign twice; a file that is wrong changes nothing.
	if err := os.WriteFile(path, []byte(other+"\n"+exampleSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := w.Reload(); !changed || err != nil {
		t.Errorf("reload: %v, %v", changed, err)
	}
	if changed, err := w.Reload(); changed || err != nil {
		t.Errorf("reload of the same: %v, %v", changed, err)
	}
	tell(hostile())
	if n := len(strings.Fields(header.Get("webhook-signature"))); n != 2 {
		t.Errorf("%d signatures, want 2", n)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "short", "whsec_AAAA", "%%%", strings.Repeat(exampleSecret+"\n", 5)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Reload(); err == nil {
			t.Errorf("secrets %q were taken", bad)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	tell(hostile())

	w = webhook(t, srv.URL+"/hook?x=1", "")
	if err := w.Tell(t.Context(), hostile()); err != nil || header.Get("webhook-signature") != "" {
		t.Errorf("without a secret: %v, signature %q", err, header.Get("webhook-signature"))
	}
}

func TestWebhookAnswers(t *testing.T) {
	var answer func(w http.ResponseWriter)
	redirected := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		redirected = redirected || r.URL.Path == "/elsewhere"
		_, _ = io.Copy(io.Discard, r.Body)
		answer(w)
	}))
	defer srv.Close()
	hook := webhook(t, srv.URL, "")
	for _, tt := range []struct {
		code       int
		retryAfter string
		accepted   bool
		rest       time.Duration
	}{
		{code: 200, accepted: true}, {code: 204, accepted: true}, {code: 299, accepted: true},
		{code: 302}, {code: 307}, {code: 400}, {code: 404}, {code: 500}, {code: 503}, {code: 500, retryAfter: "60"},
		{code: 503, retryAfter: "60", rest: time.Minute}, {code: 429, retryAfter: "99999999", rest: time.Hour},
		{code: 429, retryAfter: "-1"}, {code: 429, retryAfter: "Fri, 31 Dec 1999 23:59:59 GMT"},
		{code: 410, rest: time.Hour},
	} {
		answer = func(w http.ResponseWriter) {
			w.Header().Set("Location", srv.URL+"/elsewhere")
			if tt.retryAfter != "" {
				w.Header().Set("Retry-After", tt.retryAfter)
			}
			w.WriteHeader(tt.code)
		}
		err := hook.Tell(t.Context(), hostile())
		var rest *events.RestError
		got := time.Duration(0)
		if errors.As(err, &rest) {
			got = rest.For
		}
		if (err == nil) != tt.accepted || got != tt.rest {
			t.Errorf("%d, Retry-After %q: %v, rest %v", tt.code, tt.retryAfter, err, got)
		}
	}
	if redirected {
		t.Error("a redirection was followed")
	}

	// One that does not answer, and one that is not there. No password gets into the error.
	blocked := make(chan struct{})
	answer = func(http.ResponseWriter) { <-blocked }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := hook.Tell(ctx, hostile()); !errors.Is(err, context.Canceled) {
		t.Errorf("without an answer: %v", err)
	}
	close(blocked)
	gone := httptest.NewServer(nil)
	url := strings.Replace(gone.URL, "http://", "http://user:password@", 1)
	gone.Close()
	if err := webhook(t, url, "").Tell(t.Context(), hostile()); err == nil || strings.Contains(err.Error(), "password") {
		t.Errorf("nobody there: %v", err)
	}
}

// What answers without end takes no memory: neither a header, nor a body, nor what comes
// before an answer.
func TestWebhookLongAnswers(t *testing.T) {
	for _, tt := range []struct {
		what, head, more string
		accepted         bool
	}{
		{"a header", "HTTP/1.1 200 OK\r\n", "X: " + strings.Repeat("x", 1<<10) + "\r\n", false},
		{"a body", "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", strings.Repeat("x", 1<<10), true},
		{"provisional answers", "", "HTTP/1.1 103 Early Hints\r\nX: " + strings.Repeat("x", 1<<10) + "\r\n\r\n", false},
	} {
		in, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan int, 1)
		go func() {
			c, err := in.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Read(make([]byte, 64<<10))
			_, _ = io.WriteString(c, tt.head)
			n := 0
			for err = nil; err == nil && n < 64<<20; n += len(tt.more) {
				_, err = io.WriteString(c, tt.more)
			}
			sent <- n
		}()
		err = webhook(t, "http://"+in.Addr().String(), "").Tell(t.Context(), hostile())
		if (err == nil) != tt.accepted {
			t.Errorf("%s: %v", tt.what, err)
		}
		if n := <-sent; n >= 9<<20 { // what the buffers of the connection hold counts, too
			t.Errorf("%s: %d bytes were taken", tt.what, n)
		}
		_ = in.Close()
	}
}

// Files of secrets that are no good.
func TestSecretFiles(t *testing.T) {
	open := secretFile(t, exampleSecret)
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("\n", 5000) + exampleSecret
	for what, path := range map[string]string{
		"nothing": secretFile(t, "\n"), "a folder": t.TempDir(), "not there": filepath.Join(t.TempDir(), "x"),
		"a short one": secretFile(t, "whsec_YWJj"), "no base64": secretFile(t, "secret secret secret secret secret"),
		"five": secretFile(t, strings.Repeat(exampleSecret+"\n", 5)), "a long file": secretFile(t, exampleSecret+long),
		"open to everybody": open,
	} {
		if what == "open to everybody" && runtime.GOOS == "windows" {
			continue
		}
		if secrets, err := events.ReadSecrets(path); err == nil || secrets != nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestCheckURL(t *testing.T) {
	for url, good := range map[string]bool{
		"http://127.0.0.1:8080/x": true, "https://example.org": true, "": false, "example.org": false,
		"ftp://example.org": false, "http://": false, "http://[": false, "/x": false,
	} {
		if err := events.CheckURL(url); (err == nil) != good {
			t.Errorf("%q: %v", url, err)
		}
	}
}
