package interop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"
)

// TestRetries shows the faults of the servers, and that the clients do about them what the documents ask for.
func TestRetries(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	const start = "1025 1600 1026 1602 "
	cases := []struct {
		quirks []string
		exit   int
		codes  string
	}{
		{[]string{"error=1025:1"}, 0, "1025 1607 1025 1600 1026 1602 1028 1603 1029 1604"},
		{[]string{"error=1026:3"}, 0, "1025 1600 1026 1607 1026 1607 1026 1607 1026 1602 1028 1603 1029 1604"},
		{[]string{"error=1028:3"}, 0, start + "1028 1607 1028 1607 1028 1607 1028 1603 1029 1604"},
		{[]string{"error=1028:4"}, 1, start + "1028 1607 1028 1607 1028 1607 1028 1607"},
		{[]string{"error=1029:-1"}, 1, start + "1028 1603 1029 1607 1029 1607 1029 1607 1029 1607"},
		{[]string{"spoil-crc=1"}, 0, start + "1028 1603 1030 1028 1603 1029 1604"},
		{[]string{"spoil-crc=3"}, 0, start + "1028 1603 1030 1028 1603 1030 1028 1603 1030 1028 1603 1029 1604"},
		{[]string{"spoil-crc=-1"}, 1, start + "1028 1603 1030 1028 1603 1030 1028 1603 1030 1028 1603 1031 1604"},
		{[]string{"spoil-crc=1", "ack-1030"}, 0, start + "1028 1603 1030 1028 1604 1603 1029 1604"},
		{[]string{"drop=1026:1"}, 1, "1025 1600 1026"},
		{[]string{"drop=1029:1"}, 1, start + "1028 1603 1029"},
		{[]string{"close-after-1604"}, 0, start + "1028 1603 1029 1604"},
		{[]string{"crc-size-ciphertext"}, 0, start + "1028 1603 1029 1604"},
		{[]string{"needs-one-write"}, 0, start + "1028 1603 1029 1604"},
	}
	for _, from := range Peers {
		for _, to := range Peers {
			for _, c := range cases {
				t.Run(fmt.Sprintf("%s to %s %s", from, to, c.quirks), func(t *testing.T) {
					s := newScene(t, programs, Server{Maker: to, Dialect: single, Quirks: c.quirks}, 500)
					s.want(s.send(Client{Maker: from, Dialect: single}), c.exit, c.codes)
					if c.exit == 0 {
						s.wantStored()
					}
					acknowledged := slices.Contains(c.quirks, "ack-1030") // while the client sends on
					if got, err := s.server.Codes(); err != nil || got != c.codes && !acknowledged {
						t.Errorf("server's messages\n%s (%v), want\n%s", got, err, c.codes)
					}
				})
			}
		}
	}
}

// TestRejection shows what the clients do after a 1606 of each form.
func TestRejection(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	const (
		first = "1025 1600 1026 1602 1028 1603 1029 1604"
		anew  = "1027 1606 " + first
		under = "1027 1606 1026 1602 1028 1603 1029 1604"
	)
	cases := []struct {
		quirks []string
		habits []string
		codes  string
		keepID bool
	}{
		{[]string{}, nil, anew, false},
		{[]string{"header-size-0"}, nil, anew, false},
		{[]string{"header-size-255"}, nil, anew, false},
		{[]string{"empty-1606"}, nil, anew, false},
		{[]string{"new-id-1606"}, nil, anew, false},
		{[]string{}, []string{"--register-under-1606"}, under, true},
		{[]string{"header-size-0"}, []string{"--register-under-1606"}, under, true},
		{[]string{"new-id-1606"}, []string{"--register-under-1606"}, under, false},
	}
	for _, from := range Peers {
		for _, to := range Peers {
			for _, c := range cases {
				client := Client{Maker: from, Dialect: single, Habits: c.habits}
				t.Run(fmt.Sprintf("%s to %s %s", client, to, c.quirks), func(t *testing.T) {
					quirks := append([]string{"reject=1"}, c.quirks...)
					s := newScene(t, programs, Server{Maker: to, Dialect: single, Quirks: quirks}, 500)
					s.want(s.send(client), 0, first)
					before, _ := clientID(s.dir)
					s.want(s.send(client), 0, c.codes)
					s.wantStored()
					after, _ := clientID(s.dir)
					if (before == after) != c.keepID {
						t.Errorf("the id was %s and is %s, kept wanted: %t", before, after, c.keepID)
					}
					s.want(s.send(client), 0, "1027 1605 1028 1603 1029 1604")
				})
			}
		}
	}
}

// wire talks to a server in bytes.
type wire struct {
	*testing.T
	net.Conn
}

func (s scene) dial() wire {
	s.Helper()
	conn, err := net.Dial("tcp", s.server.Addr)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(sendTimeout)); err != nil { // a server that says nothing fails the test
		s.Fatal(err)
	}
	return wire{s.T, conn}
}

