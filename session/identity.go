package session

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/keys"
	"sealift/storage"
)

// register answers a 1025: a new client under a name that is free.
func (s *Session) register(payload []byte) {
	m, err := codec.ParseRegister(payload)
	if err != nil {
		s.protocolError(err)
		return
	}
	if s.draining {
		s.refuse(request(codec.CodeRegister), errGoingDown)
		return
	}
	if !s.svc.rate.allow(s.remote, s.last) {
		s.refuse(request(codec.CodeRegister), errRegisterRate)
		return
	}
	op := s.addClient(newID(), string(m.Name))
	if err := s.channel.permits(op.Name); err != nil {
		s.refuse(request(codec.CodeRegister), err)
		return
	}
	s.bind(op.ID, func(co *coroutine) {
		switch err := co.apply(op); {
		case err == nil:
			s.state, s.id, s.name = named, op.ID, op.Name
			s.svc.counts.registered.Add(1)
			s.log().Info("registered", s.fields(s.channel.pinField())...)
			s.send(codec.IDReply{Code: codec.CodeRegistered, ID: op.ID}.Append(nil))
		case errors.Is(err, storage.ErrNameTaken), errors.Is(err, storage.ErrNotAdded):
			s.svc.counts.notRegistered.Add(1)
			reason, _ := reasonOf(err)
			if left, ok := s.logs(zap.InfoLevel, reason, 1); ok {
				s.log().Info("registration failed", s.fields(zap.String("name", op.Name), zap.String("reason", err.Error()), left)...)
			}
			s.send(codec.EmptyReply{Code: codec.CodeRegisterFailed}.Append(nil))
		default:
			s.fail(request(codec.CodeRegister), StepRegistry, err)
		}
	})
}

var (
	errRegisterRate = &offence{ReasonRegisterRate, "too many registrations from the address"}
	errBeginsTLS    = &offence{ReasonClientID, "the client id looks like the first bytes of TLS"}
	errOthersFiles  = &offence{ReasonClientID, "there are files of another client under the id"}
)

// addClient is the operation that registers a client over the connection.
func (s *Session) addClient(id codec.ClientID, name string) *storage.AddClient {
	return &storage.AddClient{
		Outcome: s.outcome(), ID: id, Name: name, TLSKey: s.channel.tlsKey(), OnlyAdded: s.svc.limits.Load().Closed,
	}
}

// join binds the connection to a client that showed who it is, with a fresh AES key
// for what it sends from now on.
func (s *Session) join(id codec.ClientID, name string, key *aesKey) {
	s.state, s.id, s.name = ready, id, name
	s.key, s.guarded = *key, false
	s.uploads.refused.clear(s.host)
	s.uploads.dropTentative(func(*upload) bool { return true })
}

// wrapping is a fresh AES key, and the same under a client's public key.
type wrapping struct {
	key     aesKey
	wrapped [keys.WrappedKeySize]byte
}

// wrap makes a fresh AES key for the owner of publicKey, on a worker.
func (co *coroutine) wrap(publicKey []byte) (*wrapping, error) {
	w := new(wrapping)
	return w, co.do(Compute, func(context.Context) error {
		pub, err := keys.ParsePublic(publicKey)
		if err != nil {
			return err
		}
		if w.key, err = keys.NewAESKey(); err != nil {
			return err
		}
		w.wrapped, err = keys.Wrap(pub, &w.key)
		return err
	})
}

