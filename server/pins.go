package server

import (
	"context"
	"time"

	"go.uber.org/zap"

	"sealift/crypto/tlskey"
	"sealift/storage"
)

// Pin pins a client to the TLS key with that fingerprint, as SHA256:…, in the place of
// the one that it was pinned to, and returns it. The server may run: it notices within a
// second, and ends connections of the client that do not have the key.
func Pin(ctx context.Context, at Stores, who Who, fingerprint string) (Client, error) {
	key, err := tlskey.ParseFingerprint(fingerprint)
	if err != nil {
		return Client{}, err
	}
	return setPin(ctx, at, who, key[:])
}

// Unpin releases a client, and returns it: it is served again over any connection. The
// server may run.
func Unpin(ctx context.Context, at Stores, who Who) (Client, error) {
	return setPin(ctx, at, who, nil)
}

func setPin(ctx context.Context, at Stores, who Who, key []byte) (c Client, err error) {
	err = steer(ctx, at, func(reg storage.Registry) (err error) {
		if c, err = findClient(ctx, reg, who); err != nil {
			return err
		}
		return applyOwn(ctx, reg, &storage.PinClient{ID: c.ID, TLSKey: key})
	})
	return c, err
}

// TLSKey returns the fingerprint of the TLS key that a client is pinned to, "" if it
// is pinned to none.
func TLSKey(c Client) string {
	if len(c.TLSKey) != len(tlskey.Fingerprint{}) {
		return ""
	}
	return tlskey.Fingerprint(c.TLSKey).String()
}

// watchEvery is how often the server looks whether another process has changed the
// registry.
const watchEvery = 500 * time.Millisecond

// watch does what changes of the registry by another process ask for, until ctx ends: it
// ends connections that do not fit a pin, and those of clients that are disabled or
// deleted, and has files removed that are taken or deleted, partial ones too.
func (s *Server) watch(ctx context.Context) {
	shared, ok := s.registry.(storage.Shared)
	if !ok {
		return
	}
	var announced <-chan struct{}
	if a, ok := s.registry.(storage.Announcer); ok {
		announced = a.Steered()
	}
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	failed, due := false, false // due: a change was seen, and not looked at
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-announced:
		}
		changed, err := shared.Changed(ctx)
		if due = due || changed; due && err == nil {
			s.lookForLeaving()
			s.events.Wake()
			s.partials.look()
			if err = s.service.Recheck(ctx); err == nil {
				due = false
			}
		}
		if err != nil && !failed && ctx.Err() == nil { // once, until it goes well again
			s.o.Log.Error("looking for what other processes have changed failed", zap.Error(err))
		}
		failed = err != nil
	}
}
