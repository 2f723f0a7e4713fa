package apiclient

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

const secret = "a-secret-of-more-than-16-bytes"

// dial returns a client of what answers.
func dial(t *testing.T, answer http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(" "+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{URL: s.URL, TokenFile: path})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Nobody but the server that is named sees the token, and no address has it.
func TestNoRedirection(t *testing.T) {
	var strayed atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Store(true) }))
	defer elsewhere.Close()
	c := dial(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer "+secret || strings.Contains(r.URL.String(), secret) {
			t.Errorf("%s: %q", r.URL, got)
		}
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	t.Setenv("HTTP_PROXY", elsewhere.URL)
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "not followed") || strings.Contains(err.Error(), secret) {
		t.Errorf("%v", err)
	}
	if _, err := c.DropEvents(t.Context(), EventChoice{All: true}); err == nil || strayed.Load() {
		t.Errorf("%v, followed: %v", err, strayed.Load())
	}
}

// What a server says is wrong is told in its words, and otherwise as what it means.
func TestRefused(t *testing.T) {
	for _, x := range []struct {
		status            int
		kind, text        string
		want, wantsAdvice string
	}{
		{404, "application/json", `{"error":"no client","hint":"look"}`, "no client", "look"},
		{503, "application/json", `{"error":"too many"}`, "too many", ""},
		{401, "text/plain; charset=utf-8", "this needs the token", "does not take this token", "--api-token-file"},
		{403, "text/plain; charset=utf-8", "this server is not known by that name: see --admin-host\n", "refuses this: this server is not known", ""},
		{404, "text/html", "<h1>nothing</h1>", "does not have this", "--admin"},
		{502, "text/html", "<h1>gateway</h1>", "502 Bad Gateway", ""},
		{413, "text/plain; charset=utf-8", "short", "413 Request Entity Too Large: short", ""},
		{200, "text/html", "<h1>hello</h1>", "cannot be understood", ""},
	} {
		c := dial(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", x.kind)
			w.WriteHeader(x.status)
			_, _ = io.WriteString(w, x.text)
		})
		_, err := c.Status(t.Context())
		if err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), "<h1>") {
			t.Errorf("%d: %v, want %q", x.status, err, x.want)
		}
		var e *Error
		if errors.As(err, &e) != (x.status != 200) || e != nil && (e.Status != x.status || !strings.Contains(e.Advice, x.wantsAdvice) || x.wantsAdvice == "" && e.Advice != "") {
			t.Errorf("%d: %+v, want advice %q", x.status, e, x.wantsAdvice)
		}
	}
}

// A list that was cut off is not taken for a whole one, wherever that was.
func TestCutOff(t *testing.T) {
	const whole = `{"row":1}` + "\n" + `{"row":2}` + "\n" + `{"end":true}` + "\n"
	for n := range len(whole) + 1 {
		c := dial(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, whole[:n]) })
		var rows []string
		err := c.Rows(t.Context(), "files", func(line json.RawMessage) error {
			rows = append(rows, string(line))
			return nil
		})
		if good := n >= len(whole)-1; (err == nil) != good || good && strings.Join(rows, " ") != `{"row":1} {"row":2}` {
			t.Errorf("after %d bytes: %q, %v", n, rows, err)
		}
	}
	c := dial(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"row":1}`+"\n"+`{"end":true,"error":"broken","hint":"mend it"}`+"\n")
	})
	var e *Error
	if err := c.Rows(t.Context(), "files", func(json.RawMessage) error { return nil }); !errors.As(err, &e) || e.Text != "broken" || e.Advice != "mend it" {
		t.Errorf("%v", err)
	}
	stop := errors.New("stop")
	if err := c.Rows(t.Context(), "files", func(json.RawMessage) error { return stop }); err != stop {
		t.Errorf("%v", err)
	}
}

// Whoever has asked can go, also while a server says nothing.
func TestGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := dial(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
