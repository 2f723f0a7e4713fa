//go:build linux

package cluster

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"
)

// s3Proxy stands between a server and the S3 server.
type s3Proxy struct {
	*httptest.Server
	target   string // host:port
	forward  *httputil.ReverseProxy
	requests atomic.Int64 // that came
	fault    atomic.Pointer[s3Fault]
}

// s3Fault is what goes wrong with requests. They are counted from 1 when the fault is set.
type s3Fault struct {
	// hits says which requests it is about; nil: all.
	hits func(n int64, r *http.Request) bool
	// status and code are answered in the place of the S3 server, if status is not 0.
	status int
	code   string
	// cut: the connection is cut before the request is forwarded. lost: it is forwarded,
	// and the connection cut in the place of the answer.
	cut, lost bool
	hold      chan struct{} // the request is forwarded when it is closed
	delay     time.Duration // before the request is forwarded
	perSecond int64         // bytes of a request's body; 0: as fast as it goes

	seen, done atomic.Int64
}

// newS3Proxy starts a proxy in front of the S3 server at that URL.
func (r *run) newS3Proxy(endpoint string) *s3Proxy {
	r.Helper()
	u, err := url.Parse(endpoint)
	r.must("parsing the URL of the S3 server", err)
	p := &s3Proxy{target: u.Host}
	p.forward = &httputil.ReverseProxy{
		// The Host stays as it came: it is signed.
		Rewrite: func(q *httputil.ProxyRequest) {
			q.Out.URL.Scheme, q.Out.URL.Host, q.Out.Host = "http", p.target, q.In.Host
		},
		Transport:    &http.Transport{DisableCompression: true},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	r.Cleanup(p.Close)
	return p
}

func (p *s3Proxy) serve(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
	f := p.fault.Load()
	if f == nil || f.hits != nil && !f.hits(f.seen.Add(1), r) {
		p.forward.ServeHTTP(w, r)
		return
	}
	f.done.Add(1)
	switch {
	case f.cut:
		panic(http.ErrAbortHandler)
	case f.lost:
		p.forward.ServeHTTP(new(nowhere), r)
		panic(http.ErrAbortHandler)
	case f.status != 0:
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(f.status)
		fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>as the test wants it</Message><RequestId>1</RequestId></Error>", f.code)
		return
	}
	if f.hold != nil {
		<-f.hold
	}
	time.Sleep(f.delay)
	if f.perSecond > 0 && r.Body != nil {
		r.Body = &slowBody{r.Body, f.perSecond}
	}
	p.forward.ServeHTTP(w, r)
}

// nowhere takes an answer that nobody is to get.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header {
	if n.header == nil {
		n.header = make(http.Header)
	}
	return n.header
}
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(int)             {}

// slowBody is a body of which so many bytes a second can be read.
type slowBody struct {
	io.ReadCloser
	perSecond int64
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	time.Sleep(time.Duration(int64(n) * int64(time.Second) / b.perSecond))
	return n, err
}
