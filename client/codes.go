package client

import (
	"encoding/binary"
	"fmt"

	"sealift/codec"
)

// Codes says which numbers the requests have. The replies have the same in both
// editions of the assignment, and so have the layouts.
type Codes uint8

const (
	// Codes1025 is 1025 to 1031.
	Codes1025 Codes = iota
	// Codes825 is the later edition: 825 to 828, and 900 to 902.
	Codes825
	// AutoCodes begins with 1025, and finds out whether the server wants 825 if
	// the first message gets a 1607, the end of the connection, or silence.
	AutoCodes
)

var codesNames = [...]string{"1025", "825", "auto"}

// String returns the name that ParseCodes takes.
func (c Codes) String() string {
	if int(c) < len(codesNames) {
		return codesNames[c]
	}
	return fmt.Sprintf("Codes(%d)", uint8(c))
}

// ParseCodes returns the codes called name: 1025, 825 or auto.
func ParseCodes(name string) (Codes, error) {
	for i, n := range codesNames {
		if n == name {
			return Codes(i), nil
		}
	}
	return 0, fmt.Errorf("unknown codes %q: there are auto, 1025 and 825", name)
}

// Of returns the number that goes over the wire for a request.
func (c Codes) Of(request codec.Code) codec.Code {
	if c == Codes825 {
		return request.Later()
	}
	return request
}

// codeAt is where the code stands in the header of a request, in bytes.
const codeAt = codec.IDSize + 1

// put writes the number of a request into its header, which is in place.
func (c Codes) put(message []byte, request codec.Code) {
	binary.LittleEndian.PutUint16(message[codeAt:], uint16(c.Of(request)))
}

// Renumber gives each request in b its number. b holds whole messages, or the
// beginning of one; what follows a message that is cut off stays as it is.
func (c Codes) Renumber(b []byte) {
	for len(b) >= codec.RequestHeaderSize {
		c.put(b, codec.Code(binary.LittleEndian.Uint16(b[codeAt:])))
		size := int64(codec.RequestHeaderSize) + int64(binary.LittleEndian.Uint32(b[codec.RequestHeaderSize-4:]))
		b = b[min(size, int64(len(b))):]
	}
}
