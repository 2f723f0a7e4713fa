package admin

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"go.uber.org/zap"
)

const (
	maxStreams   = 6                // who may watch at once: the rest of the connections is for health and metrics
	maxDownloads = 3                // files that may be read at once
	stallTime    = 20 * time.Second // for how long a reader of a stream or a file may take nothing
	maxAction    = 16 << 10         // bytes of an action
	pageMost     = 1000             // rows of a list
	pageUsual    = 100              // where the request does not say
	linesAtOnce  = 200              // of the log, at the beginning of a stream
	ticketTime   = 30 * time.Second
	maxTickets   = 100
)

// api is what is below /api/v1/, and /download/.
type api struct {
	*hub
	token *Token
	log   *zap.Logger
	quit  chan struct{} // closed when the server ends: streams do, too

	streams, downloads chan struct{} // places

	mu      sync.Mutex
	tickets map[string]ticket
}

// ticket is the right to download a file once, without the token.
type ticket struct {
	file  FileRef
	ends  time.Time
	token any // see Token.version: it ends with that
}

func newAPI(h *hub, token *Token, log *zap.Logger) *api {
	return &api{
		hub: h, token: token, log: log, quit: make(chan struct{}), tickets: make(map[string]ticket),
		streams: make(chan struct{}, maxStreams), downloads: make(chan struct{}, maxDownloads),
	}
}

// routes are those of the API. docs/API.md has each of them.
func (a *api) routes() map[string]route {
	read := func(f http.HandlerFunc) route { return route{secret: true, quiet: true, handler: f} }
	act := func(do func(context.Context, json.RawMessage) (any, error)) route {
		return route{secret: true, quiet: true, action: true, handler: a.act(do)}
	}
	return map[string]route{
		"/api/v1/status":      read(a.status),
		"/api/v1/connections": read(a.connections),
		"/api/v1/clients":     read(a.clients),
		"/api/v1/files":       read(a.stored),
		"/api/v1/recent":      read(a.recent),
		"/api/v1/refusals":    read(a.lines(a.live.Tail.Refusals)),
		"/api/v1/log":         read(a.lines(a.live.Tail.Lines)),
		"/api/v1/history": read(func(w http.ResponseWriter, _ *http.Request) {
			answer(w, http.StatusOK, map[string]any{"points": a.past(time.Time{})})
		}),
		"/api/v1/stream":          read(a.stream),
		"/api/v1/content":         read(a.content),
		"/api/v1/clients/disable": act(a.disable(true)),
		"/api/v1/clients/enable":  act(a.disable(false)),
		"/api/v1/connections/end": act(a.end),
		"/api/v1/files/delete":    act(a.delete),
		"/api/v1/downloads":       act(a.offer),
		"/download/":              {prefix: true, open: true, quiet: true, handler: a.download},
	}
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// refuse answers with what is wrong.
func (a *api) refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, ErrInput):
		status = http.StatusBadRequest
	case errors.Is(err, context.DeadlineExceeded):
		status = http.StatusServiceUnavailable
	default:
		a.log.Warn("a request failed", zap.Error(err))
	}
	answer(w, status, map[string]string{"error": err.Error()})
}

func (a *api) status(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, a.frame(r.Context()))
}

// most is how many rows a request asks for.
func most(r *http.Request, usual int) int {
	n, err := strconv.Atoi(r.FormValue("limit"))
	if err != nil || n < 1 {
		return usual
	}
	return min(n, pageMost)
}

func (a *api) connections(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), frameTime)
	defer cancel()
	seen, err := a.live.Observe(ctx, most(r, pageUsual), r.FormValue("client"))
	if err != nil {
		a.refuse(w, err)
		return
	}
	now := time.Now()
	for _, c := range seen.List {
		for i := range c.Transfers {
			t := &c.Transfers[i]
			t.Rate = int64(speed{at: t.Began}.next(t.Bytes, now).rate)
		}
	}
	answer(w, http.StatusOK, seen)
}

