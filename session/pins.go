package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/keys"
	"sealift/storage"
)

// A client can be pinned to a TLS key. From then on what comes under its id over
// another connection is refused: each operation of the registry says over which key
// it is asked for, and the registry looks at the pin in the same step. So it does not
// matter what a session learnt about a pin before. Connections that are open when a
// pin is set are found in an index by client, and end.

// tlsKey returns the TLS key that the client has shown, or nil. It aliases ch.
func (ch *Channel) tlsKey() []byte {
	if ch.Client.IsZero() {
		return nil
	}
	return ch.Client[:]
}

// pinField tells the log what a client is pinned to that registers over ch.
func (ch *Channel) pinField() zap.Field {
	if ch.Client.IsZero() {
		return zap.Skip()
	}
	return zap.Stringer("tls_key", ch.Client)
}

// by is on whose behalf the session asks the registry.
func (s *Session) by() storage.Actor { return storage.OverChannel(s.channel.tlsKey()) }

// own is the outcome of an operation that a session asks for on the server's behalf.
var own = storage.Outcome{By: storage.Server}

// pinnedError is storage.ErrPinned, and says what the connection lacks.
type pinnedError string

const (
	errPlain    = pinnedError("pinned, and the connection is plain")
	errNoTLSKey = pinnedError("pinned, and the connection shows no TLS key")
	errOtherKey = pinnedError("pinned to another TLS key")
)

func (e pinnedError) Error() string { return string(e) }

// Unwrap makes it a storage.ErrPinned.
func (pinnedError) Unwrap() error { return storage.ErrPinned }

// errPinned is why the session cannot act for a client that is pinned.
func (s *Session) errPinned() error {
	switch {
	case !s.channel.TLS:
		return errPlain
	case s.channel.Client.IsZero():
		return errNoTLSKey
	}
	return errOtherKey
}

// facts are a set of what is known of a connection's client. Service.Recheck changes it on
// another goroutine. The zero value is empty.
type facts struct{ bits atomic.Uint32 }

type fact uint32

const (
	// ownQuota: the client has a quota of its own. After a 1026 that is known once a file
	// was refused by it.
	ownQuota fact = 1 << iota
	// keyOwner: the client was pinned to the connection's TLS key when somebody looked last.
	keyOwner
)

func (f *facts) has(x fact) bool { return fact(f.bits.Load())&x != 0 }

func (f *facts) set(x fact, to bool) {
	if to {
		f.bits.Or(uint32(x))
	} else {
		f.bits.And(^uint32(x))
	}
}

// owns reports whether c is pinned to the TLS key of the connection.
func (s *Session) owns(c *storage.Client) bool {
	return c.TLSKey != nil && bytes.Equal(c.TLSKey, s.channel.tlsKey())
}

// errOtherName refuses a client that has a certificate for another user name.
var errOtherName = &offence{ReasonOtherName, "the certificate is for another user name"}

// permits returns errOtherName unless a client of that user name may use the connection.
func (ch *Channel) permits(name string) error {
	if ch.Name != "" && ch.Name != name {
		return errOtherName
	}
	return nil
}

// errGone is storage.ErrNoClient about the client of a bound connection.
var errGone = fmt.Errorf("%w: it was deleted", storage.ErrNoClient)

// misfit returns why the session may not go on for a client of which c is on record, or
// nothing if c is nil. It returns nil if it may.
func (s *Session) misfit(c *storage.Client) error {
	switch {
	case c == nil:
		return errGone
	case !s.by().May(c.TLSKey):
		return s.errPinned()
	case c.Disabled:
		return storage.ErrDisabled
	}
	return nil
}

// bound are the connections of each client: those that are bound to it, and those that
// are about to be. The zero value is ready.
type bound struct {
	mu  sync.Mutex
	all map[codec.ClientID]*Session // the last that came. The others follow by next.
	now moment
}

// moment orders what is read of clients and the connections that are bound to them. It
// begins with 0, and goes on with each look at what is on record.
type moment uint32

// look begins a look at what is on record of clients. The moment is for oust: connections
// that are bound after it know more than what is read then.
func (b *bound) look() moment {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now++
	return b.now
}

// has reports whether s is among those of id, under mu.
func (b *bound) has(id codec.ClientID, s *Session) bool { return s.before != nil || b.all[id] == s }

// enter puts s among the connections of id, if it is not there.
func (b *bound) enter(id codec.ClientID, s *Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.has(id, s) {
		return
	}
	if b.all == nil {
		b.all = make(map[codec.ClientID]*Session)
	}
	if s.next = b.all[id]; s.next != nil {
		s.next.before = s
	}
	b.all[id] = s
}

// leave takes s out of the connections of id, if it is there.
func (b *bound) leave(id codec.ClientID, s *Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.has(id, s) {
		return
	}
	switch {
	case s.before != nil:
		s.before.next = s.next
	case s.next != nil:
		b.all[id] = s.next
	default:
		delete(b.all, id)
	}
	if s.next != nil {
		s.next.before = s.before
	}
	s.before, s.next, s.settled = nil, nil, 0
}

// settle notes that s is bound to its client, and not about to be any more.
func (b *bound) settle(s *Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.settled = b.now + 1
}

// ids returns the clients that have connections.
func (b *bound) ids() []codec.ClientID {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := make([]codec.ClientID, 0, len(b.all))
	for id := range b.all {
		ids = append(ids, id)
	}
	return ids
}

