package conform

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"sealift/codec"
	"sealift/crypto/keys"
)

// Offsets in a request, in bytes.
const (
	versionAt = 16
	codeAt    = 17
	sizeAt    = 19
	payloadAt = codec.RequestHeaderSize
)

func registration(name string) []byte { return codec.Register{Name: []byte(name)}.Append(nil) }

// piecesApart is long enough for a server to read what has come so far: pieces
// that follow at once reach it as one.
const piecesApart = 50 * time.Millisecond

var headerRules = []Rule{
	{"any-pieces", "2", "a message may come one byte at a time", func(p *probe) error {
		l, err := p.dial()
		if err != nil {
			return err
		}
		what, message := l.numbered("1025 register, one byte at a time", registration(p.freshName()))
		l.note(">", what, message)
		for i := range message {
			if _, err := l.nc.Write(message[i : i+1]); err != nil {
				return err
			}
			if i == 0 || i == payloadAt-1 || i == payloadAt {
				time.Sleep(piecesApart)
			}
		}
		_, err = l.expect(codec.CodeRegistered)
		return p.failure(basicRegister, err)
	}},
	{"version", "8", "another Version gets 1607, and the connection stays open", func(p *probe) error {
		l, err := p.dial()
		if err != nil {
			return err
		}
		if err := l.refused("1025 register, version 2", edited(registration(p.freshName()), versionAt, 2)); err != nil {
			return err
		}
		_, err = l.register(p.freshName())
		return err
	}},
	{"unknown-code", "8", "an unknown code gets 1607, its payload is passed over, and the connection stays open", func(p *probe) error {
		l, err := p.dial()
		if err != nil {
			return err
		}
		if err := l.refused("1099, with a payload", edited(registration(p.freshName()), codeAt, 0x4b, 0x04)); err != nil {
			return err
		}
		_, err = l.register(p.freshName())
		return err
	}},
	{"wrong-size", "8", "a Payload Size that its code cannot have gets 1607, and the connection closes", func(p *probe) error {
		for _, size := range []uint32{254, 256, 1 << 31} {
			l, err := p.dial()
			if err != nil {
				return err
			}
			message := registration(p.freshName())[:payloadAt]
			binary.LittleEndian.PutUint32(message[sizeAt:], size)
			if err := l.refused(fmt.Sprintf("1025 register, Payload Size %d", size), message); err != nil {
				return err
			}
			if err := l.expectEnd(); err != nil {
				return err
			}
		}
		return nil
	}},
}

// sizeRules come last: they go through everything that has a reply.
var sizeRules = []Rule{
	{"payload-size", "3.3", "every reply's Payload Size is that of its code", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.simple(id, "sizes"); err != nil {
			return prerequisite{err}
		}
		again, err := p.dial()
		if err != nil {
			return prerequisite{err}
		}
		if err := again.send("1025 register, a name that is taken", registration(id.name)); err != nil {
			return prerequisite{err}
		}
		if _, err := again.read(); err != nil { // a 1601
			return prerequisite{err}
		}
		if again, err = p.dial(); err != nil {
			return prerequisite{err}
		}
		if err := again.reconnect(id); err != nil {
			return prerequisite{err}
		}
		stranger := *id
		stranger.id[0] ^= 0xff
		if again, err = p.dial(); err != nil {
			return prerequisite{err}
		}
		if err := again.send("1027 reconnect, an unknown id", codec.Reconnect{Name: []byte(id.name)}.Append(nil, stranger.id)); err != nil {
			return prerequisite{err}
		}
		if _, err := again.read(); err != nil && p.odd == nil { // a 1606
			return prerequisite{err}
		}
		return p.odd
	}},
}

