package conform

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"sealift/codec"
	"sealift/crypto/keys"
)

var errFromZero = errors.New("the server numbers packets from 0, and knows that by the first one only")

// badlyPadded makes the 1028 of a file of 100 bytes whose last byte says 17
// where PKCS#7 has 12.
func (p *probe) badlyPadded(id *identity, name string) ([]byte, error) {
	packet, err := p.one(id, name)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(id.key[:])
	if err != nil {
		return nil, err
	}
	const size = 112
	plain := append(content(100), make([]byte, size-100)...)
	for i := 100; i < size; i++ {
		plain[i] = 17
	}
	cipher.NewCBCEncrypter(block, make([]byte, aes.BlockSize)).CryptBlocks(plain, plain)
	return edited(packet, bodyAt, plain...), nil
}

var verdictRules = []Rule{
	{"mismatch", "4.6", "1030 gets no reply, and the file can be sent again", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		for range 3 {
			if err := l.upload(id, "mismatch"); err != nil {
				return err
			}
			if err := l.sendVerdict(codec.CodeCRCBad, id, "mismatch"); err != nil {
				return err
			}
		}
		return l.simple(id, "mismatch")
	}},
	{"abort", "4.7", "1031 gets 1604", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.upload(id, "abort"); err != nil {
			return prerequisite{err}
		}
		return l.verdict(codec.CodeAbort, id, "abort")
	}},
	{"abort-removes", "4.7", "what was aborted is gone: a 1029 for it gets 1607", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.upload(id, "abort"); err != nil {
			return prerequisite{err}
		}
		if err := l.verdict(codec.CodeAbort, id, "abort"); err != nil {
			return prerequisite{err}
		}
		l.close()
		if l, err = p.dial(); err != nil {
			return err
		}
		return l.refused("1029 checksum verified, of an aborted file", codec.Verdict{Code: codec.CodeCRCOK, FileName: []byte("abort")}.Append(nil, id.id))
	}},
	{"verified-again", "4.5", "a 1029 that comes again for a verified file gets 1604 again", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.simple(id, "verified"); err != nil {
			return prerequisite{err}
		}
		l.close()
		if l, err = p.dial(); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "verified")
	}},
	{"verified-unknown", "4.5", "a 1029 for a file that was never sent gets 1607, and the connection stays open", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.refused("1029 checksum verified, of no file", codec.Verdict{Code: codec.CodeCRCOK, FileName: []byte("never")}.Append(nil, id.id)); err != nil {
			return err
		}
		return l.works(id)
	}},
	{"stays-open", "5.5", "the connection stays open after a 1604", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.simple(id, "first"); err != nil {
			return prerequisite{err}
		}
		return l.simple(id, "second")
	}},
}

var orderRules = []Rule{
	{"order-no-key", "8", "a 1028 before the key exchange gets 1607, and the key exchange may follow", func(p *probe) error {
		l, id, err := p.registered()
		if err != nil {
			return err
		}
		packet, err := p.one(id, "early")
		if err != nil {
			return err
		}
		if err := l.refused("1028 send file, before any key", packet); err != nil {
			return err
		}
		if err := l.exchangeKey(id); err != nil {
			return err
		}
		return l.works(id)
	}},
	{"order-stranger", "8", "a 1028 under an id that nobody has gets 1607", func(p *probe) error {
		l, id, err := p.registered()
		if err != nil {
			return err
		}
		l.close()
		id.id[3] ^= 0xff
		packet, err := p.one(id, "stranger")
		if err != nil {
			return err
		}
		if l, err = p.dial(); err != nil {
			return err
		}
		return l.refused("1028 send file, an unknown id", packet)
	}},
	{"order-register-twice", "8", "a second registration on a connection gets 1607", func(p *probe) error {
		l, id, err := p.registered()
		if err != nil {
			return err
		}
		if err := l.refused("1025 register, again", registration(p.freshName())); err != nil {
			return err
		}
		return l.exchangeKey(id)
	}},
	{"order-other-id", "8", "a message under another client's id gets 1607 and changes nothing", func(p *probe) error {
		_, other, err := p.ready()
		if err != nil {
			return err
		}
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.upload(id, "mine"); err != nil {
			return prerequisite{err}
		}
		theirs, err := p.one(other, "other")
		if err != nil {
			return err
		}
		mixed := *id
		mixed.id = other.id
		ours, err := p.one(&mixed, "other")
		if err != nil {
			return err
		}
		pub, err := keys.MarshalPublic(&p.key.PublicKey)
		if err != nil {
			return err
		}
		for _, message := range []struct {
			what string
			b    []byte
		}{
			{"1028 send file, under its AES key", theirs},
			{"1028 send file, under our AES key", ours},
			{"1026 public key", publicKey(other, pub[:])},
			{"1029 checksum verified, of our file", codec.Verdict{Code: codec.CodeCRCOK, FileName: []byte("mine")}.Append(nil, other.id)},
		} {
			if err := l.refused(message.what+", with the other id", message.b); err != nil {
				return fmt.Errorf("%s: %w", message.what, err)
			}
		}
		return l.verdict(codec.CodeCRCOK, id, "mine")
	}},
}
