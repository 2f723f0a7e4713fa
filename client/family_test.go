package client_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sealift/client"
	"sealift/codec"
	"sealift/internal/fakeserver"
)

// family is a server that numbers requests in one way, in front of one that
// takes both.
type family struct {
	addr string

	mu  sync.Mutex
	log []string // codes as they came over the wire, "conn" for a connection
}

// What a server does about a code that it does not know.
const (
	answer1607 = "1607"
	closeIt    = "close"
	sayNothing = "silence"
)

func newFamily(t *testing.T, s *fakeserver.Server, knows func(code uint16) bool, unknown string) *family {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &family{addr: ln.Addr().String()}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			down, err := ln.Accept()
			if err != nil {
				return
			}
			f.note("conn")
			go func() {
				defer down.Close()
				up, err := net.Dial("tcp", s.Addr)
				if err != nil {
					return
				}
				defer up.Close()
				go func() {
					_, _ = io.Copy(down, up)
					down.Close()
				}()
				f.serve(down, up, knows, unknown)
			}()
		}
	}()
	return f
}

func (f *family) serve(down, up net.Conn, knows func(uint16) bool, unknown string) {
	for {
		m := make([]byte, codec.RequestHeaderSize)
		if _, err := io.ReadFull(down, m); err != nil {
			return
		}
		m = append(m, make([]byte, binary.LittleEndian.Uint32(m[19:]))...)
		if _, err := io.ReadFull(down, m[codec.RequestHeaderSize:]); err != nil {
			return
		}
		code := binary.LittleEndian.Uint16(m[17:])
		f.note(fmt.Sprint(code))
		switch {
		case knows(code):
			if _, err := up.Write(m); err != nil {
				return
			}
		case unknown == answer1607:
			_, _ = down.Write(fakeserver.GeneralError)
		case unknown == closeIt:
			return
		}
	}
}

func (f *family) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, what)
}

// take returns what came since the last call.
func (f *family) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.log, " ")
	f.log = nil
	return s
}

func later(code uint16) bool { return code < 1000 }
func first(code uint16) bool { return code > 1000 }
func both(uint16) bool       { return true }

func TestCodesAreFoundOutOnce(t *testing.T) {
	defer client.Impatient()()
	for _, unknown := range []string{answer1607, closeIt, sayNothing} {
		t.Run(unknown, func(t *testing.T) {
			s := fakeserver.New(t)
			f := newFamily(t, s, later, unknown)
			known := client.KnownServersFile(filepath.Join(t.TempDir(), "known_servers"))
			store := &memory{}
			o := options(s)
			o.Server, o.Codes, o.Known, o.Identity = f.addr, client.AutoCodes, known, store
			if err := sendAll(o, pattern(100)); err != nil {
				t.Fatal(err)
			}
			if got, want := f.take(), "conn 1025 conn 1027 conn 827 conn 825 826 828 900"; got != want {
				t.Errorf("sequence %q, want %q", got, want)
			}
			if facts, err := known.Load(f.addr); err != nil || facts == nil || facts.Codes != client.Codes825 {
				t.Errorf("known: %+v, %v", facts, err)
			}
			if err := sendAll(o, pattern(100)); err != nil {
				t.Fatal(err)
			}
			if got, want := f.take(), "conn 827 828 900"; got != want {
				t.Errorf("the second run: sequence %q, want %q", got, want)
			}

			// The same for a client that was registered by another program.
			o.Known = nil
			if err := sendAll(o, pattern(100)); err != nil {
				t.Fatal(err)
			}
			if got, want := f.take(), "conn 1027 conn 1027 conn 827 conn 827 828 900"; got != want {
				t.Errorf("nothing known: sequence %q, want %q", got, want)
			}
		})
	}
}

func TestCodesThatWereAskedFor(t *testing.T) {
	s := fakeserver.New(t)
	f := newFamily(t, s, later, answer1607)
	o := options(s)
	o.Server, o.Codes = f.addr, client.Codes825
	if err := sendAll(o, pattern(100)); err != nil {
		t.Fatal(err)
	}
	if got, want := f.take(), "conn 825 826 828 900"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
	o.Codes = client.Codes1025
	if err := sendAll(o, nil); !errors.Is(err, client.ErrServer) {
		t.Errorf("got %v", err)
	}
	if got, want := f.take(), "conn 1025 1025 1025 1025"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

// A server of both editions, and one that is merely in trouble, stay with 1025.
func TestCodesStay(t *testing.T) {
	for _, tc := range []struct {
		knows func(uint16) bool
		want  string
	}{
		{both, "conn 1025 conn 1027 conn 1025 1026 1028 1029"},
		{first, "conn 1025 conn 1027 conn 1025 1026 1028 1029"},
	} {
		s := fakeserver.New(t)
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			if m.Code == codec.CodeRegister && m.N == 1 {
				s.ForgetName(m.Name)
				return fakeserver.GeneralError
			}
			return right
		}
		f := newFamily(t, s, tc.knows, closeIt)
		o := options(s)
		o.Server, o.Codes = f.addr, client.AutoCodes
		if err := sendAll(o, pattern(100)); err != nil {
			t.Fatal(err)
		}
		if got := f.take(); got != tc.want {
			t.Errorf("sequence %q, want %q", got, tc.want)
		}
	}
}

// The server at an address is another one than it was: what is known of it is
// found to be wrong, and replaced.
func TestCodesOfAnotherServer(t *testing.T) {
	known := client.KnownServersFile(filepath.Join(t.TempDir(), "known_servers"))
	s := fakeserver.New(t)
	f := newFamily(t, s, first, answer1607)
	if err := known.Save(f.addr, client.Facts{Codes: client.Codes825, Dialect: client.Auto}); err != nil {
		t.Fatal(err)
	}
	o := options(s)
	o.Server, o.Codes, o.Known = f.addr, client.AutoCodes, known
	if err := sendAll(o, pattern(100)); err != nil {
		t.Fatal(err)
	}
	if got, want := f.take(), "conn 825 825 825 825 conn 1027 conn 1025 1026 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
	if facts, err := known.Load(f.addr); err != nil || facts.Codes != client.Codes1025 {
		t.Errorf("known: %+v, %v", facts, err)
	}
}

// A server that is slow with its first reply is waited for, although others are
// asked meanwhile.
func TestASlowServerKeepsItsCodes(t *testing.T) {
	defer client.Impatient()()
	s := fakeserver.New(t)
	asked := make(chan struct{})
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeReconnect {
			close(asked)
		}
		if m.Code == codec.CodeRegister {
			<-asked
		}
		return right
	}
	o := options(s)
	o.Codes = client.AutoCodes
	if err := sendAll(o, pattern(100)); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Sequence(), "conn 1025 conn 1027 1026 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}
