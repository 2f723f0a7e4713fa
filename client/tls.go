package client

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"sealift/crypto/tlskey"
	"sealift/internal/infofile"
)

// Fingerprint names the TLS key of a server or of a client: the SHA-256 of its
// SubjectPublicKeyInfo. The zero value is no key.
type Fingerprint = tlskey.Fingerprint

// ParseFingerprint reads what [Fingerprint.String] writes: SHA256: and 43 characters
// of base64.
func ParseFingerprint(s string) (Fingerprint, error) { return tlskey.ParseFingerprint(s) }

// TLSMode says whether connections are protected.
type TLSMode uint8

const (
	// TLSIfKnown: they are if Options.Known has a TLS key of the server, if its
	// address begins with tls://, or if the settings say how its key is known.
	TLSIfKnown TLSMode = iota
	// TLSOn: they are.
	TLSOn
	// TLSOff: they are not. A server whose TLS key is in Options.Known gets none: an
	// ErrProtected.
	TLSOff
)

// TLS says whether connections are protected by TLS 1.3, and which server is the right
// one. Nothing is sent to a server that is not known by one of: the key in
// Options.Known, Fingerprints, Roots, Config, or, at the first contact, TrustFirst or
// Ask. There is no fallback to a plain connection.
//
// The key of a server is kept in Options.Known, if that is a [KnownKeys], after the
// first handshake with it and before anything is sent; not with Roots and Config.
//
// The client shows a key of its own, to which the server may tie its identity, if
// Options.Identity is a [TLSKeyStore].
type TLS struct {
	Mode TLSMode

	// Fingerprints are the keys that the server may have. They count, and not the
	// one in Options.Known, in whose place the one that is met is kept.
	Fingerprints []Fingerprint
	// TrustFirst takes the key of a server of which none is known, whatever it is.
	TrustFirst bool
	// Ask is asked about the key of a server of which none is known; nil takes it. The
	// server, which is host:port, has shown that it has the key. No connection is open
	// meanwhile. Ask should end with its context. Default: the key is refused.
	Ask func(ctx context.Context, server string, key Fingerprint) error
	// Roots have the authorities that may have signed the server's certificate, which
	// must be for the host in Options.Server.
	Roots *x509.CertPool
	// Certificate is shown in the place of the client's own key: for servers that want one
	// that an authority has signed, with the user name in it.
	Certificate *tls.Certificate
	// Config says everything about the server and, if it has one, about the client's
	// certificate. It is cloned. TLS 1.3 is used all the same, and no session is resumed.
	Config *tls.Config
}

// KnownKeys is what a [KnownServers] may be as well: it keeps the TLS keys of servers.
type KnownKeys interface {
	// LoadKey returns the key of a server, host:port; zero if none is known. What makes
	// no sense is an error, and not a key that is not known.
	LoadKey(server string) (Fingerprint, error)
	// SaveKey keeps key, durably, in the place of old; zero: of none. Where another one is
	// found there, it stays, and that is an error.
	SaveKey(server string, key, old Fingerprint) error
}

// TLSKeyStore is what an [IdentityStore] may be as well: it keeps the client's key for
// TLS connections.
type TLSKeyStore interface {
	// TLSKey returns the key. Where there is none it makes one and keeps it, durably. It
	// waits for other processes that do so until ctx ends.
	TLSKey(ctx context.Context) (ed25519.PrivateKey, error)
}

var (
	// ErrServerKey: the TLS key of the server is another one than it should be, or is
	// not known yet. A [*KeyError] has the details.
	ErrServerKey = errors.New("the server's TLS key is not trusted")
	// ErrTLS: no protected connection can be made: the server does not speak TLS 1.3, its
	// certificate is not good, or it does not take ours.
	ErrTLS = errors.New("no TLS connection")
	// ErrProtected: plain connections were asked for to a server that is known with TLS.
	ErrProtected = errors.New("the server is known with TLS, and a plain connection to it is not made")
	// ErrKeyNotKept: the TLS key of the server cannot be written to Options.Known.
	ErrKeyNotKept = errors.New("the TLS key of the server cannot be kept, so nothing was sent")
)

// KeyError says which TLS key a server has, and which ones it should have. It is an
// ErrServerKey.
type KeyError struct {
	Server     string // host:port
	Key        Fingerprint
	Expected   []Fingerprint // empty: no key of the server is known
	Remembered bool          // what is expected is from Options.Known
	Refused    error         // what Options.TLS.Ask has returned
}

func (e *KeyError) Error() string {
	var expected []string
	for _, f := range e.Expected {
		expected = append(expected, f.String())
	}
	switch {
	case e.Refused != nil:
		return fmt.Sprintf("the TLS key %v of %s is not trusted: %v", e.Key, e.Server, e.Refused)
	case len(expected) == 0:
		return fmt.Sprintf("the TLS key of %s is not known yet; the server has %v", e.Server, e.Key)
	case e.Remembered:
		return fmt.Sprintf("the TLS key of %s has changed: it is %v, and was %s. Somebody may stand between us and the server",
			e.Server, e.Key, strings.Join(expected, " or "))
	}
	return fmt.Sprintf("the TLS key of %s is %v, and not %s", e.Server, e.Key, strings.Join(expected, " or "))
}

