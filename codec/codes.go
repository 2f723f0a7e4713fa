package codec

import (
	"encoding/hex"
	"fmt"
)

// Version is the only protocol version there is. It stands in every header.
const Version = 3

// Code says what a message is: 1025 to 1032 are requests, 1600 to 1608 replies.
type Code uint16

// The requests, client to server (PROTOCOL.md section 4).
const (
	CodeRegister  Code = 1025 // registration under a name
	CodePublicKey Code = 1026 // the client's RSA public key
	CodeReconnect Code = 1027 // a returning client
	CodeSendFile  Code = 1028 // one packet of an encrypted file
	CodeCRCOK     Code = 1029 // the checksums agree
	CodeCRCBad    Code = 1030 // they do not: the file comes again
	CodeAbort     Code = 1031 // they did not for the fourth time: given up
	CodeContinue  Code = 1032 // how much of a file is there (PROTOCOL.md section 15)
)

// The replies, server to client (PROTOCOL.md section 5).
const (
	CodeRegistered        Code = 1600
	CodeRegisterFailed    Code = 1601
	CodeAESKey            Code = 1602
	CodeFileReceived      Code = 1603
	CodeAck               Code = 1604
	CodeReconnected       Code = 1605
	CodeReconnectRejected Code = 1606
	CodeError             Code = 1607
	CodeContinued         Code = 1608 // so much of the file is there (PROTOCOL.md section 15)
)

var codeNames = map[Code]string{
	CodeRegister:          "register",
	CodePublicKey:         "public key",
	CodeReconnect:         "reconnect",
	CodeSendFile:          "send file",
	CodeCRCOK:             "checksum verified",
	CodeCRCBad:            "checksum mismatch",
	CodeAbort:             "abort",
	CodeContinue:          "continue",
	CodeRegistered:        "registered",
	CodeRegisterFailed:    "registration failed",
	CodeAESKey:            "AES key",
	CodeFileReceived:      "file received",
	CodeAck:               "acknowledged",
	CodeReconnected:       "reconnected",
	CodeReconnectRejected: "reconnect rejected",
	CodeError:             "server error",
	CodeContinued:         "continued",
}

// String gives the number and, for a known code, its name: "1028 send file".
func (c Code) String() string {
	if name, ok := codeNames[c]; ok {
		return fmt.Sprintf("%d %s", uint16(c), name)
	}
	return fmt.Sprintf("%d", uint16(c))
}

// laterEdition maps the request numbers of a later edition of the assignment,
// whose layouts and replies are the same, to the codes of this package.
var laterEdition = map[Code]Code{
	825: CodeRegister,
	826: CodePublicKey,
	827: CodeReconnect,
	828: CodeSendFile,
	900: CodeCRCOK,
	901: CodeCRCBad,
	902: CodeAbort,
}

// Sizes of fields and of what they make up, in bytes.
const (
	IDSize         = 16  // client id: a UUID, raw
	NameSize       = 255 // a name field, its null terminator included
	PublicKeySize  = 160 // X.509 SubjectPublicKeyInfo of an RSA-1024 key with a one-byte exponent
	WrappedKeySize = 128 // an AES key under RSA-1024 OAEP

	RequestHeaderSize  = 23 // id, version, code, payload size
	ResponseHeaderSize = 7  // version, code, payload size

	// SendFileFieldsSize is the part of a 1028 payload before the content.
	SendFileFieldsSize = 4 + 4 + 2 + 2 + NameSize

	// MaxName is the longest name that fits its field, in bytes.
	MaxName = NameSize - 1

	// MaxCiphertext is the largest ciphertext that Content Size can state: the
	// last multiple of 16 below 4 GiB. MaxFileSize is the file inside it.
	MaxCiphertext = 1<<32 - 16
	MaxFileSize   = MaxCiphertext - 1

	// MaxPackets is the most packets that Total Packets can state.
	MaxPackets = 1<<16 - 1
)

// RequestPayloadSize returns the payload size that a request must declare.
// For 1028 it is the least: the content comes on top. ok is false for a code
// that is no request.
func RequestPayloadSize(c Code) (size uint32, ok bool) {
	switch c {
	case CodeRegister, CodeReconnect, CodeCRCOK, CodeCRCBad, CodeAbort:
		return NameSize, true
	case CodePublicKey:
		return NameSize + PublicKeySize, true
	case CodeSendFile:
		return SendFileFieldsSize, true
	case CodeContinue:
		return NameSize + 8, true
	}
	return 0, false
}

// ResponsePayloadSize returns the payload size of a reply. ok is false for a
// code that is no reply.
func ResponsePayloadSize(c Code) (size uint32, ok bool) {
	switch c {
	case CodeRegisterFailed, CodeError:
		return 0, true
	case CodeRegistered, CodeAck, CodeReconnectRejected:
		return IDSize, true
	case CodeAESKey, CodeReconnected:
		return IDSize + WrappedKeySize, true
	case CodeFileReceived:
		return IDSize + 4 + NameSize + 4, true
	case CodeContinued:
		return IDSize + NameSize + 8 + 4, true
	}
	return 0, false
}

// ClientID is the 16 raw bytes of a client's UUID. The zero value is sent by a
// client that has none yet.
type ClientID [IDSize]byte

// String returns the id as 32 hex digits, as me.info and files/ have it.
func (id ClientID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether this is the id of a client that has none.
func (id ClientID) IsZero() bool { return id == ClientID{} }

// CiphertextSize returns how many bytes AES-CBC with PKCS#7 makes of a file of
// orig bytes: there is always padding, so it is more than orig.
func CiphertextSize(orig uint32) int64 { return (int64(orig)/16 + 1) * 16 }
