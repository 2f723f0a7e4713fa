package client_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sealift/client"
	"sealift/codec"
	"sealift/internal/fakeserver"
)

// A reply that is not what was due is never taken for success, and the error
// shows it.
func TestWrongReplies(t *testing.T) {
	otherID := codec.ClientID{0xee, 0xee}
	const (
		idAt   = 7          // in a reply: behind the header
		nameAt = 7 + 16 + 4 // in a 1603
	)
	change := func(at int, b ...byte) func(right []byte) []byte {
		return func(right []byte) []byte {
			copy(right[at:], b)
			return right
		}
	}
	for _, tc := range []struct {
		what  string
		code  codec.Code // the message whose answer is wrong
		alter func(right []byte) []byte
		lost  bool // out of step: taken for a lost connection, so retried
		text  string
	}{
		{"version of a 1600", 1025, change(0, 2), true, "its version is 2; received 02 40 06"},
		{"unknown code", 1025, change(1, 0x49, 0x06), true, "its code 1609 is no reply; received 03 49 06"},
		{"absurd size of a 1600", 1025, change(3, 0, 0, 0, 0x80), true, "its payload size is 2147483648"},
		{"1602 to a registration", 1025, func([]byte) []byte {
			return codec.KeyReply{Code: codec.CodeAESKey, WrappedKey: make([]byte, 128)}.Append(nil)
		}, false, "a 1602 AES key came where a 1600 registered was due"},
		{"id of a 1602", 1026, change(idAt, otherID[:]...), false, "for client eeee"},
		{"key of a 1602", 1026, change(idAt+16, 1, 2, 3), false, "does not open with our private key"},
		{"1605 for 1602", 1026, change(1, 0x45), false, "a 1605 reconnected came where a 1602 AES key was due"},
		{"size of a 1602", 1026, change(3, 16), true, "its payload size is 16"},
		{"id of a 1605", 1027, change(idAt, otherID[:]...), false, "for client eeee"},
		{"1602 for 1605", 1027, change(1, 0x42), false, "a 1602 AES key came where a 1605 reconnected was due"},
		{"id of a 1603", 1028, change(idAt, otherID[:]...), false, "for client eeee"},
		{"name in a 1603", 1028, change(nameAt, 'g'), false, `for file "g", we sent "f"`},
		{"no name in a 1603", 1028, change(nameAt, 0), false, "it is empty"},
		{"size of a 1603", 1028, change(3, 0), true, "its payload size is 256"},
		{"1604 for 1603", 1028, func([]byte) []byte {
			return codec.IDReply{Code: codec.CodeAck}.Append(nil)
		}, false, "a 1604 acknowledged came where a 1603 file received was due"},
		{"id of a 1604", 1029, change(idAt, otherID[:]...), false, "for client eeee"},
		{"1606 for 1604", 1029, change(1, 0x46), false, "a 1606 reconnect rejected came where a 1604 acknowledged was due"},
		{"half a reply", 1029, func(right []byte) []byte { return right[:9] }, true, "in the middle of a reply, after 03 44 06 10 00 00 00"},
		{"half a header", 1029, func(right []byte) []byte { return right[:2] }, true, "in the middle of a reply, after 03 44"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := fakeserver.New(t)
			s.Answer = func(m fakeserver.Message, right []byte) []byte {
				if m.Code != tc.code {
					return right
				}
				s.ForgetName(m.Name) // so that each registration gets a 1600
				return tc.alter(right)
			}
			if strings.HasPrefix(tc.what, "half") {
				s.CloseAfterAck = true
			}
			o := options(s)
			if tc.code == codec.CodeReconnect {
				o.Identity = &memory{id: register(t, s)}
			}
			err := sendAll(o, pattern(10))
			if err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("got %v, want it to say %q", err, tc.text)
			}
			attempts := 1
			if tc.lost {
				attempts = 4
			}
			var e *client.Error
			if !errors.As(err, &e) || e.Code != tc.code || e.Attempts != attempts {
				t.Errorf("%v: want an error about %v after %d attempts", err, tc.code, attempts)
			}
			if errors.Is(err, client.ErrConnection) != tc.lost {
				t.Errorf("taken for a lost connection: %v, want %v", !tc.lost, tc.lost)
			}
		})
	}
}

// Rubbish of any length ends in an error, not in a hang or a panic.
func TestRubbishReplies(t *testing.T) {
	for rubbish, lost := range map[string]bool{
		"HTTP/1.1 400 Bad Request\r\n\r\n": false, // it will not get better
		"\x03\x40\x06\xff\xff\xff\xff":     true,
		strings.Repeat("\x00", 5000):       true,
	} {
		s := fakeserver.New(t)
		s.Answer = func(fakeserver.Message, []byte) []byte { return []byte(rubbish) }
		if err := sendAll(options(s), nil); !errors.Is(err, client.ErrReply) || errors.Is(err, client.ErrConnection) != lost {
			t.Errorf("%q: %v", rubbish, err)
		}
	}
}

// Nobody asked for it, so nobody may take it for the answer to what comes next.
func TestAReplyThatNobodyAskedFor(t *testing.T) {
	s := fakeserver.New(t)
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodePublicKey {
			// The 1603 of a file that has not been sent, before it is.
			return append(right, codec.FileReceived{ID: m.ID, FileName: []byte("f")}.Append(nil)...)
		}
		return right
	}
	content := pattern(300_000)
	if err := sendAll(options(s), content); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
		t.Error("the client believed it")
	}
}

