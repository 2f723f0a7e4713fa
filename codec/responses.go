package codec

// IDReply is the payload of 1600, 1604 and 1606: a client id and nothing else.
// Code says which of the three it is.
type IDReply struct {
	Code Code
	ID   ClientID
}

// ParseIDReply reads the payload of a 1600, 1604 or 1606.
func ParseIDReply(code Code, payload []byte) (IDReply, error) {
	if err := checkSize(payload, IDSize, code); err != nil {
		return IDReply{}, err
	}
	return IDReply{Code: code, ID: ClientID(payload)}, nil
}

// Append writes header and payload to the end of b.
func (m IDReply) Append(b []byte) []byte {
	return append(appendResponse(b, m.Code), m.ID[:]...)
}

// EmptyReply is 1601 or 1607: a header without payload.
type EmptyReply struct {
	Code Code
}

// Append writes the header to the end of b.
func (m EmptyReply) Append(b []byte) []byte { return appendResponse(b, m.Code) }

// KeyReply is the payload of 1602 and 1605: an AES key under the client's
// public key. Code says which of the two it is.
type KeyReply struct {
	Code       Code
	ID         ClientID
	WrappedKey []byte // WrappedKeySize bytes: RSAES-OAEP, SHA-1
}

// ParseKeyReply reads the payload of a 1602 or 1605. WrappedKey aliases
// payload.
func ParseKeyReply(code Code, payload []byte) (KeyReply, error) {
	if err := checkSize(payload, IDSize+WrappedKeySize, code); err != nil {
		return KeyReply{}, err
	}
	return KeyReply{Code: code, ID: ClientID(payload[:IDSize]), WrappedKey: payload[IDSize:]}, nil
}

// Append writes header and payload to the end of b. WrappedKey must have
// WrappedKeySize bytes.
func (m KeyReply) Append(b []byte) []byte {
	b = append(appendResponse(b, m.Code), m.ID[:]...)
	return append(b, m.WrappedKey[:WrappedKeySize]...)
}

// FileReceived is the payload of 1603: the file is in, and this is its
// checksum.
type FileReceived struct {
	ID          ClientID
	ContentSize uint32 // bytes of the decrypted file
	FileName    []byte // as the client sent it
	Cksum       uint32 // POSIX cksum of the decrypted file
}

// ParseFileReceived reads the payload of a 1603. FileName aliases payload.
func ParseFileReceived(payload []byte) (FileReceived, error) {
	if err := checkSize(payload, IDSize+4+NameSize+4, CodeFileReceived); err != nil {
		return FileReceived{}, err
	}
	name, err := parseName(payload[20:20+NameSize], CodeFileReceived)
	if err != nil {
		return FileReceived{}, err
	}
	return FileReceived{
		ID:          ClientID(payload[:IDSize]),
		ContentSize: le.Uint32(payload[16:]),
		FileName:    name,
		Cksum:       le.Uint32(payload[20+NameSize:]),
	}, nil
}

// Append writes header and payload to the end of b.
func (m FileReceived) Append(b []byte) []byte {
	b = append(appendResponse(b, CodeFileReceived), m.ID[:]...)
	b = le.AppendUint32(b, m.ContentSize)
	b = appendName(b, m.FileName)
	return le.AppendUint32(b, m.Cksum)
}

// Continued is the payload of 1608: how much of a file the server has.
type Continued struct {
	ID       ClientID
	FileName []byte // as the client sent it
	Offset   uint64 // bytes of the file, decrypted, from its beginning
	Cksum    uint32 // POSIX cksum of these
}

// ParseContinued reads the payload of a 1608. FileName aliases payload.
func ParseContinued(payload []byte) (Continued, error) {
	if err := checkSize(payload, IDSize+NameSize+8+4, CodeContinued); err != nil {
		return Continued{}, err
	}
	name, err := parseName(payload[IDSize:IDSize+NameSize], CodeContinued)
	if err != nil {
		return Continued{}, err
	}
	rest := payload[IDSize+NameSize:]
	return Continued{ID: ClientID(payload[:IDSize]), FileName: name, Offset: le.Uint64(rest), Cksum: le.Uint32(rest[8:])}, nil
}

// Append writes header and payload to the end of b.
func (m Continued) Append(b []byte) []byte {
	b = append(appendResponse(b, CodeContinued), m.ID[:]...)
	b = appendName(b, m.FileName)
	b = le.AppendUint64(b, m.Offset)
	return le.AppendUint32(b, m.Cksum)
}
