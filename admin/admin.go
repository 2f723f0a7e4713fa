package admin

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Options of [Open].
type Options struct {
	Addr string // host:port; port 0 takes a free one
	// Hosts are names that a request may ask for, besides those of the loopback and the
	// address that it came to.
	Hosts []string
	// Token is what requests have to show, or nil. Without one nobody gets profiles.
	Token *Token
	// TLS is how connections are protected. It is needed, as Token is, unless Addr is on
	// the loopback, where connections are plain.
	TLS    *tls.Config
	Source Source
	// Live is for the page and its API; nil: there is none.
	Live *Live
	// Metrics has what the server measures; see NewMetrics.
	Metrics *Metrics
	Log     *zap.Logger
}

const (
	// maxConnections is how many connections there may be at once. For the next one that
	// is closed which has been without a request for longest.
	maxConnections = 16
	// Descriptors is how many open files the address needs: connections, the listener,
	// what a scrape opens, and files that are downloaded.
	Descriptors = maxConnections + 8 + maxDownloads

	headerTime  = 5 * time.Second  // until a request's header is whole
	readTime    = 10 * time.Second // until all of it is
	idleTime    = 30 * time.Second // between two requests
	answerTime  = 10 * time.Second // until the answer is written
	refusedTime = time.Second      // for what a client still sends of a body that was refused
	// profileTime is answerTime for profiles, on top of the time that they are asked to last.
	profileTime = 90 * time.Second
	// longestProfile is how long that may be.
	longestProfile = time.Minute
	maxHeader      = 16 << 10 // bytes
)

// Server answers at an address.
type Server struct {
	addr   *net.TCPAddr
	http   *http.Server
	checks *checks
	guard  *guard
	api    *api          // nil: there is none
	served chan struct{} // closed when http has ended
}

// Open listens, and begins to answer.
func Open(o Options) (*Server, error) {
	if err := Check(o.Addr, o.Hosts, o.Token != nil, o.TLS != nil); err != nil {
		return nil, err
	}
	l, err := listen(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("--admin: listening: %w", err)
	}
	s := &Server{addr: l.Addr().(*net.TCPAddr), checks: newChecks(o.Source.Check), served: make(chan struct{})}
	// A name may lead elsewhere than its looks say.
	beyond := !s.addr.IP.IsLoopback()
	if beyond && (o.Token == nil || o.TLS == nil) {
		return nil, errors.Join(fmt.Errorf("--admin %s: %w", o.Addr, errBeyond), l.Close())
	}
	var in net.Listener = limit(l, maxConnections)
	if beyond {
		in = tls.NewListener(in, o.TLS)
	}
	health := &health{source: o.Source, checks: s.checks}
	s.guard = &guard{
		hosts: hostNames(o.Addr, o.Hosts), token: o.Token, always: beyond, log: o.Log,
		routes: routes(health, o.Metrics.handler(o.Source, s.checks, o.Log)),
	}
	if o.Live != nil {
		s.api = newAPI(newHub(o.Live, health), o.Token, o.Log)
		maps.Copy(s.guard.routes, pageRoutes())
		maps.Copy(s.guard.routes, s.api.routes())
		go s.api.keep(s.api.quit)
	}
	s.http = &http.Server{
		Handler: s.guard, ConnContext: withConnection,
		ReadHeaderTimeout: headerTime, ReadTimeout: readTime, IdleTimeout: idleTime, WriteTimeout: profileTime,
		MaxHeaderBytes: maxHeader, DisableGeneralOptionsHandler: true, // or OPTIONS * would pass the guard
		ErrorLog: zap.NewStdLog(o.Log.WithOptions(zap.IncreaseLevel(zap.FatalLevel))), // what clients do wrong is no news
	}
	s.checks.begin()
	go func() {
		defer close(s.served)
		if err := s.http.Serve(in); err != nil && !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("the admin address answers no more", zap.Error(err))
		}
	}()
	return s, nil
}

func listen(addr string) (*net.TCPListener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// Addr is where the server listens, with the port that it found.
func (s *Server) Addr() *net.TCPAddr { return s.addr }

// Close ends all connections. It does not wait for a disk that hangs: Source.Check may be
// under way afterwards for that reason, and for no other.
func (s *Server) Close() error {
	if s.api != nil {
		close(s.api.quit)
	}
	err := s.http.Close()
	<-s.served
	s.guard.wait()
	s.checks.close()
	return err
}

var errBeyond = errors.New("beyond the loopback the address needs --admin-token-file, and TLS (--tls allow or require)")

// Check returns what is wrong with an address, and the names for it, before anything is
// opened.
func Check(addr string, hosts []string, token, protected bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--admin %q: want host:port, such as 127.0.0.1:9256", addr)
	}
	for _, h := range hosts {
		if h == "" || strings.ContainsAny(h, ":/ ") && !isIP(h) {
			return fmt.Errorf("--admin-host %q: want a name without a port", h)
		}
	}
	if !isLoopback(host) && (!token || !protected) {
		return fmt.Errorf("--admin %s: %w", addr, errBeyond)
	}
	return nil
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// isLoopback reports whether a host is one of this machine that nobody else reaches.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
