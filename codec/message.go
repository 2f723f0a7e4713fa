package codec

import "encoding/binary"

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

// checkSize guards the Parse functions against a payload that is not whole.
// Decoders never hand out such a one.
func checkSize(payload []byte, want int, code Code) error {
	if len(payload) != want {
		return &Error{Code: code, Err: ErrSize}
	}
	return nil
}
