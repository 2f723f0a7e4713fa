package admin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// route is what is at a path.
type route struct {
	prefix  bool // what begins with the path is the same route
	secret  bool // it needs the token everywhere
	open    bool // it needs the token nowhere: it has nothing of the server's, or asks by itself
	quiet   bool // of the API: a browser is not to ask for the token by itself
	action  bool // it changes something: with POST, and the token as a bearer's alone, which no browser adds by itself
	time    time.Duration
	handler http.HandlerFunc
}

// routes are all paths that there are without the page and its API. What they have is only
// read: with GET, or HEAD.
func routes(h *health, metrics http.Handler) map[string]route {
	profile := func(f http.HandlerFunc) route { return route{secret: true, time: profileTime, handler: f} }
	index := profile(pprof.Index)
	index.prefix = true
	return map[string]route{
		"/healthz":             {handler: h.alive},
		"/readyz":              {handler: h.ready},
		"/metrics":             {handler: metrics.ServeHTTP},
		"/debug/pprof/":        index,
		"/debug/pprof/cmdline": profile(pprof.Cmdline),
		"/debug/pprof/profile": profile(pprof.Profile),
		"/debug/pprof/symbol":  profile(pprof.Symbol),
		"/debug/pprof/trace":   profile(pprof.Trace),
	}
}

// guard lets through to the routes what may pass.
type guard struct {
	hosts  map[string]bool
	token  *Token
	always bool // everything needs the token
	routes map[string]route
	log    *zap.Logger
	// answering is held for reading by requests that are answered.
	answering sync.RWMutex
}

// ServeHTTP implements [http.Handler].
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler {
			panic(p)
		}
		g.log.Error("panic", zap.String("remote", r.RemoteAddr), zap.String("path", r.URL.Path), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		http.Error(w, "panic", http.StatusInternalServerError) // of no effect if the answer has begun
	}()
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	status, why := g.judge(w, r)
	if status != 0 {
		if status == http.StatusRequestEntityTooLarge {
			header.Set("Connection", "close") // or the server would read some of it first
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(refusedTime))
		}
		http.Error(w, why, status)
		return
	}
	g.answering.RLock()
	defer g.answering.RUnlock()
	at, _ := g.find(r.URL.Path)
	if !at.open { // what anybody may ask for keeps nobody else out, however slowly it is read
		c := connectionOf(r)
		c.answering(true)
		defer c.answering(false)
	}
	if at.time == 0 {
		at.time = answerTime
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(at.time)) // there is one in any case
	at.handler(w, r)
}

// wait waits for the requests that are answered, but not for longer than closeTime.
func (g *guard) wait() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.answering.Lock()
		defer g.answering.Unlock()
	}()
	select {
	case <-done:
	case <-time.After(closeTime):
	}
}

// judge says why r is not answered, with which status; 0: it is.
func (g *guard) judge(w http.ResponseWriter, r *http.Request) (status int, why string) {
	at, found := g.find(r.URL.Path)
	switch {
	case !g.knows(r):
		return http.StatusForbidden, "this server is not known by that name: see --admin-host"
	case !sameSite(r):
		return http.StatusForbidden, "the request comes from another site's page"
	case r.ContentLength != 0 && !at.action || r.ContentLength < 0 || r.ContentLength > maxAction:
		return http.StatusRequestEntityTooLarge, "no request has a body here, but for actions, which are short"
	case !at.open && (g.always || at.secret) && !g.token.shown(r, at.action):
		if g.token == nil {
			return http.StatusForbidden, "this needs --admin-token-file"
		}
		ask := `Basic realm="sealiftd", charset="UTF-8"`
		if at.quiet {
			ask = `Bearer realm="sealiftd"`
		}
		w.Header().Set("WWW-Authenticate", ask)
		return http.StatusUnauthorized, "this needs the token, as Authorization: Bearer, or as a password"
	case !found:
		return http.StatusNotFound, "there is nothing here"
	case at.action && r.Method != http.MethodPost:
		w.Header().Set("Allow", "POST")
		return http.StatusMethodNotAllowed, "want POST"
	case at.action:
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		return http.StatusMethodNotAllowed, "want GET or HEAD"
	case at.secret && !at.quiet && !lasts(r.FormValue("seconds")):
		return http.StatusBadRequest, fmt.Sprintf("a profile lasts %v at most", longestProfile)
	}
	return 0, ""
}

// lasts reports whether a profile may last so many seconds. What is no number is left to
// the profile.
func lasts(seconds string) bool {
	n, err := strconv.ParseFloat(seconds, 64)
	return errors.Is(err, strconv.ErrSyntax) || n <= longestProfile.Seconds()
}

// find returns what is at a path.
func (g *guard) find(path string) (route, bool) {
	if at, ok := g.routes[path]; ok {
		return at, true
	}
	i := strings.LastIndexByte(path, '/')
	if at := g.routes[path[:i+1]]; at.prefix {
		return at, true
	}
	return route{}, false
}

// hostNames are the names that a server at addr is known by, and those that are given.
func hostNames(addr string, given []string) map[string]bool {
	names := map[string]bool{"localhost": true}
	host, _, _ := net.SplitHostPort(addr)
	for _, h := range append([]string{host}, given...) {
		if h != "" {
			names[plainHost(h)] = true
		}
	}
	return names
}

// plainHost is a host in one way to write it.
func plainHost(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return host
}

// knows reports whether r asks for this server. A page of another site can have its name
// lead here (DNS rebinding); the request still has that name. An address of ours is not
// such a name.
func (g *guard) knows(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	host = plainHost(host)
	if g.hosts[host] || isLoopback(host) {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && host == plainHost(local.IP.String())
}

// sameSite reports whether r comes from no page of another site. Browsers say so in one of
// these; other programs say nothing.
func sameSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	u, err := url.Parse(origin)
	return err == nil && u.Scheme == scheme && strings.EqualFold(u.Host, r.Host)
}
