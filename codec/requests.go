package codec

// Register is the payload of 1025: a new client asks for an id.
type Register struct {
	Name []byte
}

// ParseRegister reads the payload of a 1025. Name aliases payload.
func ParseRegister(payload []byte) (Register, error) {
	name, err := parseNamePayload(payload, CodeRegister)
	return Register{Name: name}, err
}

// Append writes header and payload to the end of b. The id is all zero: the
// client has none.
func (m Register) Append(b []byte) []byte {
	return appendName(appendRequest(b, ClientID{}, CodeRegister, NameSize), m.Name)
}

// Reconnect is the payload of 1027: a client that has an id comes back.
type Reconnect struct {
	Name []byte
}

// ParseReconnect reads the payload of a 1027. Name aliases payload.
func ParseReconnect(payload []byte) (Reconnect, error) {
	name, err := parseNamePayload(payload, CodeReconnect)
	return Reconnect{Name: name}, err
}

// Append writes header and payload to the end of b.
func (m Reconnect) Append(b []byte, id ClientID) []byte {
	return appendName(appendRequest(b, id, CodeReconnect, NameSize), m.Name)
}

// PublicKey is the payload of 1026.
type PublicKey struct {
	Name []byte
	Key  []byte // PublicKeySize bytes: X.509 SubjectPublicKeyInfo, DER
}

// ParsePublicKey reads the payload of a 1026. Name and Key alias payload. The
// key itself is not looked at: package crypto/keys does that.
func ParsePublicKey(payload []byte) (PublicKey, error) {
	if err := checkSize(payload, NameSize+PublicKeySize, CodePublicKey); err != nil {
		return PublicKey{}, err
	}
	name, err := parseName(payload[:NameSize], CodePublicKey)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKey{Name: name, Key: payload[NameSize:]}, nil
}

// Append writes header and payload to the end of b. Key must have
// PublicKeySize bytes.
func (m PublicKey) Append(b []byte, id ClientID) []byte {
	b = appendRequest(b, id, CodePublicKey, NameSize+PublicKeySize)
	b = appendName(b, m.Name)
	return append(b, m.Key[:PublicKeySize]...)
}

// SendFile is the payload of 1028 without its content: one packet of a file.
// What the sizes count depends on the dialect of the client, see [Infer].
type SendFile struct {
	ContentSize uint32 // bytes of ciphertext
	OrigSize    uint32 // bytes before encryption
	Packet      uint16 // number of this packet
	Total       uint16 // how many packets the file has
	FileName    []byte
}

// ParseSendFile reads the first SendFileFieldsSize bytes of the payload of a
// 1028. FileName aliases payload. If it is only the name that is wrong, the
// numbers are there all the same.
func ParseSendFile(payload []byte) (SendFile, error) {
	if err := checkSize(payload, SendFileFieldsSize, CodeSendFile); err != nil {
		return SendFile{}, err
	}
	name, err := parseName(payload[12:], CodeSendFile)
	return SendFile{
		ContentSize: le.Uint32(payload),
		OrigSize:    le.Uint32(payload[4:]),
		Packet:      le.Uint16(payload[8:]),
		Total:       le.Uint16(payload[10:]),
		FileName:    name,
	}, err
}

// Append writes the header and the fields to the end of b; the caller sends
// body bytes of content right behind, best in the same write. Payload Size can
// state a body of up to 1<<32 - 1 - SendFileFieldsSize.
func (m SendFile) Append(b []byte, id ClientID, body uint32) []byte {
	b = appendRequest(b, id, CodeSendFile, SendFileFieldsSize+body)
	b = le.AppendUint32(b, m.ContentSize)
	b = le.AppendUint32(b, m.OrigSize)
	b = le.AppendUint16(b, m.Packet)
	b = le.AppendUint16(b, m.Total)
	return appendName(b, m.FileName)
}

// Verdict is the payload of 1029, 1030 and 1031: what the client found when it
// compared checksums. Code says which of the three it is.
type Verdict struct {
	Code     Code
	FileName []byte
}

// ParseVerdict reads the payload of a 1029, 1030 or 1031. FileName aliases
// payload.
func ParseVerdict(code Code, payload []byte) (Verdict, error) {
	name, err := parseNamePayload(payload, code)
	return Verdict{Code: code, FileName: name}, err
}

// Append writes header and payload to the end of b.
func (m Verdict) Append(b []byte, id ClientID) []byte {
	return appendName(appendRequest(b, id, m.Code, NameSize), m.FileName)
}

// Continue is the payload of 1032: the client asks how much of a file the server has.
type Continue struct {
	FileName  []byte
	TotalSize uint64 // bytes of the whole file before encryption
}

// ParseContinue reads the payload of a 1032. FileName aliases payload.
func ParseContinue(payload []byte) (Continue, error) {
	if err := checkSize(payload, NameSize+8, CodeContinue); err != nil {
		return Continue{}, err
	}
	name, err := parseName(payload[:NameSize], CodeContinue)
	return Continue{FileName: name, TotalSize: le.Uint64(payload[NameSize:])}, err
}

// Append writes header and payload to the end of b.
func (m Continue) Append(b []byte, id ClientID) []byte {
	b = appendName(appendRequest(b, id, CodeContinue, NameSize+8), m.FileName)
	return le.AppendUint64(b, m.TotalSize)
}

func parseNamePayload(payload []byte, code Code) ([]byte, error) {
	if err := checkSize(payload, NameSize, code); err != nil {
		return nil, err
	}
	return parseName(payload, code)
}
