package storage

import "bytes"

// Actor is on whose behalf an operation is done: a client's, over a connection with a
// TLS key or without one, or the server's. The zero value is a client's connection
// without a TLS key, so an operation that names nobody is refused where the client is
// pinned.
type Actor struct {
	key    []byte
	server bool
}

// Server acts for the server itself, whatever a client is pinned to: recovery,
// maintenance, the operator, and the end of what a client was allowed to begin.
var Server = Actor{server: true}

// OverChannel acts for a client over a connection that has shown tlsKey, the
// fingerprint of a TLS key; nil: it has shown none. It keeps tlsKey.
func OverChannel(tlsKey []byte) Actor { return Actor{key: tlsKey} }

// Key returns the TLS key that the actor has shown, or nil.
func (a Actor) Key() []byte { return a.key }

// IsServer reports whether the actor is [Server].
func (a Actor) IsServer() bool { return a.server }

// Refused returns ErrPinned if the actor may not act for a client that is pinned to pin,
// ErrDisabled if it may not because the client is disabled, and nil if it may act.
func (a Actor) Refused(pin []byte, disabled bool) error {
	switch {
	case !a.May(pin):
		return ErrPinned
	case disabled && !a.server:
		return ErrDisabled
	}
	return nil
}

// May reports whether the actor may act for a client that is pinned to pin; nil: to
// no key.
func (a Actor) May(pin []byte) bool {
	return a.server || pin == nil || bytes.Equal(pin, a.key)
}
