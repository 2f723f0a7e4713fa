package codec_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"sealift/codec"
)

// wantError fails unless err is a *codec.Error that wraps cause and leaves the
// stream in step, except for ErrSize, which does not.
func wantError(t *testing.T, what string, err, cause error) {
	t.Helper()
	var e *codec.Error
	if !errors.As(err, &e) || !errors.Is(err, cause) {
		t.Errorf("%s: error %v, want one that is %v", what, err, cause)
	} else if inStep := cause != codec.ErrSize; e.InStep != inStep {
		t.Errorf("%s: InStep %v, want %v", what, e.InStep, inStep)
	}
}

// nameField puts s at the start of a name field of nulls.
func nameField(s string) []byte {
	f := make([]byte, codec.NameSize)
	copy(f, s)
	return f
}

func TestNames(t *testing.T) {
	longest := strings.Repeat("x", 254)
	cases := []struct {
		what  string
		field []byte
		name  string // "" for an error
	}{
		{"one letter", nameField("a"), "a"},
		{"first and last printable character", nameField(" ~"), " ~"},
		{"254 characters", nameField(longest), longest},
		{"what follows the null is ignored", nameField("bob\x00leftovers\xff\n"), "bob"},
		{"255 characters, no null", []byte(longest + "x"), ""},
		{"empty", nameField(""), ""},
		{"empty, with leftovers", nameField("\x00bob"), ""},
		{"line feed", nameField("a\nb"), ""},
		{"0x1f", nameField("a\x1fb"), ""},
		{"0x7f", nameField("a\x7fb"), ""},
		{"0x80", nameField("a\x80b"), ""},
		{"UTF-8", nameField("é"), ""},
		{"control character in front", nameField("\tb"), ""},
		{"control character at the end", nameField(longest[1:] + "\r"), ""},
	}
	for _, c := range cases {
		for _, v := range allVectors() {
			at := nameAt(v)
			if at < 0 {
				continue
			}
			payload := unhex(v.payloadHex())
			copy(payload[at:], c.field)
			m, err := v.parse(payload)
			what := v.name + ", " + c.what
			if c.name == "" {
				wantError(t, what, err, codec.ErrName)
				// The server tells a transfer's further packets by their numbers.
				if m, ok := m.(codec.SendFile); ok && (m.Packet != 0x0201 || m.Total != 0x0403) {
					t.Errorf("%s: %+v, want the numbers all the same", what, m)
				}
			} else if got := nameOf(m); err != nil || got != c.name {
				t.Errorf("%s: %q, %v; want %q", what, got, err, c.name)
			}
		}
		// CheckName is the sender's side of the same rule.
		if s := string(c.field[:max(bytes.IndexByte(c.field, 0), 0)]); c.name != "" {
			if err := codec.CheckName(s); err != nil {
				t.Errorf("CheckName, %s: %v", c.what, err)
			}
		} else {
			wantError(t, "CheckName, "+c.what, codec.CheckName(s), codec.ErrName)
		}
	}
	wantError(t, "CheckName, 255 characters", codec.CheckName(longest+"x"), codec.ErrName)
	wantError(t, "CheckName, a null", codec.CheckName("a\x00b"), codec.ErrName)
}

// A name that is too long for its field may not shift what comes behind it.
func TestAppendCutsALongName(t *testing.T) {
	m := codec.PublicKey{Name: []byte(strings.Repeat("y", 300)), Key: unhex(keyHex)}
	wire := m.Append(nil, id)
	got, err := codec.ParsePublicKey(wire[codec.RequestHeaderSize:])
	if err != nil || len(got.Name) != 254 || !bytes.Equal(got.Key, m.Key) {
		t.Errorf("%d characters of name, key %x, error %v", len(got.Name), got.Key, err)
	}
}

// nameAt is where the name field of v's payload begins, -1 if it has none.
func nameAt(v vector) int {
	at := 0
	for _, f := range v.fields {
		if strings.HasSuffix(f.name, "Name") {
			return at
		}
		at += len(unhex(f.hex))
	}
	return -1
}

func nameOf(m any) string {
	switch m := m.(type) {
	case codec.Register:
		return string(m.Name)
	case codec.PublicKey:
		return string(m.Name)
	case codec.Reconnect:
		return string(m.Name)
	case codec.SendFile:
		return string(m.FileName)
	case codec.Verdict:
		return string(m.FileName)
	case codec.FileReceived:
		return string(m.FileName)
	}
	return ""
}
