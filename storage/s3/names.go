package s3

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"sealift/codec"
	"sealift/storage"
)

// Names of objects, below the prefix:
//
//	<client id>/<path>~<key>                 a file
//	<client id>/<path>~<key>~kept-<length>   how much of it was flushed, see kept
//
// A path is there as it is, but for what an object's name cannot have. That is written
// as %XX; so is a % that would be read as that. Many servers keep objects in a file
// system, where an element of a path has 255 bytes at most: a longer one is split by "%/".
const (
	keySize    = 16 // random bytes in a key
	keptMark   = "~kept-"
	maxElement = 255
	maxPrefix  = 128
)

// newKey returns a key that no upload has had yet.
func newKey() string { return randomHex(keySize) }

func randomHex(size int) string {
	b := make([]byte, size)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// isKey reports whether key could have come from newKey: it may come out of a database
// that somebody edited.
func isKey(key string) bool { return len(key) == 2*keySize && isHex(key) }

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// checkPlace refuses what CleanPath would not have made.
func checkPlace(place storage.Place) error {
	clean, err := storage.CleanPath(place.Path)
	if err != nil {
		return err
	}
	if clean != place.Path {
		return fmt.Errorf("%w: %q", storage.ErrPath, place.Path)
	}
	return nil
}

// clientFolder is what the names of all objects of a client begin with.
func (s *Store) clientFolder(id codec.ClientID) string { return s.prefix + id.String() + "/" }

// object is the name of a file's object. What else there is of the key has a name that begins with it.
func (s *Store) object(place storage.Place, key string) string {
	p := encodePath(place.Path)
	// With room for the suffix of what was flushed, so that all of a key has one beginning.
	const suffix = 1 + 2*keySize + len(keptMark) + 19
	if last := p[strings.LastIndexByte(p, '/')+1:]; len(last)+suffix > maxElement {
		p += "%/"
	}
	return s.clientFolder(place.ID) + p + "~" + key
}

// parse returns what an object is of; ok is false if the name is none of ours.
func (s *Store) parse(name string) (up storage.Uploaded, kept keptName, ok bool) {
	rest, ok := strings.CutPrefix(name, s.prefix)
	if !ok {
		return up, kept, false
	}
	folder, rest, ok := strings.Cut(rest, "/")
	if !ok || len(folder) != 2*len(up.ID) || !isHex(folder) {
		return up, kept, false
	}
	_, _ = hex.Decode(up.ID[:], []byte(folder)) // the digits were looked at
	if i := strings.LastIndex(rest, keptMark); i >= 0 {
		// A path may have the mark in it: then the key comes behind that, and this is no number.
		if n, err := strconv.ParseInt(rest[i+len(keptMark):], 10, 64); err == nil && n >= 0 {
			kept, rest = keptName{name, n}, rest[:i]
		}
	}
	i := strings.LastIndexByte(rest, '~')
	if i < 0 || !isKey(rest[i+1:]) {
		return up, kept, false
	}
	up.Key = rest[i+1:]
	up.Path = decodePath(rest[:i])
	// What somebody else has put there, and would be taken for one of ours, is not touched.
	if checkPlace(up.Place) != nil || !strings.HasPrefix(name, s.object(up.Place, up.Key)) {
		return up, kept, false
	}
	return up, kept, true
}

// keptName is the name of an object that says how much was flushed.
type keptName struct {
	name   string // of the object; "" if it is none of that kind
	length int64
}

func keptObject(object string, length int64) string {
	return object + keptMark + strconv.FormatInt(length, 10)
}

// encodePath writes a path as a part of an object's name.
func encodePath(path string) string {
	var b strings.Builder
	element := 0
	for i := 0; i < len(path); {
		piece, size := encodeAt(path, i)
		if path[i] == '/' {
			element = 0
		} else if element += len(piece); element > maxElement-1 { // the % of "%/" needs one
			b.WriteString("%/")
			element = len(piece)
		}
		b.WriteString(piece)
		i += size
	}
	return b.String()
}

// encodeAt writes the character at i, which has so many bytes in path.
func encodeAt(path string, i int) (piece string, size int) {
	c := path[i]
	if c == '%' {
		if i+1 == len(path) || path[i+1] == '/' || i+2 < len(path) && isUpperHex(path[i+1]) && isUpperHex(path[i+2]) {
			return "%25", 1
		}
		return "%", 1
	}
	r, size := utf8.DecodeRuneInString(path[i:])
	switch {
	case r == utf8.RuneError && size == 1, r < 0x20, r == 0x7f, c == '\\':
		return fmt.Sprintf("%%%02X", c), 1
	case r >= 0x80 && r < 0xa0, r == 0x2028, r == 0x2029, r&0xfffe == 0xfffe: // XML cannot have them, or spoils them
		var b strings.Builder
		for _, c := range []byte(path[i : i+size]) {
			fmt.Fprintf(&b, "%%%02X", c)
		}
		return b.String(), size
	}
	return path[i : i+size], size
}

func isUpperHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' }

// decodePath is what encodePath has made name of.
func decodePath(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch {
		case name[i] == '%' && i+1 < len(name) && name[i+1] == '/':
			i++
			continue
		case name[i] == '%' && i+2 < len(name) && isUpperHex(name[i+1]) && isUpperHex(name[i+2]):
			c, _ := strconv.ParseUint(name[i+1:i+3], 16, 8)
			b.WriteByte(byte(c))
			i += 2
			continue
		}
		b.WriteByte(name[i])
	}
	return b.String()
}
