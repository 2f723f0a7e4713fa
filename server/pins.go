package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"sealift/crypto/tlskey"
	"sealift/storage"
)

// ErrNoClient is a name that no client on record has.
var ErrNoClient = storage.ErrNoClient

// Pin pins the client that has registered under name to the TLS key with that
// fingerprint, as SHA256:…, in the place of the one that it was pinned to. The server
// may run: it notices within a second, and ends connections of the client that do not
// have the key.
func Pin(ctx context.Context, dir, name, fingerprint string) error {
	key, err := tlskey.ParseFingerprint(fingerprint)
	if err != nil {
		return err
	}
	return setPin(ctx, dir, name, key[:])
}

// Unpin releases the client that has registered under name: it is served again over
// any connection. The server may run.
func Unpin(ctx context.Context, dir, name string) error { return setPin(ctx, dir, name, nil) }

func setPin(ctx context.Context, dir, name string, key []byte) (err error) {
	// A server of an older version, which may be running, knows no pins: so its
	// database is left alone.
	look, err := openReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	_ = look.Close()
	reg, err := openToChange(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	client, err := clientNamed(ctx, reg, name)
	if err != nil {
		return err
	}
	op := &storage.PinClient{Outcome: storage.Outcome{By: storage.Server}, ID: client.ID, TLSKey: key}
	if err := reg.Apply(ctx, []storage.Operation{op}); err != nil {
		return err
	}
	return op.Err
}

// clientNamed returns the client that has registered under name.
func clientNamed(ctx context.Context, reg storage.Registry, name string) (found Client, err error) {
	err = reg.Clients(ctx, func(c Client) error {
		if c.Name != name {
			return nil
		}
		found = c
		return errFound
	})
	switch {
	case errors.Is(err, errFound):
		return found, nil
	case err == nil || errors.Is(err, storage.ErrBadRows):
		return found, &Hinted{Err: fmt.Errorf("%w: %q", ErrNoClient, name), Hint: "Names are compared byte by byte; sealiftd clients lists them."}
	}
	return found, err
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

// watch ends connections that do not fit a pin which another process has set, until
// ctx ends.
func (s *Server) watch(ctx context.Context) {
	shared, ok := s.registry.(storage.Shared)
	if !ok {
		return
	}
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	failed, due := false, false // due: a change was seen, and not looked at
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, err := shared.Changed(ctx)
		if due = due || changed; due && err == nil {
			if err = s.service.Recheck(ctx); err == nil {
				due = false
			}
		}
		if err != nil && !failed && ctx.Err() == nil { // once, until it goes well again
			s.o.Log.Error("looking for pins set by other processes failed", zap.Error(err))
		}
		failed = err != nil
	}
}
