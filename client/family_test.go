package client_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sealift/client"
	"sealift/codec"
	"sealift/internal/fakeserver"
)

// picky is a server that takes some messages only, in front of one that takes
// all.
type picky struct {
	addr  string
	close func() // no connection any more

	mu    sync.Mutex
	log   []string // codes as they came over the wire, "conn" for a connection
	files []string // names in first packets, as they came
}

// What a server does about a message that it does not take.
const (
	answer1607 = "1607"
	closeIt    = "close"
	sayNothing = "silence"
)

func newPicky(t *testing.T, s *fakeserver.Server, takes func(m []byte) bool, other string) *picky {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newPickyOn(t, ln, func() (net.Conn, error) { return net.Dial("tcp", s.Addr) }, takes, other)
}

// newPickyOn is newPicky on a listener, in front of the server that dial reaches.
func newPickyOn(t *testing.T, ln net.Listener, dial func() (net.Conn, error), takes func(m []byte) bool, other string) *picky {
	f := &picky{addr: ln.Addr().String(), close: func() { ln.Close() }}
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
				up, err := dial()
				if err != nil {
					return
				}
				defer up.Close()
				go func() {
					_, _ = io.Copy(down, up)
					down.Close()
				}()
				f.serve(down, up, takes, other)
			}()
		}
	}()
	return f
}

func (f *picky) serve(down, up net.Conn, takes func([]byte) bool, other string) {
	last, refused := map[string]uint16{}, map[string]bool{} // by file
	for {
		m := make([]byte, codec.RequestHeaderSize)
		if _, err := io.ReadFull(down, m); err != nil {
			return
		}
		m = append(m, make([]byte, binary.LittleEndian.Uint32(m[19:]))...)
		if _, err := io.ReadFull(down, m[codec.RequestHeaderSize:]); err != nil {
			return
		}
		f.note(fmt.Sprint(code(m)))
		if name := fileName(m); name != "" && number(m) <= 1 {
			f.mu.Lock()
			f.files = append(f.files, name)
			f.mu.Unlock()
		}
		taken := takes(m)
		if name := fileName(m); name != "" { // the rest of a file is as little taken
			again := number(m) <= last[name]
			taken = taken && (again || !refused[name])
			last[name], refused[name] = number(m), !taken
		}
		switch {
		case taken:
			if _, err := up.Write(m); err != nil {
				return
			}
		case other == answer1607:
			_, _ = down.Write(fakeserver.GeneralError)
		case other == closeIt:
			return
		}
	}
}

func (f *picky) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, what)
}

// take returns what came since the last call.
func (f *picky) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.log, " ")
	f.log = nil
	return s
}

// sent returns the names in first packets that came since the last call.
func (f *picky) sent() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := f.files
	f.files = nil
	return names
}

// Fields of a request. Those of a packet are 0 and "" for others.
func code(m []byte) uint16 { return binary.LittleEndian.Uint16(m[17:]) }

func isPacket(m []byte) bool { return code(m) == 1028 || code(m) == 828 }

func number(m []byte) uint16 {
	if !isPacket(m) {
		return 0
	}
	return binary.LittleEndian.Uint16(m[31:])
}

func fileName(m []byte) string {
	if !isPacket(m) {
		return ""
	}
	name, _, _ := bytes.Cut(m[35:], []byte{0})
	return string(name)
}

func later(m []byte) bool { return code(m) < 1000 }
func first(m []byte) bool { return code(m) > 1000 }
func both([]byte) bool    { return true }

func TestCodesAreFoundOutOnce(t *testing.T) {
	defer client.Impatient()()
	for _, unknown := range []string{answer1607, closeIt, sayNothing} {
		t.Run(unknown, func(t *testing.T) {
			s := fakeserver.New(t)
			f := newPicky(t, s, later, unknown)
			known := client.KnownServersFile(filepath.Join(t.TempDir(), "known_servers"))
			store := &memory{}
			o := options(s)
			o.Server, o.Codes, o.Known, o.Identity = f.addr, client.AutoCodes, known, store
			if err := sendAll(o, pattern(100)); err != nil {
				t.Fatal(err)
			}
			again := "" // it may have been about something else
			if unknown == answer1607 {
				again = "conn 1027 "
			}
			if got, want := f.take(), "conn 1025 conn 1027 conn 827 "+again+"conn 825 826 828 900"; got != want {
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
			if got, want := f.take(), "conn 1027 conn 1027 conn 827 "+again+"conn 827 828 900"; got != want {
				t.Errorf("nothing known: sequence %q, want %q", got, want)
			}
		})
	}
}

func TestCodesThatWereAskedFor(t *testing.T) {
	s := fakeserver.New(t)
	f := newPicky(t, s, later, answer1607)
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

// A server of both editions, and one that is merely in trouble, stay with 1025,
// also when the first 1027 fails as the first 1025 did.
func TestCodesStay(t *testing.T) {
	for _, tc := range []struct {
		takes func([]byte) bool
		fails []codec.Code // the first of each
		want  string
	}{
		{both, []codec.Code{codec.CodeRegister}, "conn 1025 conn 1027 conn 1025 1026 1028 1029"},
		{first, []codec.Code{codec.CodeRegister}, "conn 1025 conn 1027 conn 1025 1026 1028 1029"},
		{both, []codec.Code{codec.CodeRegister, codec.CodeReconnect}, "conn 1025 conn 1027 conn 827 conn 1027 conn 1025 1026 1028 1029"},
	} {
		s := fakeserver.New(t)
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			if m.N == 1 && slices.Contains(tc.fails, m.Code) {
				s.ForgetName(m.Name)
				return fakeserver.GeneralError
			}
			return right
		}
		f := newPicky(t, s, tc.takes, closeIt)
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
	f := newPicky(t, s, first, answer1607)
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
