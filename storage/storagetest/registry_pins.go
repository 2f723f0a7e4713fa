package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sealift/codec"
	"sealift/storage"
)

// over is the outcome of an operation that is asked for over a connection with the TLS
// key b; 0: with none.
func over(b byte) storage.Outcome {
	if b == 0 {
		return storage.Outcome{At: at(9)}
	}
	return storage.Outcome{At: at(9), By: storage.OverChannel(key(b, 32))}
}

// serverOwn is the outcome of an operation of the server's own.
func serverOwn() storage.Outcome { return storage.Outcome{At: at(9), By: storage.Server} }

func pin(o storage.Outcome, n int, b byte) *storage.PinClient {
	p := &storage.PinClient{Outcome: o, ID: clientID(n)}
	if b != 0 {
		p.TLSKey = key(b, 32)
	}
	return p
}

// wantPin checks what a client is pinned to, as GetClient and Clients say; 0: to no key.
func wantPin(t testing.TB, r storage.Registry, n int, b byte) {
	t.Helper()
	var want []byte
	if b != 0 {
		want = key(b, 32)
	}
	get := &storage.GetClient{Outcome: storage.Outcome{By: storage.Server}, ID: clientID(n)}
	apply(t, r, get)
	if got := get.Client.TLSKey; !reflect.DeepEqual(got, want) {
		t.Errorf("client %d is pinned to %x, want %x", n, got, want)
	}
	for _, c := range clients(t, r) {
		if c.ID == clientID(n) && !reflect.DeepEqual(c.TLSKey, want) {
			t.Errorf("client %d is listed as pinned to %x, want %x", n, c.TLSKey, want)
		}
	}
}

// A pin is set with the client, or later where there is none; only the server
// replaces one, or takes it away.
func testPinClient(t *testing.T, r storage.Registry) {
	born := addClient(1, "anna")
	born.TLSKey = key(1, 32)
	apply(t, r, born, addClient(2, "ben"))
	born.TLSKey[0] = 0xff // the registry has a copy
	wantPin(t, r, 1, 1)
	wantPin(t, r, 2, 0)
	steps := []struct {
		op   *storage.PinClient
		want error
		pin  byte // afterwards
	}{
		{pin(over(2), 2, 2), nil, 2},
		{pin(over(2), 2, 2), nil, 2},
		{pin(over(3), 2, 3), storage.ErrPinned, 2},
		{pin(over(0), 2, 3), storage.ErrPinned, 2},
		{pin(over(0), 2, 0), storage.ErrPinned, 2},
		{pin(serverOwn(), 2, 3), nil, 3},
		{pin(over(2), 2, 2), storage.ErrPinned, 3},
		{pin(serverOwn(), 2, 0), nil, 0},
		{pin(over(2), 2, 2), nil, 2},
	}
	for i, s := range steps {
		tryApply(t, r, s.op)
		if !errors.Is(s.op.Err, s.want) {
			t.Errorf("step %d: %v, want %v", i, s.op.Err, s.want)
		}
		wantPin(t, r, 2, s.pin)
	}
	unknown := pin(serverOwn(), 3, 1)
	tryApply(t, r, unknown)
	wantErr(t, unknown, storage.ErrNoClient)
	wantPin(t, r, 1, 1)
	get := &storage.GetClient{Outcome: over(1), ID: clientID(1)}
	apply(t, r, get)
	get.Client.TLSKey[0] = 0xff
	wantPin(t, r, 1, 1)
}