// Is makes every KeyError an ErrServerKey.
func (e *KeyError) Is(target error) bool { return target == ErrServerKey }

// Unwrap returns what Ask has returned, or nil.
func (e *KeyError) Unwrap() error { return e.Refused }

// guard protects the connections to a server. The Clients of a Run share it; its methods
// may be called from any goroutine. A nil guard protects nothing: connections are plain.
type guard struct {
	address string // host:port
	host    string
	tls     TLS
	store   KnownKeys          // nil: nothing is kept
	own     ed25519.PrivateKey // of the client; nil: it shows none

	mu         sync.Mutex
	kept       Fingerprint   // in store
	expected   []Fingerprint // one of them is the server's; none: it is not known yet
	remembered bool          // they are what the store had
}

// newGuard returns the guard for the server at, or nil if connections are plain.
func newGuard(ctx context.Context, o *Options, at ServerAt) (*guard, error) {
	g := &guard{address: at.Address, tls: o.TLS}
	g.host, _, _ = net.SplitHostPort(at.Address)
	g.store, _ = o.Known.(KnownKeys)
	if !at.Key.IsZero() {
		g.tls.Fingerprints = append(slices.Clone(g.tls.Fingerprints), at.Key)
	}
	asked, err := g.tls.asked()
	if err != nil {
		return nil, err
	}
	asked = asked || at.TLS
	if asked && g.tls.Mode == TLSOff {
		return nil, errors.New("TLS is off, and there are settings for it")
	}
	if g.store != nil {
		if g.kept, err = within(ctx, func() (Fingerprint, error) { return g.store.LoadKey(at.Address) }, nil); err != nil {
			return nil, fmt.Errorf("whether %s is known with TLS cannot be told: %w", at.Address, err)
		}
	}
	switch {
	case g.kept.IsZero() && !asked:
		return nil, nil
	case g.tls.Mode == TLSOff:
		return nil, fmt.Errorf("%s: %w", at.Address, ErrProtected)
	}
	switch {
	case len(g.tls.Fingerprints) > 0:
		g.expected = g.tls.Fingerprints
	case !g.kept.IsZero():
		g.expected, g.remembered = []Fingerprint{g.kept}, true
	}
	if keys, ok := o.Identity.(TLSKeyStore); ok && g.tls.Certificate == nil {
		g.own, err = within(ctx, func() (ed25519.PrivateKey, error) { return keys.TLSKey(ctx) }, nil)
		if err != nil {
			return nil, fmt.Errorf("the client's TLS key: %w", err)
		}
	}
	return g, nil
}

// asked reports whether the settings are about protected connections.
func (t *TLS) asked() (bool, error) {
	ways := 0
	for _, set := range []bool{len(t.Fingerprints) > 0, t.Roots != nil, t.Config != nil, t.TrustFirst} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		return false, errors.New("TLS takes one of a fingerprint, trust at first contact, authorities and a configuration")
	}
	return t.Mode == TLSOn || ways > 0 || t.Certificate != nil, nil
}

// byKey reports whether the server is known by its key, and not by its certificate.
func (g *guard) byKey() bool { return g.tls.Roots == nil && g.tls.Config == nil }

// mustMeet reports whether a first contact is due, because no key of the server is
// known yet.
func (g *guard) mustMeet() bool {
	if g == nil || !g.byKey() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.expected) == 0
}

// check returns nil if a server may have that key.
func (g *guard) check(key Fingerprint) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.Contains(g.expected, key) {
		return nil
	}
	return &KeyError{Server: g.address, Key: key, Expected: slices.Clone(g.expected), Remembered: g.remembered}
}

// trust decides about key, which the server has shown at the first contact, and keeps it.
func (g *guard) trust(ctx context.Context, key Fingerprint) error {
	if !g.tls.TrustFirst && g.tls.Ask == nil {
		return &KeyError{Server: g.address, Key: key}
	}
	if g.store == nil {
		return fmt.Errorf("%s: %w: Options.Known keeps no keys", g.address, ErrKeyNotKept)
	}
	if !g.tls.TrustFirst {
		_, err := within(ctx, func() (struct{}, error) { return struct{}{}, g.tls.Ask(ctx, g.address, key) }, nil)
		if err != nil {
			return &KeyError{Server: g.address, Key: key, Refused: err}
		}
	}
	if err := g.keep(ctx, key); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expected, g.remembered = []Fingerprint{key}, true
	return nil
}

// keep keeps the key of a server that has shown that it has it.
func (g *guard) keep(ctx context.Context, key Fingerprint) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.store == nil || key == g.kept {
		return nil
	}
	_, err := within(ctx, func() (struct{}, error) { return struct{}{}, g.store.SaveKey(g.address, key, g.kept) }, nil)
	if err != nil && !(errors.Is(err, infofile.ErrNotKept) && len(g.tls.Fingerprints) > 0) {
		return fmt.Errorf("%s: %w: %w", g.address, ErrKeyNotKept, err)
	}
	g.kept = key
	return nil
}
