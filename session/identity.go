package session

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/keys"
)

// register answers a 1025: a new client under a name that is free.
func (s *Session) register(payload []byte) {
	m, err := codec.ParseRegister(payload)
	if err != nil {
		s.protocolError(err)
		return
	}
	if s.draining {
		s.refuse(codec.CodeRegister, "the server is going down")
		return
	}
	if !s.svc.rate.allow(s.remote, s.last) {
		s.refuse(codec.CodeRegister, tooManyRegistrations)
		return
	}
	op := &AddClient{Outcome: s.outcome(), ID: newID(), Name: string(m.Name)}
	s.ask(op, func(err error) {
		switch {
		case err == nil:
			s.bind(named, op.ID, op.Name)
			s.log().Info("registered", s.fields()...)
			s.send(codec.IDReply{Code: codec.CodeRegistered, ID: op.ID}.Append(nil))
		case errors.Is(err, ErrNameTaken):
			s.log().Info("registration failed", s.fields(zap.String("name", op.Name), zap.String("reason", err.Error()))...)
			s.send(codec.EmptyReply{Code: codec.CodeRegisterFailed}.Append(nil))
		default:
			s.broke(codec.CodeRegister, "registry", err)
		}
	})
}

const tooManyRegistrations = "too many registrations from the address"

func (s *Session) bind(to state, id codec.ClientID, name string) {
	s.state, s.id, s.name = to, id, name
}

// rekey takes a fresh AES key for what the client sends from now on.
func (s *Session) rekey(key *aesKey) {
	s.key, s.guarded = *key, false
	s.refused.clear(s.host)
	s.dropTentative(func(*upload) bool { return true })
}

// wrapping is a fresh AES key, and the same under a client's public key.
type wrapping struct {
	key     aesKey
	wrapped [keys.WrappedKeySize]byte
	err     error
}

// wrap makes a fresh AES key for the owner of publicKey. It runs on a worker.
func (w *wrapping) wrap(publicKey []byte) {
	pub, err := keys.ParsePublic(publicKey)
	if err != nil {
		w.err = err
		return
	}
	if w.key, w.err = keys.NewAESKey(); w.err != nil {
		return
	}
	w.wrapped, w.err = keys.Wrap(pub, &w.key)
}

// exchange answers a 1026: it records the public key and sends an AES key.
func (s *Session) exchange(id codec.ClientID, payload []byte) {
	m, err := codec.ParsePublicKey(payload)
	if err != nil {
		s.protocolError(err)
		return
	}
	name, publicKey := string(m.Name), append([]byte(nil), m.Key...)
	w := &wrapping{err: errUnfinished}
	s.do(Compute, func(context.Context) { w.wrap(publicKey) }, func() {
		if w.err != nil {
			s.refuse(codec.CodePublicKey, "public key: "+w.err.Error())
			return
		}
		op := &SetKeys{
			Outcome: s.outcome(), ID: id, Name: name, PublicKey: publicKey, AESKey: w.key[:],
			Replace: s.svc.KeyPolicy == ReplaceKey,
		}
		s.ask(op, func(err error) {
			// Some clients take a 1606 as an offer of its id and do not register.
			if errors.Is(err, ErrNoClient) && s.state == fresh && !id.IsZero() && id == s.rejected {
				s.adopt(op, w)
				return
			}
			s.exchanged(op, w, err)
		})
	})
}

// adopt registers the client of op under the id that a 1606 on this connection
// carried, and then does op. An id that has stored files was another client's,
// whose record is gone: it travelled in the clear, and gives nobody those files.
func (s *Session) adopt(op *SetKeys, w *wrapping) {
	if !s.svc.rate.allow(s.remote, s.last) {
		s.refuse(codec.CodePublicKey, tooManyRegistrations)
		return
	}
	taken, err := false, errUnfinished
	s.do(Storage, func(ctx context.Context) { taken, err = s.svc.Files.Has(ctx, op.ID) }, func() {
		switch {
		case err != nil:
			s.broke(codec.CodePublicKey, "storage", err)
		case taken:
			s.refuse(codec.CodePublicKey, "there are files of another client under the id")
		default:
			s.addAdopted(op, w)
		}
	})
}

func (s *Session) addAdopted(op *SetKeys, w *wrapping) {
	add := &AddClient{Outcome: s.outcome(), ID: op.ID, Name: op.Name}
	s.ask(add, func(err error) {
		if err != nil {
			s.exchanged(op, w, err)
			return
		}
		s.log().Info("registered under a rejected id", s.fields(zap.String("client", op.ID.String()), zap.String("name", op.Name))...)
		op.Outcome = s.outcome()
		s.ask(op, func(err error) { s.exchanged(op, w, err) })
	})
}

