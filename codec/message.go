package codec

import (
	"bytes"
	"encoding/binary"
)

var le = binary.LittleEndian

// RequestHeader begins every message of a client (PROTOCOL.md section 3).
type RequestHeader struct {
	ID          ClientID
	Version     uint8
	Code        Code
	PayloadSize uint32 // bytes that follow the header
	// Later reports that the code came as that of the later edition, 825 for
	// 1025. A decoder sets it; Append does not look at it.
	Later bool
}

// parseRequestHeader reads the RequestHeaderSize bytes of b.
func parseRequestHeader(b []byte) RequestHeader {
	_ = b[RequestHeaderSize-1]
	return RequestHeader{
		ID:          ClientID(b[:16]),
		Version:     b[16],
		Code:        Code(le.Uint16(b[17:])),
		PayloadSize: le.Uint32(b[19:]),
	}
}

// Append writes the header to the end of b, which may be nil.
func (h RequestHeader) Append(b []byte) []byte {
	b = append(b, h.ID[:]...)
	b = append(b, h.Version)
	b = le.AppendUint16(b, uint16(h.Code))
	return le.AppendUint32(b, h.PayloadSize)
}

// ResponseHeader begins every message of a server (PROTOCOL.md section 3).
type ResponseHeader struct {
	Version     uint8
	Code        Code
	PayloadSize uint32 // bytes that follow the header
}

func parseResponseHeader(b []byte) ResponseHeader {
	_ = b[ResponseHeaderSize-1]
	return ResponseHeader{
		Version:     b[0],
		Code:        Code(le.Uint16(b[1:])),
		PayloadSize: le.Uint32(b[3:]),
	}
}

// Append writes the header to the end of b, which may be nil.
func (h ResponseHeader) Append(b []byte) []byte {
	b = append(b, h.Version)
	b = le.AppendUint16(b, uint16(h.Code))
	return le.AppendUint32(b, h.PayloadSize)
}

func appendRequest(b []byte, id ClientID, code Code, payload uint32) []byte {
	return RequestHeader{ID: id, Version: Version, Code: code, PayloadSize: payload}.Append(b)
}

func appendResponse(b []byte, code Code) []byte {
	size, _ := ResponsePayloadSize(code)
	return ResponseHeader{Version: Version, Code: code, PayloadSize: size}.Append(b)
}

// CheckName returns an error unless name can be sent in a name field: 1 to
// MaxName characters of printable ASCII. The error wraps ErrName.
func CheckName(name string) error {
	if detail := nameFault([]byte(name)); detail != "" {
		return &Error{Err: ErrName, Detail: detail, InStep: true}
	}
	return nil
}

func nameFault(name []byte) string {
	if len(name) == 0 {
		return "it is empty"
	}
	if len(name) > MaxName {
		return "it is longer than 254 characters"
	}
	for _, c := range name {
		if c < 0x20 || c > 0x7e {
			return "it has a character outside printable ASCII"
		}
	}
	return ""
}

// parseName reads a name field of NameSize bytes. What follows the null is
// ignored: the clients that do not clear their buffers send leftovers there.
func parseName(field []byte, code Code) ([]byte, error) {
	end := bytes.IndexByte(field, 0)
	if end < 0 {
		return nil, &Error{Code: code, Err: ErrName, Detail: "the null is missing", InStep: true}
	}
	if detail := nameFault(field[:end]); detail != "" {
		return nil, &Error{Code: code, Err: ErrName, Detail: detail, InStep: true}
	}
	return field[:end:end], nil
}

var zeros [NameSize]byte

// appendName writes name and as many nulls as fill its field. A name that does
// not fit is cut: callers check it with CheckName, and a cut name is still a
// well-formed field.
func appendName(b []byte, name []byte) []byte {
	name = name[:min(len(name), MaxName)]
	b = append(b, name...)
	return append(b, zeros[:NameSize-len(name)]...)
}

// checkSize guards the Parse functions against a payload that is not whole.
// Decoders never hand out such a one.
func checkSize(payload []byte, want int, code Code) error {
	if len(payload) != want {
		return &Error{Code: code, Err: ErrSize}
	}
	return nil
}
