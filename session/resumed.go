package session

import (
	"errors"
	"sync"

	"go.uber.org/zap"

	"sealift/codec"
	"sealift/crypto/keys"
	"sealift/storage"
	"sealift/transfer"
)

// A client whose connection dropped may send its last message again on a new one,
// under its id alone. Whoever overheard an id can do the same, and the answer to a
// 1028 tells whether its content decrypts: a padding oracle (Vaudenay, 2002).
// Therefore, on a connection that was bound by the id alone, a key is good for one
// failure. When content does not decrypt, the key is forgotten, also by the registry;
// then the client gets its 1607, and the connection ends. Until the next 1026 or 1027
// nobody can go on with that key under the id alone. Other connections that already
// do so end without an answer, whatever their content decrypts to.

// aesKey is an AES key that a client was sent.
type aesKey = [keys.AESKeySize]byte

// resumptions are the clients for which connections were bound by the id alone.
type resumptions struct {
	mu      sync.Mutex
	clients map[codec.ClientID]*resumption
}

type resumption struct {
	refs int // connections that are bound so, or about to be
	// spoilt has the keys that content did not decrypt with. true: the registry
	// may still have the key.
	spoilt map[aesKey]bool
}

// enter notes one more connection of the client. What is spoilt from now on is
// remembered until it leaves.
func (r *resumptions) enter(id codec.ClientID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.clients == nil {
		r.clients = make(map[codec.ClientID]*resumption)
	}
	if r.clients[id] == nil {
		r.clients[id] = new(resumption)
	}
	r.clients[id].refs++
}

func (r *resumptions) leave(id codec.ClientID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[id]
	c.refs--
	for _, recorded := range c.spoilt {
		if recorded {
			return
		}
	}
	if c.refs == 0 {
		delete(r.clients, id)
	}
}

// isSpoilt reports whether nobody may go on with the key under the id alone. The
// caller has entered.
func (r *resumptions) isSpoilt(id codec.ClientID, key aesKey) bool {
	return r.decrypted(id, key, true)
}

// decrypted notes whether content decrypted with the key, and reports whether the
// key was spoilt before. The caller has entered.
func (r *resumptions) decrypted(id codec.ClientID, key aesKey, ok bool) (spoilt bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[id]
	_, spoilt = c.spoilt[key]
	if !ok && !spoilt {
		if c.spoilt == nil {
			c.spoilt = make(map[aesKey]bool)
		}
		c.spoilt[key] = true
	}
	return spoilt
}

// forgotten notes that the registry has the key no more. The caller has entered.
func (r *resumptions) forgotten(id codec.ClientID, key aesKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clients[id].spoilt[key] = false
}

// forget has the registry forget a spoilt key. If it fails, the next connection
// that would go on with the key tries again.
func (r *resumptions) forget(co *coroutine, id codec.ClientID, key aesKey) {
	s := co.s
	r.enter(id)
	defer r.leave(id)
	err := co.apply(&storage.SetAESKey{Outcome: own, ID: id, If: key[:]})
	if err == nil || errors.Is(err, storage.ErrNoClient) {
		r.forgotten(id, key)
	} else {
		s.log().Error("forgetting an AES key failed", s.fields(zap.Error(err))...)
	}
}

// leaveResumption ends what recall began with enter.
func (s *Session) leaveResumption() {
	if s.resumedAs != nil {
		s.svc.resumed.leave(*s.resumedAs)
		s.resumedAs = nil
	}
}

// guard looks at the result of work on a transfer that began on a connection that
// was bound by the id alone. It returns true if the client may learn the result.
// Otherwise it has seen to what the client gets, and the session is about to end.
func (u *upload) guard(co *coroutine, err error) bool {
	s := u.s
	tells := errors.Is(err, transfer.ErrPadding) || errors.Is(err, transfer.ErrOrigSize) || errors.Is(err, transfer.ErrTooLarge)
	if s.svc.resumed.decrypted(*s.resumedAs, *u.guarded, !tells) {
		s.log().Warn("connection closed unanswered", s.fields(zap.String("reason", "its AES key was forgotten"))...)
		s.uploads.abandon()
		s.leave = "its AES key was forgotten"
		return false
	}
	if !tells { // whether the content decrypts
		return true
	}
	for _, other := range s.uploads.all {
		if other != u {
			other.drop()
		}
	}
	s.pending = nil
	s.forgetting = true
	s.svc.resumed.forget(co, *s.resumedAs, *u.guarded)
	s.forgetting = false
	if s.closed {
		return false
	}
	s.log().Warn("AES key forgotten", s.fields()...)
	s.uploads.told.forgetAll() // this 1607 is the last, and is sent however many came before
	u.end(u.transfer.Current(), err)
	s.leave = "content did not decrypt on a resumed connection"
	return false
}
