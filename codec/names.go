package codec

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CheckName returns an error unless name can be sent in a name field: 1 to
// MaxName bytes that [CheckText] takes. The error wraps ErrName.
func CheckName(name string) error {
	return nameError(0, nameFault([]byte(name)))
}

// CheckText returns an error, which wraps ErrName, if text has something in it
// that no name may have (PROTOCOL.md section 2):
//
//   - bytes that are no UTF-8, with overlong forms and surrogates among them;
//   - control characters, and the separators of lines and paragraphs;
//   - characters that turn the text around them to the other direction;
//   - tag characters, which spell text that nobody sees;
//   - the byte order mark, which programs drop where a text begins with it;
//   - code points that are no characters.
//
// Everything else is taken, what is invisible too: writings and emoji need much
// of that. Names are compared byte by byte, and no form is made of another.
func CheckText(text string) error {
	return nameError(0, textFault([]byte(text)))
}

// PathElements returns what a file's name is made of between its slashes, without
// empty elements and ".". A ".." removes the element before it, and where there is
// none it is dropped (PROTOCOL.md section 4.4).
func PathElements(name string) (elements []string) {
	for e := range strings.SplitSeq(name, "/") {
		switch e {
		case "", ".":
		case "..":
			elements = elements[:max(len(elements)-1, 0)]
		default:
			elements = append(elements, e)
		}
	}
	return elements
}

// BeginsWithDrive reports whether name begins with a letter and a colon.
func BeginsWithDrive(name string) bool {
	return len(name) >= 2 && name[1] == ':' && name[0]|0x20 >= 'a' && name[0]|0x20 <= 'z'
}

func nameError(code Code, detail string) error {
	if detail == "" {
		return nil
	}
	return &Error{Code: code, Err: ErrName, Detail: detail, InStep: true}
}

func nameFault(name []byte) string {
	if len(name) == 0 {
		return "it is empty"
	}
	if len(name) > MaxName {
		return fmt.Sprintf("it is longer than %d bytes", MaxName)
	}
	return textFault(name)
}

// textFault says what is wrong with a text, "" if nothing is.
func textFault(text []byte) string {
	for at := 0; at < len(text); {
		c := text[at]
		if c >= 0x20 && c <= 0x7e { // most names have nothing else
			at++
			continue
		}
		r, size := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && size == 1 {
			return fmt.Sprintf("it is not UTF-8: byte %02x at %d", c, at)
		}
		if what := runeFault(r); what != "" {
			return fmt.Sprintf("it has %s: %U", what, r)
		}
		at += size
	}
	return ""
}

func runeFault(r rune) string {
	switch {
	case unicode.Is(unicode.Cc, r):
		return "a control character"
	case r == '\u2028' || r == '\u2029':
		return "a line separator"
	case unicode.Is(unicode.Bidi_Control, r) || r >= '\u206a' && r <= '\u206f':
		return "a character that turns text around"
	case r >= 0xe0000 && r <= 0xe007f:
		return "a tag character, which nobody sees"
	case r == '\ufeff':
		return "a byte order mark"
	case unicode.Is(unicode.Noncharacter_Code_Point, r):
		return "what is no character"
	}
	return ""
}

// parseName reads a name field of NameSize bytes. What follows the null is
// ignored: the clients that do not clear their buffers send leftovers there.
func parseName(field []byte, code Code) ([]byte, error) {
	end := bytes.IndexByte(field, 0)
	if end < 0 {
		return nil, nameError(code, "the null is missing")
	}
	if err := nameError(code, nameFault(field[:end])); err != nil {
		return nil, err
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
