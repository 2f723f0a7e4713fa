package infofile

import (
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

// decode returns the text of a file as UTF-8. Editors and shells of Windows
// write UTF-16, with or without a byte order mark.
func decode(b []byte) string {
	text := string(b)
	switch {
	case strings.HasPrefix(text, "\xff\xfe"):
		return decode16(b[2:], binary.LittleEndian)
	case strings.HasPrefix(text, "\xfe\xff"):
		return decode16(b[2:], binary.BigEndian)
	case everySecondIsNull(b, 1):
		return decode16(b, binary.LittleEndian)
	case everySecondIsNull(b, 0):
		return decode16(b, binary.BigEndian)
	}
	return strings.TrimPrefix(text, "\ufeff")
}

func decode16(b []byte, order binary.ByteOrder) string {
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, order.Uint16(b))
	}
	return string(utf16.Decode(units))
}

// everySecondIsNull reports whether the bytes at nulls, nulls+2, … are null and
// the others are not: ASCII in UTF-16. A field that is padded with nulls has two
// in a row.
func everySecondIsNull(b []byte, nulls int) bool {
	for i, c := range b {
		if (c == 0) != (i%2 == nulls) {
			return false
		}
	}
	return len(b) >= 4 && len(b)%2 == 0
}
