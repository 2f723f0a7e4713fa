package s3

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"sealift/internal/testservices"
)

// fault is what a proxy does to a request.
type fault string

const (
	pass      fault = ""
	busy      fault = "503"
	slowDown  fault = "SlowDown"
	expiredAt fault = "ExpiredToken"
	denied    fault = "AccessDenied"
	quota     fault = "QuotaExceeded"
	noRoom    fault = "507"
	noUpload  fault = "NoSuchUpload"
	conflict  fault = "ConditionalRequestConflict"
	cutInside fault = "cut in the middle of the request" // the server gets half of it
	lost      fault = "reply lost"                       // the server has done it
)

// proxy stands between a store and the S3 server. judge decides about each request.
type proxy struct {
	*httptest.Server
	judge func(n int, r *http.Request) fault
	delay func(r *http.Request) // may wait. Set before the first request

	mu       sync.Mutex
	requests []string
}

func newProxy(t testing.TB, b *testservices.Bucket, judge func(n int, r *http.Request) fault) *proxy {
	t.Helper()
	target, err := url.Parse(b.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{judge: judge}
	// The host stays what the client has signed.
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", target.Host, r.In.Host
	}}
	forward.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		n := len(p.requests)
		p.requests = append(p.requests, r.Method+" "+r.URL.RequestURI())
		what := pass
		if p.judge != nil {
			what = p.judge(n, r)
		}
		p.mu.Unlock()
		if p.delay != nil {
			p.delay(r)
		}
		switch what {
		case pass:
			forward.ServeHTTP(w, r)
		case busy, noRoom:
			status := http.StatusServiceUnavailable
			if what == noRoom {
				status = http.StatusInsufficientStorage
			}
			w.WriteHeader(status)
		case cutInside:
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(io.LimitReader(r.Body, r.ContentLength/2), broken{}), r.Body}
			forward.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case lost:
			forward.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		default:
			status := http.StatusForbidden
			if what == slowDown {
				status = http.StatusServiceUnavailable
			} else if what == noUpload {
				status = http.StatusNotFound
			} else if what == expiredAt {
				status = http.StatusBadRequest
			} else if what == conflict {
				status = http.StatusConflict
			}
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(status)
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>says the proxy</Message></Error>", what)
		}
	}))
	p.Config.ErrorLog = quiet
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

// broken is the end of a request that is cut.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// count returns how many requests came.
func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.requests)
}

// last returns the requests from the nth on.
func (p *proxy) last(n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.requests[n:], "\n")
}

// set has judge decide from now on.
func (p *proxy) set(judge func(n int, r *http.Request) fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judge = judge
}