func (a *api) clients(w http.ResponseWriter, r *http.Request) {
	page, more, err := a.live.Clients(r.Context(), r.FormValue("after"), most(r, pageUsual))
	if err != nil {
		a.refuse(w, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"clients": some(page), "more": more})
}

func (a *api) stored(w http.ResponseWriter, r *http.Request) {
	q := FileQuery{Client: r.FormValue("client"), After: r.FormValue("after"), Most: most(r, pageUsual)}
	page, more, err := a.live.Stored(r.Context(), q)
	if err != nil {
		a.refuse(w, err)
		return
	}
	a.name(r.Context(), page)
	answer(w, http.StatusOK, map[string]any{"files": some(page), "more": more})
}

func (a *api) recent(w http.ResponseWriter, r *http.Request) {
	files, next := a.files(r.Context(), number(r, "from"), most(r, keptFiles))
	answer(w, http.StatusOK, map[string]any{"files": some(files), "next": next})
}

func (a *api) lines(of func(from uint64, most int) ([]json.RawMessage, uint64)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		lines, next := of(number(r, "from"), most(r, pageUsual))
		answer(w, http.StatusOK, map[string]any{"lines": some(lines), "next": next})
	}
}

func number(r *http.Request, name string) uint64 {
	n, _ := strconv.ParseUint(r.FormValue(name), 10, 64)
	return n
}

// some is list, which JSON has as [] when it is nil.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// stream tells what happens, once a second, as server-sent events: frame, history, files,
// refusals and log, each with the JSON that the path of that name answers with.
func (a *api) stream(w http.ResponseWriter, r *http.Request) {
	if !place(a.streams) {
		answer(w, http.StatusServiceUnavailable, map[string]string{"error": fmt.Sprintf("%d watch already", maxStreams)})
		return
	}
	defer func() { <-a.streams }()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	var files, refusals, lines uint64
	var point time.Time
	limit := linesAtOnce
	token := a.token.version()
	ticker := time.NewTicker(frameEvery)
	defer ticker.Stop()
	for {
		_ = out.SetWriteDeadline(time.Now().Add(stallTime))
		send := func(event string, v any) {
			text, err := json.Marshal(v)
			if err == nil {
				_, _ = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, text)
			}
		}
		send("frame", a.frame(r.Context()))
		if points := a.past(point); len(points) > 0 || point.IsZero() {
			send("history", map[string]any{"points": points})
			if len(points) > 0 {
				point = points[len(points)-1].At
			}
		}
		if f, next := a.files(r.Context(), files, keptFiles); next > files {
			files = next
			send("files", map[string]any{"files": some(f), "next": next})
		}
		if l, next := a.live.Tail.Refusals(refusals, keptRefusals); next > refusals {
			refusals = next
			send("refusals", map[string]any{"lines": some(l), "next": next})
		}
		if l, next := a.live.Tail.Lines(lines, limit); next > lines {
			lines = next
			send("log", map[string]any{"lines": some(l), "next": next})
		}
		if out.Flush() != nil {
			return
		}
		select {
		case <-ticker.C:
			if a.token.version() != token { // who watches is to show the new one
				return
			}
		case <-r.Context().Done():
			return
		case <-a.quit:
			return
		}
	}
}

// place takes one of the places, if there is one.
func place(places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		return false
	}
}

// act does what the body of a request says.
func (a *api) act(do func(context.Context, json.RawMessage) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
			a.refuse(w, fmt.Errorf("%w: want Content-Type: application/json", ErrInput))
			return
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, maxAction))
		if err != nil {
			a.refuse(w, fmt.Errorf("%w: %w", ErrInput, err))
			return
		}
		result, err := do(r.Context(), body)
		if err != nil {
			a.refuse(w, err)
			return
		}
		if result == nil {
			result = struct{}{}
		}
		answer(w, http.StatusOK, result)
	}
}

// parse reads an action. What it does not know is an error, since it may matter.
func parse(body json.RawMessage, v any) error {
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	return nil
}

