package server

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sealift/crypto/tlskey"
)

// secrets are those of a registry.
type secrets struct {
	mu   sync.Mutex
	kept map[string][]byte
}

func (s *secrets) Secret(_ context.Context, name string, fresh func() ([]byte, error)) ([]byte, error) {
	s.mu.Lock()
	kept := s.kept[name]
	s.mu.Unlock()
	if kept != nil {
		return kept, nil
	}
	made, err := fresh()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = make(map[string][]byte)
	}
	if s.kept[name] == nil {
		s.kept[name] = made
	}
	return s.kept[name], nil
}

// sharing returns what clients know a server by that shares secrets, and what it warned of.
func sharing(t *testing.T, dir string, kept *secrets) (tlskey.Fingerprint, []string) {
	t.Helper()
	core, logged := observer.New(zap.WarnLevel)
	o := options(dir)
	o.TLS.Mode, o.Log = tlsAllow, zap.New(core)
	if err := o.complete(); err != nil {
		t.Error(err)
	}
	p, err := openSharedProtection(t.Context(), &o, kept)
	if err != nil {
		t.Error(err)
		return tlskey.Fingerprint{}, nil
	}
	if p.look(true) {
		t.Error("a look at the files finds a change")
	}
	inFile, err := FingerprintOfFile(p.o.Cert)
	if of := p.serve.Load().fingerprint; err != nil || inFile != of {
		t.Errorf("%s has %v, %v; shown is %v", p.o.Cert, inFile, err, of)
	}
	var warned []string
	for _, e := range logged.All() {
		warned = append(warned, e.Message)
	}
	return inFile, warned
}

// Servers that share their stores show one key, also when they start at once.
func TestSharedKey(t *testing.T) {
	kept := new(secrets)
	var servers sync.WaitGroup
	all := make([]tlskey.Fingerprint, 4)
	for i := range all {
		servers.Go(func() { all[i], _ = sharing(t, t.TempDir(), kept) })
	}
	servers.Wait()
	for _, f := range all {
		if f != all[0] || f.IsZero() {
			t.Errorf("shown are %v and %v", all[0], f)
		}
	}
}

// A server that was alone brings its key along, since its clients know it. Another one that
// comes later with a key of its own says that it does not show it.
func TestSharedKeyOfAServerThatWasAlone(t *testing.T) {
	kept := new(secrets)
	first, second := t.TempDir(), t.TempDir()
	for _, dir := range []string{first, second} {
		if _, err := makePair(dir, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	known, err := Fingerprint(first)
	if err != nil {
		t.Fatal(err)
	}
	if got, warned := sharing(t, first, kept); got != known || len(warned) != 0 {
		t.Errorf("shown is %v, not %v; warned of %q", got, known, warned)
	}
	if got, warned := sharing(t, second, kept); got != known || len(warned) != 1 {
		t.Errorf("the second shows %v, not %v; warned of %q", got, known, warned)
	}
}
