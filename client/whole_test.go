package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sealift/client"
	"sealift/codec"
	"sealift/internal/fakeserver"
)

// faults says what is wrong with the n-th message of a code: "drop", "1607", or
// "crc" for a wrong checksum. What follows the last is right.
type faults map[codec.Code][]string

func (f faults) answer(m fakeserver.Message, right []byte) []byte {
	of := f[m.Code]
	if m.N > len(of) {
		return right
	}
	switch of[m.N-1] {
	case "drop":
		return nil
	case "1607":
		return fakeserver.GeneralError
	case "crc":
		right[len(right)-1] ^= 1
	}
	return right
}

// A server that gives 1607 to a 1029 on another connection than its 1603 came on
// cannot tell which version is meant: the file is sent again, under a new AES
// key, and within the same three retries.
func TestTheWholeFileAgain(t *testing.T) {
	for _, tc := range []struct {
		name     string
		faults   faults
		sequence string // after conn 1025 1026
		sends    int    // 0: it fails
		err      error
	}{
		{
			"once", faults{1029: {"drop", "1607"}},
			"1028 1029 conn 1029 1027 1028 1029", 2, nil,
		},
		{
			"after a wrong checksum", faults{1028: {"crc"}, 1029: {"drop", "1607"}},
			"1028 1030 1028 1029 conn 1029 1027 1028 1029", 3, nil,
		},
		{
			"the 1603 is on this connection", faults{1029: {"1607", "1607", "1607"}},
			"1028 1029 1029 1029 1029", 1, nil,
		},
		{
			"the 1029 after it gets 1607", faults{1029: {"drop", "1607", "1607"}},
			"1028 1029 conn 1029 1027 1028 1029 1029", 2, nil,
		},
		{
			"every time", faults{1029: {"drop", "1607", "drop", "1607"}},
			"1028 1029 conn 1029 1027 1028 1029 conn 1029", 0, client.ErrServer,
		},
		{
			"it gets 1607", faults{1028: {"", "1607"}, 1029: {"drop", "1607"}},
			"1028 1029 conn 1029 1027 1028 1028 1029", 3, nil,
		},
		{
			"it is lost", faults{1028: {"", "drop"}, 1029: {"drop", "1607"}},
			"1028 1029 conn 1029 1027 1028 conn 1027 1028 1029", 3, nil,
		},
		{
			"it fails each time", faults{1028: {"", "1607", "1607", "1607"}, 1029: {"drop", "1607"}},
			"1028 1029 conn 1029 1027 1028 1028", 0, client.ErrServer,
		},
		{
			"the 1027 gets 1607", faults{1027: {"1607"}, 1029: {"drop", "1607"}},
			"1028 1029 conn 1029 1027 1027 1028 1029", 2, nil,
		},
		{
			"its checksum is wrong", faults{1028: {"", "crc"}, 1029: {"drop", "1607"}},
			"1028 1029 conn 1029 1027 1028 1030 1028 1029", 3, nil,
		},
		{
			"its checksum is wrong for the fourth time", faults{1028: {"crc", "", "crc", "crc", "crc"}, 1029: {"drop", "1607"}},
			"1028 1030 1028 1029 conn 1029 1027 1028 1030 1028 1030 1028 1031", 0, client.ErrChecksum,
		},
	} {
		for _, d := range []client.Dialect{client.Spec, client.Auto} {
			if d == client.Auto && slices.Contains(tc.faults[1028], "crc") {
				continue // that is about the dialect
			}
			t.Run(fmt.Sprintf("%s/%v", tc.name, d), func(t *testing.T) {
				s := fakeserver.New(t)
				s.Answer = tc.faults.answer
				o := options(s)
				o.Dialect = d
				content := pattern(1000)
				r, err := send(login(t, o), "f", content)
				if got, want := s.Sequence(), "conn 1025 1026 "+tc.sequence; got != want {
					t.Errorf("sequence %q, want %q", got, want)
				}
				if tc.sends == 0 {
					if !errors.Is(err, tc.err) || errors.Is(err, client.ErrNoDialect) {
						t.Errorf("got %v, want %v", err, tc.err)
					}
					return
				}
				if err != nil || r.Attempts != tc.sends {
					t.Errorf("%+v, %v; want it sent %d times", r, err, tc.sends)
				}
				if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
					t.Error("stored something else")
				}
			})
		}
	}
}

// Content goes out only under a key that came over the same connection: the server
// may have given another one to another connection of the client since. From a 1607
// on a connection that only resumed a 1027 leads on.
func TestContentIsSentUnderAKeyOfItsOwn(t *testing.T) {
	for _, tc := range []struct {
		size     int
		faults   faults
		sequence string
		stored   bool
	}{
		{1000, faults{1028: {"drop", "1607"}}, "1028 conn 1027 1028 1028 1029", true},
		{1000, faults{1028: {"drop", "1607", "1607"}}, "1028 conn 1027 1028 1028 1028 1029", true},
		{300_000, faults{1028: {"drop", "1607"}}, "1028 conn 1027 1028 conn 1027 1028 1029", true},
		{1000, faults{1028: {"crc", "crc", "crc", "crc"}, 1031: {"drop", "1607"}}, "1028 1030 1028 1030 1028 1030 1028 1031 conn 1031 1027 1031", false},
	} {
		s := fakeserver.New(t)
		s.Answer = tc.faults.answer
		_, err := send(login(t, options(s)), "f", pattern(tc.size))
		if got, want := s.Sequence(), "conn 1025 1026 "+tc.sequence; got != want {
			t.Errorf("sequence %q, want %q", got, want)
		}
		if (err == nil) != tc.stored || errors.Is(err, client.ErrServer) {
			t.Errorf("%s: %v", tc.sequence, err)
		}
	}
}

// Where several connections of an identity each have a key of their own, the one
// that a new connection would resume with may be another's.
func TestSeveralAtOnceDoNotResume(t *testing.T) {
	s := fakeserver.New(t)
	joined := make(chan struct{}) // the second connection has
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		switch {
		case m.Code == codec.CodeReconnect && m.N == 1:
			close(joined)
		case m.Code == codec.CodeSendFile:
			<-joined
			if m.N == 1 {
				return nil
			}
		}
		return right
	}
	o := options(s)
	o.Parallel = 2
	dir := t.TempDir()
	var files []client.File
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pattern(1000), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, client.File{Path: path})
	}
	results, err := client.Run(t.Context(), o, files, nil)
	if err != nil || len(results) != 2 {
		t.Errorf("%v, %v", results, err)
	}
	// One for the second connection, and one for the connection in the place of
	// that which is lost.
	if got := s.Sequence(); strings.Count(got, "1027") != 2 || strings.Count(got, "conn") != 3 {
		t.Errorf("sequence %q", got)
	}
}