// oust ends the connections of id that may not go on for it, since c is what is on
// record of it. When it returns, none of them asks the registry for anything, or begins to
// move a file to its place. Any goroutine may call it.
func (b *bound) oust(id codec.ClientID, c *storage.Client) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := b.all[id]; s != nil; s = s.next {
		s.facts.set(ownQuota, c.Quota != storage.Quota{})
		s.facts.set(keyOwner, s.owns(c))
		s.oust(s.misfit(c))
	}
}

// oustGone is oust for a client that was not on record when somebody looked, at that
// moment or after it.
//
// A connection that was not bound by then may have registered the client since, is about
// to, or finds out by itself that there is none: it stays.
func (b *bound) oustGone(id codec.ClientID, seen moment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := b.all[id]; s != nil; s = s.next {
		if s.settled != 0 && s.settled <= seen {
			s.oust(s.misfit(nil))
		}
	}
}

// supersede ends all connections of id but that of s, which has just registered the id
// anew: they were about a client that is not on record any more.
func (b *bound) supersede(id codec.ClientID, by *Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := b.all[id]; s != nil; s = s.next {
		if s != by {
			s.oust(errGone)
		}
	}
}

// oust has the session end, unless reason is nil. Any goroutine may call it.
func (s *Session) oust(reason error) {
	if reason != nil && s.ousted.CompareAndSwap(nil, &reason) {
		s.host.Do(Compute, nil, func() { s.end(reason) })
	}
}

// end ends the connection, without a reply, as soon as no request is under way.
func (s *Session) end(reason error) {
	if s.leave == "" {
		s.leave = reason.Error()
	}
}

// Recheck reads again what is on record of the clients with open connections, and ends
// the connections that may not go on: another process may have pinned, disabled or
// deleted a client. Config.Registry must be set. Any goroutine may call it, but no
// session's.
func (svc *Service) Recheck(ctx context.Context) error {
	for ids := range slices.Chunk(svc.bound.ids(), recheckBatch) {
		seen := svc.bound.look()
		batch := make([]storage.Operation, len(ids))
		for i, id := range ids {
			batch[i] = &storage.GetClient{Outcome: own, ID: id}
		}
		if err := svc.Registry.Apply(ctx, batch); err != nil {
			return err
		}
		for _, op := range batch {
			switch get := op.(*storage.GetClient); {
			case get.Err == nil:
				svc.bound.oust(get.ID, &get.Client)
			case errors.Is(get.Err, storage.ErrNoClient):
				svc.bound.oustGone(get.ID, seen)
			}
		}
	}
	return nil
}

// recheckBatch is how many clients Recheck reads at a time, so that what sessions read
// comes between: some 2 ms.
const recheckBatch = 256

// bind is serve for a request that binds the connection to the client of id, if all
// goes well. The connection is among the client's from before f reads the pin: so
// whoever sets one finds it, or f sees the pin.
func (s *Session) bind(id codec.ClientID, f func(co *coroutine)) {
	s.svc.bound.enter(id, s)
	s.facts.set(keyOwner, false)
	s.serve(func(co *coroutine) {
		defer func() {
			if s.state == fresh || s.closed {
				s.svc.bound.leave(id, s)
			} else {
				s.svc.bound.settle(s)
			}
		}()
		f(co)
	})
}

// pinByClaim is pin for the client of id, whom nobody has read yet. The error is that
// of step, and nil for a client that is not there.
func (s *Session) pinByClaim(co *coroutine, id codec.ClientID) (step Step, err error) {
	if ch := s.channel; ch.Claim == nil || codec.ClientID(ch.Claim.ID) != id {
		return StepOther, nil
	}
	get := &storage.GetClient{Outcome: storage.Outcome{By: s.by()}, ID: id}
	err = co.apply(get)
	switch {
	case errors.Is(err, storage.ErrNoClient):
		return StepOther, nil
	case err == nil:
		err = s.pin(co, &get.Client)
	}
	return StepRegistry, err
}

// pin pins c to the TLS key of the connection, if c is free and its owner has shown
// himself: the certificate has a claim that the RSA key on record has signed. A claim
// that is wrong pins nothing, and the client is served as without one.
func (s *Session) pin(co *coroutine, c *storage.Client) error {
	ch := s.channel
	if c.TLSKey != nil || c.PublicKey == nil || ch.Client.IsZero() || ch.Claim == nil || codec.ClientID(ch.Claim.ID) != c.ID {
		return nil
	}
	about := []zap.Field{zap.String("remote", s.remote), zap.String("client", c.ID.String()), zap.String("name", c.Name),
		zap.Stringer("tls_key", ch.Client)}
	err := co.do(Compute, func(context.Context) error {
		pub, err := keys.ParsePublic(c.PublicKey)
		if err != nil {
			return fmt.Errorf("stored public key: %w", err)
		}
		return ch.Claim.Verify(pub, ch.Server, ch.Client)
	})
	if err != nil {
		s.log().Warn("client not pinned", append(about, zap.String("reason", err.Error()))...)
		return nil
	}
	if err := co.apply(&storage.PinClient{Outcome: storage.Outcome{By: s.by()}, ID: c.ID, TLSKey: ch.tlsKey()}); err != nil {
		return err
	}
	s.svc.bound.oust(c.ID, &storage.Client{TLSKey: ch.tlsKey(), Quota: c.Quota})
	s.log().Info("client pinned", about...)
	return nil
}