// Servers in the field get these wrong, and nothing depends on them.
func TestToleratedReplies(t *testing.T) {
	size := func(n uint32) func([]byte) []byte {
		return func(right []byte) []byte {
			binary.LittleEndian.PutUint32(right[3:], n)
			return right
		}
	}
	for _, tc := range []struct {
		what  string
		code  codec.Code
		alter func(right []byte) []byte
		want  string
	}{
		{"1600 says 0", 1025, size(0), "conn 1025 1026 1028 1029"},
		{"1600 says 255", 1025, size(255), "conn 1025 1026 1028 1029"},
		{"1600 says 255 and means it", 1025, func(right []byte) []byte {
			return append(size(255)(right), make([]byte, 255-16)...)
		}, "conn 1025 1026 1028 1029"},
		{"1604 says 0", 1029, size(0), "conn 1025 1026 1028 1029"},
		{"1604 is empty", 1029, func(right []byte) []byte { return size(0)(right[:7]) }, "conn 1025 1026 1028 1029"},
		{"1603 has the size of the ciphertext", 1028, func(right []byte) []byte {
			right[23] = 112
			return right
		}, "conn 1025 1026 1028 1029"},
		// Where the next reply would begin is not certain then: a new connection.
		{"1606 says 0", 1027, size(0), "conn 1027 conn 1025 1026 1028 1029"},
		{"1606 says 255", 1027, size(255), "conn 1027 conn 1025 1026 1028 1029"},
		{"1606 is empty", 1027, func(right []byte) []byte { return size(0)(right[:7]) }, "conn 1027 conn 1025 1026 1028 1029"},
		{"1606 says 255 and is empty", 1027, func(right []byte) []byte { return size(255)(right[:7]) }, "conn 1027 conn 1025 1026 1028 1029"},
		{"1606 has another id", 1027, func(right []byte) []byte {
			right[7] ^= 0xff
			return right
		}, "conn 1027 1025 1026 1028 1029"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := fakeserver.New(t)
			s.Answer = func(m fakeserver.Message, right []byte) []byte {
				if m.Code == tc.code {
					return tc.alter(right)
				}
				return right
			}
			o := options(s)
			if tc.code == codec.CodeReconnect {
				id := register(t, fakeserver.New(t)) // of another server
				id.ID = codec.ClientID{9}
				o.Identity = &memory{id: id}
			}
			content := pattern(100)
			if err := sendAll(o, content); err != nil {
				t.Fatal(err)
			}
			if got := s.Sequence(); got != tc.want {
				t.Errorf("sequence %q, want %q", got, tc.want)
			}
			if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
				t.Error("stored something else")
			}
		})
	}
}

// A 1604 without an id may come for a 1030, too, and then the next reply is not
// far behind it.
func TestEmptyAcks(t *testing.T) {
	s := fakeserver.New(t)
	s.Ack1030 = true
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		switch {
		case m.Code == codec.CodeCRCOK, m.Code == codec.CodeCRCBad:
			return []byte{3, 0x44, 6, 0, 0, 0, 0}
		case m.Code == codec.CodeSendFile && m.N == 1:
			right[len(right)-1] ^= 1
		}
		return right
	}
	c := login(t, options(s))
	for _, name := range []string{"a", "b"} {
		if _, err := send(c, name, pattern(1000)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := s.Sequence(), "conn 1025 1026 1028 1030 1028 1029 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

// A server that rejects a client with a new id has registered the name under
// that: the name is not free, and the id wants a key.
func TestA1606WithANewID(t *testing.T) {
	s := fakeserver.New(t)
	s.RegisterAt1606 = true
	store := &memory{id: register(t, fakeserver.New(t))} // of another server
	store.id.ID = codec.ClientID{9}
	old := *store.id
	o := options(s)
	o.Identity = store
	if err := sendAll(o, pattern(100)); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Sequence(), "conn 1027 1025 1026 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
	if fmt.Sprint(store.did) != "[reserve save]" || store.id.ID == old.ID || store.id.Name != old.Name || !store.id.Key.Equal(old.Key) {
		t.Errorf("did %v, now %q %v; want the name under the new id, with the key that was on the disk before", store.did, store.id.Name, store.id.ID)
	}
	if err := sendAll(o, pattern(100)); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Sequence(), "conn 1027 1025 1026 1028 1029 conn 1027 1028 1029"; got != want {
		t.Errorf("the next run: sequence %q, want %q", got, want)
	}
}

// An error shows what came in hex, but not pages of it.
func TestReplyErrorQuotesTheBytes(t *testing.T) {
	raw, _ := hex.DecodeString("0344061000000000112233445566778899aabbccddeeff")
	e := &client.ReplyError{Problem: "odd", Raw: raw}
	if got, want := e.Error(), "unexpected reply: odd; received 03 44 06 10 00 00 00 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	e.Raw = make([]byte, 286)
	if got := e.Error(); len(got) > 300 || !strings.HasSuffix(got, "… (286 bytes)") {
		t.Errorf("%q", got)
	}
}
