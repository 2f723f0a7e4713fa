package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"sealift/codec"
	"sealift/storage"
)

// ErrNoClient is a name or an id that no client on record has.
var ErrNoClient = storage.ErrNoClient

// Who says which client is meant: by the user name, byte by byte, or, where that is
// hard to type, by the id in 32 hex digits.
type Who struct{ Name, ID string }

func (w Who) String() string {
	if w.ID != "" {
		return w.ID
	}
	return fmt.Sprintf("%q", w.Name)
}

// parseID reads a client id in hex.
func parseID(s string) (codec.ClientID, error) {
	var id codec.ClientID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("client id %q: want 32 hex digits", s)
	}
	return codec.ClientID(b), nil
}

// Add lets a client of that name register where registration is closed. The server may
// run.
func Add(ctx context.Context, at Stores, name string) error {
	if err := codec.CheckName(name); err != nil {
		return err
	}
	return steer(ctx, at, func(reg storage.Registry) error {
		err := applyOwn(ctx, reg, &storage.AddName{Name: name})
		if errors.Is(err, storage.ErrNameTaken) {
			return &Hinted{
				Err:  fmt.Errorf("a client has registered as %q already", name),
				Hint: "To free the name, delete that client.",
			}
		}
		return err
	})
}

// Disable has the server refuse everything to a client, and returns it. The server may
// run: it ends the client's connections within a second.
func Disable(ctx context.Context, at Stores, who Who) (Client, error) {
	return setDisabled(ctx, at, who, true)
}

// Enable has the server serve a client again, and returns it. The server may run.
func Enable(ctx context.Context, at Stores, who Who) (Client, error) {
	return setDisabled(ctx, at, who, false)
}

func setDisabled(ctx context.Context, at Stores, who Who, disabled bool) (c Client, err error) {
	err = steer(ctx, at, func(reg storage.Registry) (err error) {
		c, err = setDisabledIn(ctx, reg, who, disabled)
		return err
	})
	return c, err
}

// setDisabledIn is setDisabled in a registry that is open.
func setDisabledIn(ctx context.Context, reg storage.Registry, who Who, disabled bool) (Client, error) {
	c, err := findClient(ctx, reg, who)
	if err != nil {
		return Client{}, err
	}
	return c, applyOwn(ctx, reg, &storage.DisableClient{ID: c.ID, Disabled: disabled})
}

// steer opens the records and has do change what a server goes by, which may be
// running.
func steer(ctx context.Context, at Stores, do func(storage.Registry) error) (err error) {
	reg, err := at.openToChange(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	return do(reg)
}

// applyOwn does op on the server's behalf.
func applyOwn(ctx context.Context, reg storage.Registry, op storage.Operation) error {
	op.Result().By = storage.Server
	if err := reg.Apply(ctx, []storage.Operation{op}); err != nil {
		return err
	}
	return op.Result().Err
}

// findClient returns the client that is meant. The error is hinted, and wraps ErrNoClient if there is none.
func findClient(ctx context.Context, reg storage.Registry, who Who) (Client, error) {
	found, err := findClients(ctx, reg, []Who{who})
	if err != nil {
		return Client{}, err
	}
	return found[0], nil
}

// findClients returns the clients that are meant, in their order.
func findClients(ctx context.Context, reg storage.Registry, whos []Who) ([]Client, error) {
	if len(whos) == 0 {
		return nil, nil
	}
	found, missing := make([]Client, len(whos)), len(whos)
	ids := make([]codec.ClientID, len(whos))
	for i, w := range whos {
		if w.ID == "" {
			continue
		}
		var err error
		if ids[i], err = parseID(w.ID); err != nil {
			return nil, err
		}
	}
	err := reg.Clients(ctx, func(c Client) error {
		for i, w := range whos {
			if w.ID == "" && c.Name == w.Name || w.ID != "" && c.ID == ids[i] {
				found[i] = c
				missing--
			}
		}
		if missing == 0 {
			return errFound
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFound) && !errors.Is(err, storage.ErrBadRows) {
		return nil, err
	}
	for i, w := range whos {
		if found[i].ID.IsZero() {
			return nil, &Hinted{Err: fmt.Errorf("%w: %v", ErrNoClient, w), Hint: "Names are compared byte by byte; sealiftd clients lists them, with their ids for --id."}
		}
	}
	return found, nil
}