// asked are the operations that a client asks for, for client 1 with the unverified file
// a of key k1 and the partial file p of key k3.
func asked() map[string]func(o storage.Outcome) storage.Operation {
	id := clientID(1)
	return map[string]func(o storage.Outcome) storage.Operation{
		"GetClient": func(o storage.Outcome) storage.Operation { return &storage.GetClient{Outcome: o, ID: id} },
		"SetKeys": func(o storage.Outcome) storage.Operation {
			return &storage.SetKeys{Outcome: o, ID: id, Name: "anna", PublicKey: key(1, codec.PublicKeySize), AESKey: key(8, 32)}
		},
		"SetKeys to replace": func(o storage.Outcome) storage.Operation {
			return &storage.SetKeys{Outcome: o, ID: id, Name: "anna", PublicKey: key(2, codec.PublicKeySize), AESKey: key(8, 32), Replace: true}
		},
		"SetAESKey": func(o storage.Outcome) storage.Operation {
			return &storage.SetAESKey{Outcome: o, ID: id, AESKey: key(8, 32)}
		},
		"SetAESKey if": func(o storage.Outcome) storage.Operation {
			return &storage.SetAESKey{Outcome: o, ID: id, If: key(7, 32)}
		},
		"Seen":      func(o storage.Outcome) storage.Operation { return &storage.Seen{Outcome: o, ID: id} },
		"PinClient": func(o storage.Outcome) storage.Operation { return &storage.PinClient{Outcome: o, ID: id} },
		"PutFile": func(o storage.Outcome) storage.Operation {
			return &storage.PutFile{Outcome: o, File: upload(1, "b", "k2", 2)}
		},
		"PutFile again": func(o storage.Outcome) storage.Operation {
			return &storage.PutFile{Outcome: o, File: upload(1, "a", "k2", 2)}
		},
		"PutFile of a partial": func(o storage.Outcome) storage.Operation {
			return &storage.PutFile{Outcome: o, File: upload(1, "p", "k3", 9), Generation: 1}
		},
		"PutPartial": func(o storage.Outcome) storage.Operation {
			return &storage.PutPartial{Outcome: o, Partial: partial(1, "p", "k4", 4)}
		},
		"ContinueFile": func(o storage.Outcome) storage.Operation {
			return &storage.ContinueFile{Outcome: o, ID: id, Path: "p", Incoming: "k3", Changed: at(7)}
		},
		"DropPartial": func(o storage.Outcome) storage.Operation {
			return &storage.DropPartial{Outcome: o, ID: id, Path: "p", Incoming: "k3"}
		},
		"GetFile WithPartial": func(o storage.Outcome) storage.Operation {
			return &storage.GetFile{Outcome: o, ID: id, Path: "p", WithPartial: true}
		},
		"GetFile": func(o storage.Outcome) storage.Operation {
			return &storage.GetFile{Outcome: o, ID: id, Path: "a"}
		},
		"FindAlike": func(o storage.Outcome) storage.Operation {
			return &storage.FindAlike{Outcome: o, ID: id, Path: "A", Folds: strings.ToLower}
		},
		"VerifyFile": func(o storage.Outcome) storage.Operation {
			return &storage.VerifyFile{Outcome: o, ID: id, Path: "a", Incoming: "k1"}
		},
		"DropFile": func(o storage.Outcome) storage.Operation {
			return &storage.DropFile{Outcome: o, ID: id, Path: "a", Incoming: "k1"}
		},
	}
}

// shut is a way to keep a client out, for client 1.
type shut struct {
	by   storage.Operation
	undo storage.Operation
	want error
	no   map[string]storage.Outcome // what is refused with want
	yes  map[string]storage.Outcome // what is done
}

func pinned() shut {
	return shut{
		by: pin(serverOwn(), 1, 1), undo: pin(serverOwn(), 1, 0), want: storage.ErrPinned,
		no:  map[string]storage.Outcome{"another key": over(2), "no key": over(0)},
		yes: map[string]storage.Outcome{"the key": over(1), "the server": serverOwn()},
	}
}

func disabled() shut {
	disable := func(d bool) storage.Operation {
		return &storage.DisableClient{Outcome: serverOwn(), ID: clientID(1), Disabled: d}
	}
	return shut{
		by: disable(true), undo: disable(false), want: storage.ErrDisabled,
		no:  map[string]storage.Outcome{"a key": over(2), "no key": over(0)},
		yes: map[string]storage.Outcome{"the server": serverOwn()},
	}
}

// testShut runs the tests of all operations, each on a registry of its own.
func testShut(t *testing.T, open func(t *testing.T) storage.Registry, how func() shut) {
	for name, make := range asked() {
		t.Run(name, func(t *testing.T) {
			r := open(t)
			defer r.Close()
			testShutOperation(t, r, make, how())
		})
	}
}

// An operation for a client that is kept out is refused, and changes nothing, LastSeen
// included. What may act, the server, and everybody once the client is let in again are
// served.
func testShutOperation(t *testing.T, r storage.Registry, make func(o storage.Outcome) storage.Operation, s shut) {
	apply(t, r, addClient(1, "anna"),
		&storage.SetKeys{ID: clientID(1), Name: "anna", PublicKey: key(1, codec.PublicKeySize), AESKey: key(7, 32)},
		&storage.PutFile{File: upload(1, "a", "k1", 1)}, &storage.PutPartial{Partial: partial(1, "p", "k3", 3)}, s.by)
	state := func() string {
		return fmt.Sprintf("%+v\n%+v\n%+v", clients(t, r), files(t, r), partials(t, r))
	}
	before := state()
	for what, o := range s.no {
		op := make(o)
		tryApply(t, r, op)
		if err := op.Result().Err; err != s.want {
			t.Errorf("with %s: %v, want %v", what, err, s.want)
		}
		if got := state(); got != before {
			t.Errorf("with %s it changed something:\n%s\nwas\n%s", what, got, before)
		}
		switch op := op.(type) {
		case *storage.GetClient:
			if op.Client.ID != (codec.ClientID{}) {
				t.Errorf("with %s it told %+v", what, op.Client)
			}
		case *storage.GetFile:
			if op.Verified != nil || op.Unverified != nil || op.Partial != nil {
				t.Errorf("with %s it told of a file", what)
			}
		case *storage.FindAlike:
			if op.Found != "" {
				t.Errorf("with %s it told of a file", what)
			}
		case *storage.PutFile:
			if op.Replaced != nil || op.Partial != nil {
				t.Errorf("with %s it gave a file away", what)
			}
		case *storage.PutPartial:
			if op.Replaced != nil {
				t.Errorf("with %s it gave a file away", what)
			}
		case *storage.ContinueFile:
			if op.Partial != (storage.Partial{}) {
				t.Errorf("with %s it told of a file", what)
			}
		}
	}
	// Nor in a batch in which the client is shut out first.
	apply(t, r, s.undo)
	free, refused := make(over(0)), make(over(0))
	tryApply(t, r, free)
	wantErr(t, free, nil)

	for what, o := range s.yes {
		t.Run(what, func(t *testing.T) {
			batch := []storage.Operation{
				&storage.SetKeys{Outcome: serverOwn(), ID: clientID(1), Name: "anna", PublicKey: key(1, codec.PublicKeySize), AESKey: key(7, 32), Replace: true},
				&storage.PutFile{Outcome: serverOwn(), File: upload(1, "a", "k1", 1)},
				&storage.PutFile{Outcome: serverOwn(), File: upload(1, "p", "k0", 1)}, // no partial file is left
				&storage.PutPartial{Outcome: serverOwn(), Partial: partial(1, "p", "k3", 3)}, s.by,
				refused, make(o),
			}
			tryApply(t, r, batch...)
			wantErr(t, refused, s.want)
			wantErr(t, batch[len(batch)-1], nil)
		})
	}
}

