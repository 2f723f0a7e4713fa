package session

import (
	"sealift/crypto/tlskey"
)

// Channel is what protects a connection, and what its client has shown about itself.
// The zero value is a plain connection.
type Channel struct {
	TLS    bool
	Server tlskey.Fingerprint // of the certificate that the client was shown
	Client tlskey.Fingerprint // of the client's certificate; zero: it showed none
	Claim  *tlskey.Claim      // in that certificate; nil without one
	// Name, unless it is "", is the only user name that may register or reconnect:
	// the one in a certificate that an authority has signed.
	Name string
}

// plainChannel is that of all plain connections: sessions have a pointer, because most
// connections are idle, and many may be.
var plainChannel Channel

// Protect tells the session what protects its connection. The host calls it before
// the first Feed, if at all.
func (s *Session) Protect(ch Channel) { s.channel = &ch }
