package conform

import (
	"errors"

	"sealift/codec"
	"sealift/crypto/keys"
)

var reconnectRules = []Rule{
	{"reconnect", "5.6", "a reconnect gets 1605 with our id, and a file goes through under the new AES key", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		l.close()
		if l, err = p.dial(); err != nil {
			return err
		}
		if err := l.reconnect(id); err != nil {
			return err
		}
		return l.simple(id, "again")
	}},
	{"transfer-again", "4.5", "a file of a name that is stored may be sent again, with another content", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.simple(id, "twice"); err != nil {
			return prerequisite{err}
		}
		l.close()
		if l, err = p.dial(); err != nil {
			return err
		}
		if err := l.reconnect(id); err != nil {
			return prerequisite{err}
		}
		return l.transfer(id, p.dialect, p.packetSize, "twice", content(5000))
	}},
	{"key-fresh", "6.2", "every 1602 and 1605 has a new AES key", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		seen := map[[keys.AESKeySize]byte]bool{id.key: true}
		if err := l.exchangeKey(id); err != nil {
			return err
		}
		if seen[id.key] {
			return errors.New("a second 1026 got the same AES key")
		}
		seen[id.key] = true
		if l, err = p.dial(); err != nil {
			return prerequisite{err}
		}
		if err := l.reconnect(id); err != nil {
			return prerequisite{err}
		}
		if seen[id.key] {
			return errors.New("a reconnect got the same AES key")
		}
		return nil
	}},
	{"key-pinned", "4.2", "another public key for an id that has one gets 1607, and the first stays good", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		other, err := keys.MarshalPublic(&p.otherKey.PublicKey)
		if err != nil {
			return err
		}
		if err := l.refused("1026 public key, another one", publicKey(id, other[:])); err != nil {
			return err
		}
		if l, err = p.dial(); err != nil {
			return err
		}
		return l.reconnect(id)
	}},
	{"reconnect-unknown", "5.7", "an id that nobody has gets 1606 with that id, and a registration may follow", func(p *probe) error {
		_, id, err := p.ready()
		if err != nil {
			return err
		}
		id.id[3] ^= 0xff
		return p.rejected(id, "an unknown id")
	}},
	{"reconnect-name", "4.3", "a reconnect under another name gets 1606", func(p *probe) error {
		_, id, err := p.ready()
		if err != nil {
			return err
		}
		id.name += "x"
		return p.rejected(id, "another name")
	}},
	{"reconnect-no-key", "4.3", "a reconnect before any public key gets 1606", func(p *probe) error {
		l, id, err := p.registered()
		if err != nil {
			return err
		}
		l.close()
		return p.rejected(id, "no public key on record")
	}},
	{"resume-1029", "8", "a 1029 whose connection dropped is answered on a new one", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.upload(id, "resume"); err != nil {
			return prerequisite{err}
		}
		l.close()
		if l, err = p.dial(); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "resume")
	}},
	{"resume-1028", "8", "a 1028 on a new connection is under the last AES key", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		l.close()
		if l, err = p.dial(); err != nil {
			return err
		}
		return l.simple(id, "resume")
	}},
	{"cut-off", "9.2", "a file that was cut off in the middle of a packet can be sent again", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		packets, err := p.packets(id, 1024, "cut", content(3000))
		if err != nil {
			return prerequisite{err}
		}
		last := packets[len(packets)-1]
		packets[len(packets)-1] = last[:len(last)-7]
		if err := l.sendPackets(packets); err != nil {
			return prerequisite{err}
		}
		l.close()
		if l, err = p.dial(); err != nil {
			return err
		}
		if err := l.reconnect(id); err != nil {
			return prerequisite{err}
		}
		return l.transfer(id, p.dialect, p.packetSize, "cut", content(3000))
	}},
}

// rejected makes sure of a 1606 on a new connection.
func (p *probe) rejected(id *identity, why string) error {
	l, err := p.dial()
	if err != nil {
		return err
	}
	if err := l.send("1027 reconnect, "+why, codec.Reconnect{Name: []byte(id.name)}.Append(nil, id.id)); err != nil {
		return err
	}
	if err := l.expectID(codec.CodeReconnectRejected, id.id); err != nil {
		return err
	}
	_, err = l.register(p.freshName())
	return err
}