func header(id []byte, code uint16, size int) []byte {
	message := append(bytes.Clone(id), 3)
	message = binary.LittleEndian.AppendUint16(message, code)
	return binary.LittleEndian.AppendUint32(message, uint32(size))
}

func (w wire) send(id []byte, code uint16, payload []byte) {
	w.Helper()
	if _, err := w.Write(append(header(id, code, len(payload)), payload...)); err != nil {
		w.Fatal(err)
	}
}

// want reads a reply's header, which must say so, and as much payload as the test knows to come.
func (w wire) want(code uint16, announced uint32, size int) []byte {
	w.Helper()
	reply := make([]byte, 7+size)
	if _, err := io.ReadFull(w, reply); err != nil {
		w.Fatalf("%d: %v", code, err)
	}
	got, gotSize := binary.LittleEndian.Uint16(reply[1:]), binary.LittleEndian.Uint32(reply[3:])
	if reply[0] != 3 || got != code || gotSize != announced {
		w.Fatalf("version %d, code %d, size %d, want 3, %d, %d", reply[0], got, gotSize, code, announced)
	}
	return reply[7:]
}

func (w wire) wantEnd() {
	w.Helper()
	if _, err := w.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		w.Errorf("the connection goes on: %v", err)
	}
}

func name(s string) []byte { return append([]byte(s), make([]byte, 255-len(s))...) }

func TestQuirksOnTheWire(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	nobody := make([]byte, 16)
	stranger := bytes.Repeat([]byte{7}, 16)
	for _, maker := range Peers {
		with := func(quirks ...string) wire {
			return newScene(t, programs, Server{Maker: maker, Dialect: spec, Quirks: quirks}, 0).dial()
		}

		for quirk, announced := range map[string]uint32{"header-size-0": 0, "header-size-255": 255} {
			w := with(quirk)
			w.send(nobody, 1025, name("Mike"))
			id := w.want(1600, announced, 16)
			w.send(nobody, 1025, name("Mike"))
			w.want(1601, 0, 0) // in step, and the name is taken
			w.send(stranger, 1027, name("Mike"))
			if got := w.want(1606, announced, 16); !bytes.Equal(got, stranger) || bytes.Equal(id, nobody) {
				t.Errorf("%s: ids %x and %x", quirk, id, got)
			}
		}

		w := with("empty-1606")
		w.send(stranger, 1027, name("Mike"))
		w.want(1606, 0, 0)
		w.send(nobody, 1025, name("Mike"))
		w.want(1600, 16, 16)

		w = with("new-id-1606")
		w.send(stranger, 1027, name("Mike"))
		if got := w.want(1606, 16, 16); bytes.Equal(got, stranger) || bytes.Equal(got, nobody) {
			t.Errorf("new-id-1606: id %x", got)
		}

		w = with()
		w.send(stranger, 1027, name("Mike"))
		if got := w.want(1606, 16, 16); !bytes.Equal(got, stranger) {
			t.Errorf("1606: id %x, want the one of the request", got)
		}
		w.send(stranger, 1030, name("file")) // has no reply
		w.send(stranger, 1029, name("file"))
		w.want(1604, 16, 16)
		w.send(stranger, 1029, name("file")) // the connection has stayed
		w.want(1604, 16, 16)

		w = with("ack-1030")
		w.send(stranger, 1030, name("file"))
		w.want(1604, 16, 16)

		w = with("close-after-1604")
		w.send(stranger, 1029, name("file"))
		w.want(1604, 16, 16)
		w.wantEnd()

		w = with("drop=1025:1")
		w.send(nobody, 1025, name("Mike"))
		w.wantEnd()

		w = with("needs-one-write")
		if _, err := w.Write(header(nobody, 1025, 255)); err != nil {
			t.Fatal(err)
		}
		w.want(1607, 0, 0)
		w.wantEnd()
	}
}

// TestContentSizeOf1603 shows the three meanings, through a client that does not mind.
func TestContentSizeOf1603(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	const size = 2500 // bytes, 2512 encrypted: packets of 1024, 1024 and 464
	for _, maker := range Peers {
		for quirk, want := range map[string]uint32{"": 2500, "crc-size-ciphertext": 2512, "crc-size-last-packet": 464} {
			server := Server{Maker: maker, Dialect: spec}
			if quirk != "" {
				server.Quirks = []string{quirk}
			}
			s := newScene(t, programs, server, size)
			proxy, recorded := record(t, s.server.Addr)
			if transcript := s.sendTo(proxy, Client{Maker: Cpp, Dialect: spec}); transcript.Exit != 0 {
				t.Errorf("%s: %s", server, transcript.Errors)
			}
			// 1600 and its id, 1602 with id and key, then the header of 1603 and the id.
			if got := binary.LittleEndian.Uint32((<-recorded).received[7+16+7+144+7+16:]); got != want {
				t.Errorf("%s: content size %d, want %d", server, got, want)
			}
		}
	}
}