// What a pinned client does, and what is done without the key, on many goroutines at
// once: after the pin nothing without the key is done any more.
func testPinFromManySides(t *testing.T, r storage.Registry) {
	const sides, turns = 6, 60
	for n := range sides {
		apply(t, r, addClient(n, fmt.Sprint("client ", n)))
	}
	var wg sync.WaitGroup
	for n := range sides {
		var isPinned atomic.Bool
		wg.Go(func() {
			for i := range turns {
				sure := isPinned.Load()
				op := &storage.SetAESKey{Outcome: over(0), ID: clientID(n), AESKey: key(byte(i), 32)}
				if err := r.Apply(context.Background(), []storage.Operation{op}); err != nil {
					t.Error(err)
				}
				if sure && op.Err != storage.ErrPinned {
					t.Errorf("client %d: %v after the pin, want ErrPinned", n, op.Err)
				}
			}
		})
		wg.Go(func() {
			batch := []storage.Operation{pin(over(1), n, 1), pin(over(2), n, 2)}
			if err := r.Apply(context.Background(), batch); err != nil || batch[0].Result().Err != nil || batch[1].Result().Err != storage.ErrPinned {
				t.Errorf("client %d: %v, %v, %v", n, err, batch[0].Result().Err, batch[1].Result().Err)
			}
			isPinned.Store(true)
			mine := key(0xee, 32)
			set := &storage.SetAESKey{Outcome: over(1), ID: clientID(n), AESKey: mine}
			if err := r.Apply(context.Background(), []storage.Operation{set}); err != nil || set.Err != nil {
				t.Errorf("client %d: %v, %v", n, err, set.Err)
			}
		})
	}
	wg.Wait()
	for n := range sides {
		get := &storage.GetClient{Outcome: over(1), ID: clientID(n)}
		apply(t, r, get)
		if !bytes.Equal(get.Client.AESKey, key(0xee, 32)) {
			t.Errorf("client %d: the AES key of the pinned connection was replaced", n)
		}
	}
}

// TestShared runs the tests of a Registry that other processes may change. open returns
// two on one store; the tests close them.
func TestShared(t *testing.T, open func(t *testing.T) (a, b storage.Registry)) {
	a, b := open(t)
	defer a.Close()
	defer b.Close()
	changed := func(what string, want bool) {
		t.Helper()
		got, err := a.(storage.Shared).Changed(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: changed is %v, want %v", what, got, want)
		}
	}
	apply(t, b, addClient(1, "anna"))
	changed("before the first look", true)
	changed("after it", false)
	apply(t, a, addClient(2, "ben"), pin(over(1), 2, 1))
	wantPin(t, a, 2, 1)
	changed("by itself", false)
	wantPin(t, b, 2, 1)
	refused := pin(over(2), 2, 2)
	tryApply(t, b, refused)
	wantErr(t, refused, storage.ErrPinned)
	_, _ = a.(storage.Shared).Changed(t.Context()) // a batch that changed nothing may count or not
	for i := range 3 {
		apply(t, b, pin(serverOwn(), 1, byte(3+i)))
		changed("by the other", true)
		wantPin(t, a, 1, byte(3+i))
		changed("after that", false)
	}
	apply(t, b, pin(serverOwn(), 1, 7))
	apply(t, a, addClient(3, "carl"))
	changed("by the other, and then by itself", true)
	changed("after both", false)
}