func (a *api) disable(disabled bool) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, body json.RawMessage) (any, error) {
		var who struct {
			Client string `json:"client"`
		}
		if err := parse(body, &who); err != nil {
			return nil, err
		}
		return nil, a.live.Disable(ctx, who.Client, disabled)
	}
}

func (a *api) end(ctx context.Context, body json.RawMessage) (any, error) {
	var which struct {
		Connection string `json:"connection"`
	}
	if err := parse(body, &which); err != nil {
		return nil, err
	}
	return nil, a.live.End(ctx, which.Connection)
}

func (a *api) delete(ctx context.Context, body json.RawMessage) (any, error) {
	var f FileRef
	if err := parse(body, &f); err != nil {
		return nil, err
	}
	return nil, a.live.Delete(ctx, f)
}

// offer makes a ticket: a browser shows no token when it saves a file.
func (a *api) offer(_ context.Context, body json.RawMessage) (any, error) {
	var f FileRef
	if err := parse(body, &f); err != nil {
		return nil, err
	}
	f.Verified = true
	name, now := rand.Text(), time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for old, t := range a.tickets {
		if now.After(t.ends) {
			delete(a.tickets, old)
		}
	}
	if len(a.tickets) >= maxTickets {
		return nil, fmt.Errorf("%d downloads wait to be begun", maxTickets)
	}
	a.tickets[name] = ticket{f, now.Add(ticketTime), a.token.version()}
	return map[string]string{"location": "/download/" + name}, nil
}

func (a *api) download(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/download/")
	a.mu.Lock()
	t, ok := a.tickets[name]
	if r.Method == http.MethodGet {
		delete(a.tickets, name)
	}
	a.mu.Unlock()
	if !ok || time.Now().After(t.ends) || t.token != a.token.version() {
		http.Error(w, "a download may be begun once, within 30 seconds", http.StatusNotFound)
		return
	}
	c := connectionOf(r)
	c.answering(true)
	defer c.answering(false)
	a.serve(w, r, t.file)
}

func (a *api) content(w http.ResponseWriter, r *http.Request) {
	a.serve(w, r, FileRef{Client: r.FormValue("client"), Path: r.FormValue("path"), Version: r.FormValue("version"), Verified: true})
}

// serve sends the content of a file, which no browser is to show: it is its client's.
func (a *api) serve(w http.ResponseWriter, r *http.Request, f FileRef) {
	if !place(a.downloads) {
		answer(w, http.StatusServiceUnavailable, map[string]string{"error": fmt.Sprintf("%d files are read already", maxDownloads)})
		return
	}
	defer func() { <-a.downloads }()
	content, size, err := a.live.Open(r.Context(), f)
	if err != nil {
		a.refuse(w, err)
		return
	}
	defer content.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", disposition(f.Path))
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox; frame-ancestors 'none'")
	if r.Method == http.MethodHead {
		return
	}
	out := http.NewResponseController(w)
	buf := make([]byte, 64<<10)
	for left := size; left > 0; {
		n, err := content.Read(buf[:min(left, int64(len(buf)))])
		_ = out.SetWriteDeadline(time.Now().Add(stallTime))
		if _, e := w.Write(buf[:n]); e != nil || err != nil && (err != io.EOF || int64(n) < left) {
			panic(http.ErrAbortHandler) // or the reader would take a part for the whole
		}
		left -= int64(n)
	}
}

// disposition has a browser save a file under the last name of a path, which may be
// anything: in ASCII for those who know no better, and as it is.
func disposition(name string) string {
	name = path.Base(name)
	clean := strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r) || strings.ContainsRune(`/\:*?"<>|`, r) {
			return '_'
		}
		return r
	}, name)
	if clean = strings.TrimLeft(clean, ". "); clean == "" {
		clean = "file"
	}
	ascii := strings.Map(func(r rune) rune {
		if r > '~' || r == '%' {
			return '_'
		}
		return r
	}, clean)
	return fmt.Sprintf(`attachment; filename="%s"; filename*=UTF-8''%s`, ascii, strings.ReplaceAll(url.QueryEscape(clean), "+", "%20"))
}
