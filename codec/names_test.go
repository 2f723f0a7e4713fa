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
		{"254 bytes in 127 characters", nameField(strings.Repeat("\u00e9", 127)), strings.Repeat("\u00e9", 127)},
		{"accents", nameField("r\u00e9sum\u00e9.pdf"), "r\u00e9sum\u00e9.pdf"},
		{"accents of their own", nameField("re\u0301sume\u0301.pdf"), "re\u0301sume\u0301.pdf"},
		{"Hebrew", nameField("\u05e9\u05dc\u05d5\u05dd"), "\u05e9\u05dc\u05d5\u05dd"},
		{"beyond 16 bits", nameField("\U0001f600\U00020000"), "\U0001f600\U00020000"},
		{"an emoji of several", nameField("\U0001f469\u200d\U0001f680\ufe0f"), "\U0001f469\u200d\U0001f680\ufe0f"},
		{"a joiner that a writing needs", nameField("\u0645\u06cc\u200c\u062e"), "\u0645\u06cc\u200c\u062e"},
		{"spaces of other kinds", nameField("a\u00a0b\u3000c\u200bd"), "a\u00a0b\u3000c\u200bd"},
		{"private use", nameField("\uf8ff\U000f0000"), "\uf8ff\U000f0000"},
		{"the replacement character", nameField("a\ufffdb"), "a\ufffdb"},
		{"cut in a character by the null", nameField("a\xc3\x00\xa9"), ""},
		{"255 bytes in 85 characters, no null", []byte(strings.Repeat("\u20ac", 85)), ""},
		{"what follows the null is ignored", nameField("bob\x00leftovers\xff\n"), "bob"},
		{"255 characters, no null", []byte(longest + "x"), ""},
		{"empty", nameField(""), ""},
		{"empty, with leftovers", nameField("\x00bob"), ""},
		{"line feed", nameField("a\nb"), ""},
		{"0x1f", nameField("a\x1fb"), ""},
		{"0x7f", nameField("a\x7fb"), ""},
		{"0x80", nameField("a\x80b"), ""},
		{"Latin-1", nameField("caf\xe9"), ""},
		{"a byte that no UTF-8 has", nameField("a\xffb"), ""},
		{"a continuation by itself", nameField("\x80"), ""},
		{"UTF-8 that is cut", nameField("a\xe2\x82"), ""},
		{"an overlong slash", nameField("a\xc0\xafb"), ""},
		{"an overlong dot", nameField("\xe0\x80\xae"), ""},
		{"half of a surrogate pair", nameField("\xed\xa0\x80"), ""},
		{"a surrogate pair", nameField("\xed\xa0\xbd\xed\xb8\x80"), ""},
		{"beyond Unicode", nameField("\xf4\x90\x80\x80"), ""},
		{"UTF-16", nameField("\xff\xfea\x00"), ""},
		{"first of C1", nameField("a\u0080b"), ""},
		{"next line", nameField("a\u0085b"), ""},
		{"a terminal's command in C1", nameField("a\u009b2Jb"), ""},
		{"last of C1", nameField("a\u009fb"), ""},
		{"line separator", nameField("a\u2028b"), ""},
		{"paragraph separator", nameField("a\u2029b"), ""},
		{"Arabic letter mark", nameField("a\u061cb"), ""},
		{"left-to-right mark", nameField("a\u200eb"), ""},
		{"right-to-left mark", nameField("a\u200fb"), ""},
		{"first embedding", nameField("a\u202ab"), ""},
		{"right-to-left override", nameField("a\u202egpj.exe"), ""},
		{"first isolate", nameField("a\u2066b"), ""},
		{"last isolate", nameField("a\u2069b"), ""},
		{"swapping of brackets", nameField("a\u206bb"), ""},
		{"byte order mark in front", nameField("\ufeffa"), ""},
		{"byte order mark inside", nameField("a\ufeffb"), ""},
		{"tag characters", nameField("a\U000e0041\U000e007f"), ""},
		{"no character", nameField("a\ufffe"), ""},
		{"no character, in the middle", nameField("a\ufdd0"), ""},
		{"the last code point", nameField("a\U0010ffff"), ""},
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
	case codec.Continue:
		return string(m.FileName)
	case codec.Continued:
		return string(m.FileName)
	}
	return ""
}