// exchange answers a 1026: it records the public key and sends an AES key.
func (s *Session) exchange(id codec.ClientID, payload []byte) {
	m, err := codec.ParsePublicKey(payload)
	if err != nil {
		s.protocolError(err)
		return
	}
	name, publicKey := string(m.Name), append([]byte(nil), m.Key...)
	about := request(codec.CodePublicKey).of(id)
	if err := s.channel.permits(name); err != nil {
		s.refuse(about, err)
		return
	}
	s.bind(id, func(co *coroutine) {
		if step, err := s.pinByClaim(co, id); err != nil {
			s.refuseOrFail(about, step, err)
			return
		}
		w, err := co.wrap(publicKey)
		if err != nil {
			s.refuse(about, &offence{ReasonPublicKey, "public key: " + err.Error()})
			return
		}
		op := &storage.SetKeys{
			Outcome: s.outcome(), ID: id, Name: name, PublicKey: publicKey, AESKey: w.key[:],
			Replace: s.svc.limits.Load().KeyPolicy == ReplaceKey,
		}
		step, err := StepRegistry, co.apply(op)
		// Some clients take a 1606 as an offer of its id and do not register.
		if errors.Is(err, storage.ErrNoClient) && s.state == fresh && s.rejected != nil && !id.IsZero() && id == *s.rejected {
			step, err = s.adopt(co, op)
		}
		if err != nil {
			s.refuseOrFail(about, step, err)
			return
		}
		s.join(id, name, &w.key)
		s.log().Debug("key exchanged", s.fields()...)
		s.send(codec.KeyReply{Code: codec.CodeAESKey, ID: id, WrappedKey: w.wrapped[:]}.Append(nil))
	})
}

// refuseOrFail answers 1607 for err, whosever doing it is; step is the server's that
// failed.
func (s *Session) refuseOrFail(about subject, step Step, err error) {
	if clientsDoing(err) {
		s.refuse(about, err)
	} else {
		s.fail(about, step, err)
	}
}

// adopt registers the client of op under the id that a 1606 on this connection
// carried, and then does op. Connections of a client that had the id, and was deleted
// a moment ago, end. The id may be any that another server has
// given out, but for those that would have the client's next connection taken for one
// over TLS. An id that has stored files was another client's,
// whose record is gone: it travelled in the clear, and gives nobody those files.
// The error is that of step.
func (s *Session) adopt(co *coroutine, op *storage.SetKeys) (step Step, err error) {
	if beginsTLS(op.ID) {
		return StepOther, errBeginsTLS
	}
	if !s.svc.rate.allow(s.remote, s.last) {
		return StepOther, errRegisterRate
	}
	taken := false
	err = co.do(Storage, func(ctx context.Context) (err error) {
		taken, err = s.svc.Files.Has(ctx, op.ID)
		return err
	})
	if err == nil && taken {
		err = errOthersFiles
	}
	if err != nil {
		return StepStorage, err
	}
	// Another connection may have registered the id since op found that there is none.
	seen := s.svc.bound.look()
	get := &storage.GetClient{Outcome: storage.Outcome{By: s.by()}, ID: op.ID}
	switch err := co.apply(get); {
	case err == nil:
		return StepRegistry, storage.ErrIDTaken
	case !errors.Is(get.Err, storage.ErrNoClient): // or else the session itself is ousted
		return StepRegistry, err
	}
	s.svc.bound.oustGone(op.ID, seen)
	if err := co.apply(s.addClient(op.ID, op.Name)); err != nil {
		return StepRegistry, err
	}
	s.svc.bound.supersede(op.ID, s)
	s.svc.counts.registered.Add(1)
	s.log().Info("registered under a rejected id", s.fields(zap.String("client", op.ID.String()), zap.String("name", op.Name), s.channel.pinField())...)
	op.Outcome = s.outcome()
	return StepRegistry, co.apply(op)
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
	about := request(codec.CodeReconnect).of(id)
	if err := s.channel.permits(name); err != nil {
		s.refuse(about, err)
		return
	}
	s.bind(id, func(co *coroutine) {
		get := &storage.GetClient{Outcome: storage.Outcome{By: s.by()}, ID: id}
		err := co.apply(get)
		if reason := rejection(&get.Client, name, err); reason != nil {
			s.reject(id, name, reason)
			return
		}
		if err == nil {
			err = s.pin(co, &get.Client)
		}
		if err != nil {
			s.refuseOrFail(about, StepRegistry, err)
			return
		}
		w, err := co.wrap(get.Client.PublicKey)
		if err != nil {
			s.fail(about, StepStoredKey, err)
			return
		}
		if err := co.apply(&storage.SetAESKey{Outcome: s.outcome(), ID: id, AESKey: w.key[:]}); err != nil {
			s.refuseOrFail(about, StepRegistry, err)
			return
		}
		s.facts.set(ownQuota, get.Client.Quota != storage.Quota{})
		s.join(id, name, &w.key)
		s.svc.counts.rejoined.Add(1)
		s.log().Info("reconnected", s.fields()...)
		s.send(codec.KeyReply{Code: codec.CodeReconnected, ID: id, WrappedKey: w.wrapped[:]}.Append(nil))
	})
}