var registerRules = []Rule{
	{"register", "5.1", "a registration gets 1600 with an id", func(p *probe) error {
		l, err := p.dial()
		if err != nil {
			return err
		}
		id, err := l.register(p.freshName())
		if err == nil && id.IsZero() {
			err = errors.New("the id is all zero, which stands for none")
		}
		return err
	}},
	{"register-uuid", "2", "an id is a UUID of version 4, and unique", func(p *probe) error {
		_, a, err := p.registered()
		if err != nil {
			return err
		}
		_, b, err := p.registered()
		if err != nil {
			return err
		}
		if a.id == b.id {
			return fmt.Errorf("two clients got the same id %v", a.id)
		}
		for _, id := range []codec.ClientID{a.id, b.id} {
			if id[6]>>4 != 4 || id[8]>>6 != 2 {
				return fmt.Errorf("%v is no UUID of version 4 (RFC 9562, 5.4)", id)
			}
		}
		return nil
	}},
	{"register-taken", "5.2", "a name that is taken gets 1601, and another may follow", func(p *probe) error {
		_, id, err := p.registered()
		if err != nil {
			return err
		}
		l, err := p.dial()
		if err != nil {
			return err
		}
		if err := l.send("1025 register, the same name", registration(id.name)); err != nil {
			return err
		}
		if _, err := l.expect(codec.CodeRegisterFailed); err != nil {
			return err
		}
		_, err = l.register(p.freshName())
		return err
	}},
	{"register-case", "2", "names that differ in case only are different", func(p *probe) error {
		_, id, err := p.registered()
		if err != nil {
			return err
		}
		l, err := p.dial()
		if err != nil {
			return err
		}
		_, err = l.register(strings.ToUpper(id.name))
		return err
	}},
	{"name-length", "2", "a user name may have 254 characters", func(p *probe) error {
		l, err := p.dial()
		if err != nil {
			return err
		}
		name := p.freshName()
		_, err = l.register(name + strings.Repeat("x", codec.MaxName-len(name)))
		return err
	}},
	{"name-leftovers", "2", "what follows the null of a name is ignored", func(p *probe) error {
		l, err := p.dial()
		if err != nil {
			return err
		}
		name := p.freshName()
		if err := l.send("1025 register, leftovers behind the null", edited(registration(name), payloadAt+len(name)+1, []byte("leftovers")...)); err != nil {
			return err
		}
		if _, err := l.expect(codec.CodeRegistered); err != nil {
			return p.failure(basicRegister, err)
		}
		if l, err = p.dial(); err != nil {
			return err
		}
		if err := l.send("1025 register, the same name without", registration(name)); err != nil {
			return err
		}
		_, err = l.expect(codec.CodeRegisterFailed)
		return err
	}},
	{"name-malformed", "2", "a name without a null, an empty one, and one with a line end or with what is no UTF-8 get 1607", func(p *probe) error {
		l, err := p.dial()
		if err != nil {
			return err
		}
		good := registration(p.freshName())
		for _, bad := range []struct {
			what string
			b    []byte
		}{
			{"without a null", edited(good, payloadAt, []byte(strings.Repeat("x", codec.NameSize))...)},
			{"empty", edited(good, payloadAt, 0)},
			{"with a line end", edited(good, payloadAt+3, '\n')},
			{"with a byte 0xe9", edited(good, payloadAt+3, 0xe9)},
		} {
			if err := l.refused("1025 register, a name "+bad.what, bad.b); err != nil {
				return fmt.Errorf("a name %s: %w", bad.what, err)
			}
		}
		return nil
	}},
}

// publicKey makes a 1026.
func publicKey(id *identity, der []byte) []byte {
	return codec.PublicKey{Name: []byte(id.name), Key: der}.Append(nil, id.id)
}

var keyRules = []Rule{
	{"key-exchange", "5.3", "a public key gets 1602 with our id and an AES key that opens with our private key", func(p *probe) error {
		l, id, err := p.registered()
		if err != nil {
			return err
		}
		return l.exchangeKey(id)
	}},
	{"key-malformed", "6.1", "a public key that is none gets 1607, and the right one may follow", func(p *probe) error {
		l, id, err := p.registered()
		if err != nil {
			return err
		}
		if err := l.refused("1026 public key, 160 bytes of rubbish", publicKey(id, content(codec.PublicKeySize))); err != nil {
			return err
		}
		return l.exchangeKey(id)
	}},
	{"key-stranger", "8", "a public key under an id that nobody has gets 1607", func(p *probe) error {
		l, id, err := p.registered()
		if err != nil {
			return err
		}
		l.close()
		if l, err = p.dial(); err != nil {
			return err
		}
		id.id[3] ^= 0xff
		pub, err := keys.MarshalPublic(&p.key.PublicKey)
		if err != nil {
			return err
		}
		return l.refused("1026 public key, an unknown id", publicKey(id, pub[:]))
	}},
}
