package server

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"sealift/storage"
)

// warnOfPinned warns of clients that are pinned to a TLS key and cannot be served as o
// says, or refuse the server because its key is new. It looks at all clients, and only
// where one of that may be so.
func (s *Server) warnOfPinned(ctx context.Context) error {
	message := ""
	switch {
	case s.tls == nil:
		message = "--tls off serves no client that is pinned to a TLS key"
	case s.tls.o.Clients != clientsPin:
		message = "--tls-clients asks for no key, and serves no client that is pinned to one"
	case s.tls.made:
		message = "clients that remember another TLS key refuse the one that was made"
	default:
		return nil
	}
	pinned := 0
	err := s.registry.Clients(ctx, func(c storage.Client) error {
		if c.TLSKey != nil {
			pinned++
		}
		return nil
	})
	if pinned > 0 {
		s.o.Log.Warn(message, zap.Int("pinned", pinned))
	}
	if errors.Is(err, storage.ErrBadRows) {
		err = nil // recovery tells of them
	}
	return err
}