// rejection is why a client of that name cannot rejoin, if it cannot: c, or err, is
// what the registry has about it.
func rejection(c *storage.Client, name string, err error) error {
	switch {
	case errors.Is(err, storage.ErrNoClient):
		return err
	case err != nil:
		return nil
	case c.Name != name:
		return storage.ErrWrongName
	case c.PublicKey == nil:
		return errNoPublicKey
	}
	return nil
}

var errNoPublicKey = &offence{ReasonPublicKey, "no public key on record"}

// reject sends a 1606, after which the client registers anew.
func (s *Session) reject(id codec.ClientID, name string, why error) {
	s.svc.counts.rejected.Add(1)
	reason, _ := reasonOf(why)
	if left, ok := s.logs(zap.InfoLevel, reason, 1); ok {
		s.log().Info("reconnect rejected", zap.String("remote", s.remote), zap.String("client", id.String()),
			zap.String("name", name), zap.String("reason", why.Error()), left)
	}
	s.uploads.abandon() // or it would go on under the next id of the connection
	s.leaveResumption()
	s.state, s.id, s.name, s.rejected = fresh, codec.ClientID{}, "", &id
	s.send(codec.IDReply{Code: codec.CodeReconnectRejected, ID: id}.Append(nil))
}

// recall binds a connection to a client that goes on where its last connection
// dropped, and has the request done again in the new state.
func (s *Session) recall(h codec.RequestHeader, payload []byte, content uint32) {
	if f, _ := codec.ParseSendFile(payload); h.Code == codec.CodeSendFile &&
		s.uploads.refused.passOver(s.host, h.ID, f) {
		return
	}
	m := &message{h, append([]byte(nil), payload...), content, s.begins}
	id := h.ID
	s.svc.resumed.enter(id) // before the key is read: it may be forgotten meanwhile
	s.resumedAs = &id
	s.bind(id, func(co *coroutine) {
		get := &storage.GetClient{Outcome: storage.Outcome{By: s.by()}, ID: id}
		err := co.apply(get)
		if err == nil {
			err = s.channel.permits(get.Client.Name)
		}
		if err == nil && len(get.Client.AESKey) != len(s.key) {
			err = errNoKey
		}
		if err == nil {
			err = s.pin(co, &get.Client)
		}
		switch {
		case s.closed:
		case err == nil:
			s.resume(co, m, &get.Client)
		default:
			s.leaveResumption()
			s.refuseOrFail(s.about(m.header, m.payload), StepRegistry, err)
		}
	})
}

var errNoKey = &offence{ReasonNoKey, "no AES key on record"}

// resume binds the connection to c, unless somebody has shown that he does not
// have its AES key.
func (s *Session) resume(co *coroutine, m *message, c *storage.Client) {
	key := aesKey(c.AESKey)
	if s.svc.resumed.isSpoilt(c.ID, key) {
		s.svc.resumed.forget(co, c.ID, key)
		s.leaveResumption()
		if !s.closed {
			s.refuse(s.about(m.header, m.payload), errNoKey)
		}
		return
	}
	s.state, s.id, s.name = ready, c.ID, c.Name
	s.key, s.guarded = key, true
	s.facts.set(ownQuota, c.Quota != storage.Quota{})
	s.svc.counts.resumed.Add(1)
	s.log().Info("resumed", s.fields(zap.Uint16("code", uint16(m.header.Code)))...)
	s.pending = m
}