func (s *Session) exchanged(op *SetKeys, w *wrapping, err error) {
	switch {
	case err == nil:
		s.bind(ready, op.ID, op.Name)
		s.rekey(&w.key)
		s.log().Debug("key exchanged", s.fields()...)
		s.send(codec.KeyReply{Code: codec.CodeAESKey, ID: op.ID, WrappedKey: w.wrapped[:]}.Append(nil))
	case isRefusal(err):
		s.refuse(codec.CodePublicKey, err.Error())
	default:
		s.broke(codec.CodePublicKey, "registry", err)
	}
}

// isRefusal tells a registry's no from its failure.
func isRefusal(err error) bool {
	for _, no := range []error{ErrNameTaken, ErrIDTaken, ErrNoClient, ErrWrongName, ErrKeyPinned, ErrNoFile} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// rejoin answers a 1027: a fresh AES key for a client whose public key is on
// record.
func (s *Session) rejoin(id codec.ClientID, payload []byte) {
	m, err := codec.ParseReconnect(payload)
	if err != nil {
		s.protocolError(err)
		return
	}
	name := string(m.Name)
	get := &GetClient{ID: id}
	s.ask(get, func(err error) {
		switch {
		case errors.Is(err, ErrNoClient):
			s.reject(id, name, err.Error())
			return
		case err != nil:
			s.broke(codec.CodeReconnect, "registry", err)
			return
		case get.Client.Name != name:
			s.reject(id, name, ErrWrongName.Error())
			return
		case get.Client.PublicKey == nil:
			s.reject(id, name, "no public key on record")
			return
		}
		s.rewrap(id, name, get.Client.PublicKey)
	})
}

// reject sends a 1606, after which the client registers anew.
func (s *Session) reject(id codec.ClientID, name, reason string) {
	s.log().Info("reconnect rejected", zap.String("remote", s.remote), zap.String("client", id.String()),
		zap.String("name", name), zap.String("reason", reason))
	s.abandon() // or it would go on under the next id of the connection
	s.leaveResumption()
	s.state, s.id, s.name, s.rejected = fresh, codec.ClientID{}, "", id
	s.send(codec.IDReply{Code: codec.CodeReconnectRejected, ID: id}.Append(nil))
}

func (s *Session) rewrap(id codec.ClientID, name string, publicKey []byte) {
	w := &wrapping{err: errUnfinished}
	s.do(Compute, func(context.Context) { w.wrap(publicKey) }, func() {
		if w.err != nil {
			s.broke(codec.CodeReconnect, "stored public key", w.err)
			return
		}
		s.ask(&SetAESKey{Outcome: s.outcome(), ID: id, AESKey: w.key[:]}, func(err error) {
			if err != nil {
				s.broke(codec.CodeReconnect, "registry", err)
				return
			}
			s.bind(ready, id, name)
			s.rekey(&w.key)
			s.log().Info("reconnected", s.fields()...)
			s.send(codec.KeyReply{Code: codec.CodeReconnected, ID: id, WrappedKey: w.wrapped[:]}.Append(nil))
		})
	})
}

// recall binds a connection to a client that goes on where its last connection
// dropped, and has the request done again in the new state.
func (s *Session) recall(h codec.RequestHeader, payload []byte, content uint32) {
	if f, _ := codec.ParseSendFile(payload); h.Code == codec.CodeSendFile &&
		s.refused.passOver(s.host, h.ID, f) {
		return
	}
	m := &message{h, append([]byte(nil), payload...), content, s.begins}
	id := h.ID
	s.svc.resumed.enter(id) // before the key is read: it may be forgotten meanwhile
	s.resumedAs = &id
	get := &GetClient{ID: id}
	s.ask(get, func(err error) {
		if s.closed {
			return
		}
		if err == nil && len(get.Client.AESKey) == len(s.key) {
			s.resume(m, &get.Client)
			return
		}
		s.leaveResumption()
		switch {
		case err == nil:
			s.turnAway(m.header, m.payload, errNoKey)
		case errors.Is(err, ErrNoClient):
			s.turnAway(m.header, m.payload, fault(err.Error()))
		default:
			s.turnAway(m.header, m.payload, fmt.Errorf("registry: %w", err))
		}
	})
}

const errNoKey = fault("no AES key on record")

// resume binds the connection to c, unless somebody has shown that he does not
// have its AES key.
func (s *Session) resume(m *message, c *Client) {
	key := aesKey(c.AESKey)
	if s.svc.resumed.isSpoilt(c.ID, key) {
		s.busy = true
		s.forget(c.ID, key, func() {
			s.busy = false
			s.leaveResumption()
			if !s.closed {
				s.turnAway(m.header, m.payload, errNoKey)
			}
		})
		return
	}
	s.bind(ready, c.ID, c.Name)
	s.key, s.guarded = key, true
	s.log().Info("resumed", s.fields(zap.Uint16("code", uint16(m.header.Code)))...)
	s.pending = m
}
