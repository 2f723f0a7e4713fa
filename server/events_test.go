package server

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// hook is a URL whose requests a test sees, and answers.
func hook(t *testing.T, status func() int) (url string, requests chan *http.Request) {
	t.Helper()
	requests = make(chan *http.Request, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !json.Valid(body) {
			t.Errorf("request %q: %v", body, err)
		}
		w.WriteHeader(status())
		requests <- r
	}))
	t.Cleanup(srv.Close)
	return srv.URL, requests
}

const (
	eventSecret  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"
	otherSecret  = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
	secretsMatch = "the event secrets were reloaded"
)

// The secrets are read again at a reload, and a file that makes no sense leaves those from
// before.
func TestEventSecretsReload(t *testing.T) {
	url, requests := hook(t, func() int { return 204 })
	core, logs := observer.New(zap.InfoLevel)
	o := options(t.TempDir())
	o.Log = zap.New(core)
	files := t.TempDir()
	write(t, files, "secret", eventSecret)
	o.Events.URL, o.Events.SecretFile = url, filepath.Join(files, "secret")
	s := open(t, o)
	defer run(t, s)()
	signatures := func() (n int) {
		t.Helper()
		send(t, s.Addr(), time.Now().String())
		for range 3 { // registered, received, verified
			r := <-requests
			n += len(r.Header["Webhook-Signature"][0])
		}
		return n
	}
	one := signatures()
	write(t, files, "secret", eventSecret+otherSecret)
	if !s.Reread() || logs.FilterMessage(secretsMatch).Len() != 1 {
		t.Errorf("log %v", logs.All())
	}
	if s.Reread() {
		t.Errorf("what has not changed was reloaded: %v", logs.All())
	}
	if two := signatures(); two != 2*one+3 {
		t.Errorf("signatures of %d bytes with one secret, and of %d with two", one, two)
	}
	write(t, files, "secret", "none")
	if !s.Reread() || logs.FilterMessage("the event secrets cannot be used; those from before stay").Len() != 1 {
		t.Errorf("log %v", logs.All())
	}
	if two := signatures(); two != 2*one+3 {
		t.Error("after a file that makes no sense the signatures are others")
	}
}

// A server that is told to keep fewer events drops the others while it runs, and says how
// many.
func TestEventLimitsAreLive(t *testing.T) {
	url, requests := hook(t, func() int { return 500 })
	core, logs := observer.New(zap.InfoLevel)
	o := options(t.TempDir())
	o.Log = zap.New(core)
	o.Events.URL, o.Events.Retry = url, time.Hour
	s := open(t, o)
	defer run(t, s)()
	for _, name := range []string{"anna", "ben"} {
		send(t, s.Addr(), name)
		<-requests
	}
	next := o
	next.Events.Max = 2
	if changed, restart, err := s.Apply(next); len(changed) != 1 || len(restart) != 0 || err != nil {
		t.Fatalf("changed %v, restart %v, %v", changed, restart, err)
	}
	awaitLine(t, logs, "events were dropped")
	line := logs.FilterMessage("events were dropped").All()[0].ContextMap()
	if line["count"] != int64(4) || line["target"] != "url" {
		t.Errorf("the log says %v", line)
	}
	<-requests // what is in front now is told
}

func awaitLine(t *testing.T, logs *observer.ObservedLogs, message string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); logs.FilterMessage(message).Len() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s; log %v", message, logs.All())
		}
	}
}

// A registry in memory promises nothing across restarts, and the start says so.
func TestEventsInMemory(t *testing.T) {
	url, requests := hook(t, func() int { return 200 })
	const warning = "events that were not told are lost at the end of this server, since its registry is in memory"
	for _, target := range []string{"", url} {
		core, logs := observer.New(zap.InfoLevel)
		o := options(t.TempDir())
		o.Log, o.Storage.Registry, o.Events.URL = zap.New(core), "memory", target
		s := open(t, o)
		stop := run(t, s)
		send(t, s.Addr(), "anna")
		if target != "" {
			for range 3 {
				<-requests
			}
		}
		stop()
		if got := logs.FilterMessage(warning).Len() > 0; got != (target != "") {
			t.Errorf("with the URL %q the start warns: %v", target, got)
		}
	}
	if len(requests) > 0 {
		t.Errorf("%d requests too many", len(requests))
	}
}

// What telling opens at most is set aside: neither connections nor uploads have it.
func TestEventsHaveDescriptors(t *testing.T) {
	share := func(e Events) int {
		e.Parallel = 8
		s := &Server{o: Options{Network: Network{MaxConnections: 1 << 30}, Machine: Machine{Loops: 1, Workers: 1}, Events: e}}
		if err := s.shareDescriptors(); err != nil {
			t.Fatal(err)
		}
		return s.share.Connections + s.share.Files
	}
	all := share(Events{})
	if all >= 1<<30 {
		t.Skip("open files have no limit here")
	}
	if got, want := share(Events{Command: "true", URL: "http://127.0.0.1/"}), all-8*(commandFiles+requestFiles); got != want {
		t.Errorf("connections and uploads have %d descriptors, want %d of %d", got, want, all)
	}
}
