package interop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// recording is what has passed through a proxy when its client has ended the connection.
type recording struct{ sent, received []byte }

// record forwards one connection to the server at addr.
func record(t *testing.T, addr string) (proxyAddr string, recorded <-chan recording) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	done := make(chan recording, 1)
	go func() {
		var sent, received bytes.Buffer
		defer func() { done <- recording{sent.Bytes(), received.Bytes()} }()
		client, err := listener.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		server, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		replies := make(chan struct{})
		go func() {
			defer close(replies)
			_, _ = io.Copy(io.MultiWriter(&received, client), server)
		}()
		_, _ = io.Copy(io.MultiWriter(&sent, server), client)
		server.Close()
		<-replies
	}()
	return listener.Addr().String(), done
}

// requests describes what a client has sent, a line each: the code, and of a 1028 the fields and the size of the body.
func requests(t *testing.T, stream []byte) []string {
	t.Helper()
	var lines []string
	for len(stream) > 0 {
		if len(stream) < 23 {
			t.Fatalf("%d bytes are left after %q", len(stream), lines)
		}
		code := binary.LittleEndian.Uint16(stream[17:])
		size := int(binary.LittleEndian.Uint32(stream[19:]))
		if stream[16] != 3 || size > len(stream)-23 {
			t.Fatalf("version %d, size %d, %d bytes left after %q", stream[16], size, len(stream)-23, lines)
		}
		payload := stream[23 : 23+size]
		stream = stream[23+size:]
		line := fmt.Sprintf("%d", code)
		if code == 1028 {
			line += fmt.Sprintf(" content %d orig %d number %d/%d body %d",
				binary.LittleEndian.Uint32(payload), binary.LittleEndian.Uint32(payload[4:]),
				binary.LittleEndian.Uint16(payload[8:]), binary.LittleEndian.Uint16(payload[10:]), len(payload)-267)
			if name, _, _ := bytes.Cut(payload[12:267], []byte{0}); string(name) != "file.bin" {
				t.Errorf("file name %q", name)
			}
		} else {
			line += fmt.Sprintf(" %d bytes", size)
		}
		lines = append(lines, line)
	}
	return lines
}

// TestDialectsOnTheWire shows that the clients speak the dialects, and not merely the same as their servers.
func TestDialectsOnTheWire(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	const size = 2500 // bytes, 2512 encrypted
	cases := []struct {
		dialect Dialect
		habits  []string
		want    []string
	}{
		{dialect: Dialect{"spec", 0}, want: []string{
			"content 2512 orig 2500 number 1/3 body 1024",
			"content 2512 orig 2500 number 2/3 body 1024",
			"content 2512 orig 2500 number 3/3 body 464"}},
		{dialect: Dialect{"spec", 2512}, want: []string{
			"content 2512 orig 2500 number 1/1 body 2512"}},
		{dialect: Dialect{"single", 0}, want: []string{
			"content 2512 orig 2500 number 1/1 body 2512"}},
		{dialect: Dialect{"padded", 1024}, want: []string{
			"content 2512 orig 2500 number 1/3 body 1024",
			"content 2512 orig 2500 number 2/3 body 1024",
			"content 2512 orig 2500 number 3/3 body 1024"}},
		{dialect: Dialect{"padded", 65269}, want: []string{
			"content 2512 orig 2500 number 1/1 body 65269"}},
		{dialect: Dialect{"zero-based", 1024}, want: []string{
			"content 2512 orig 2500 number 0/3 body 1024",
			"content 2512 orig 2500 number 1/3 body 1024",
			"content 2512 orig 2500 number 2/3 body 1024"}},
		{dialect: Dialect{"per-packet", 1024}, want: []string{
			"content 1040 orig 1024 number 1/3 body 1040",
			"content 1040 orig 1024 number 2/3 body 1040",
			"content 464 orig 452 number 3/3 body 464"}},
		{dialect: Dialect{"per-packet", 1250}, want: []string{
			"content 1264 orig 1250 number 1/2 body 1264",
			"content 1264 orig 1250 number 2/2 body 1264"}},
		{dialect: Dialect{"packet-size", 0}, want: []string{
			"content 1024 orig 2500 number 1/3 body 1024",
			"content 1024 orig 2500 number 2/3 body 1024",
			"content 464 orig 2500 number 3/3 body 464"}},
		{dialect: Dialect{"spec", 0}, habits: []string{"--reverse"}, want: []string{
			"content 2512 orig 2500 number 3/3 body 464",
			"content 2512 orig 2500 number 2/3 body 1024",
			"content 2512 orig 2500 number 1/3 body 1024"}},
		{dialect: Dialect{"spec", 0}, habits: []string{"--extra-packet"}, want: []string{
			"content 2512 orig 2500 number 1/3 body 1024",
			"content 2512 orig 2500 number 2/3 body 1024",
			"content 2512 orig 2500 number 3/3 body 464",
			"content 2512 orig 2500 number 4/3 body 0"}},
		{dialect: Dialect{"padded", 1024}, habits: []string{"--extra-packet"}, want: []string{
			"content 2512 orig 2500 number 1/3 body 1024",
			"content 2512 orig 2500 number 2/3 body 1024",
			"content 2512 orig 2500 number 3/3 body 1024",
			"content 2512 orig 2500 number 4/3 body 1024"}},
	}
	for _, maker := range Peers {
		for _, c := range cases {
			client := Client{Maker: maker, Dialect: c.dialect, Habits: c.habits}
			t.Run(client.String(), func(t *testing.T) {
				s := newScene(t, programs, Server{Maker: Cpp, Dialect: c.dialect}, size)
				proxy, recorded := record(t, s.server.Addr)
				transcript := s.sendTo(proxy, client)
				if transcript.Exit != 0 {
					t.Errorf("status %d after %s: %s", transcript.Exit, transcript.Codes(), transcript.Errors)
				}
				want := []string{"1025 255 bytes", "1026 415 bytes"}
				for _, packet := range c.want {
					want = append(want, "1028 "+packet)
				}
				want = append(want, "1029 255 bytes")
				if got := requests(t, (<-recorded).sent); !slices.Equal(got, want) {
					t.Errorf("sent\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			})
		}
	}
}

func TestHabits(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	const size = 10_001 // bytes, ten packets of 1024
	cases := []struct {
		habits []string
		quirks []string // of the server
		codes  string
	}{
		{[]string{"--reverse"}, nil, "1025 1600 1026 1602 1028x10 1603 1029 1604"},
		{[]string{"--shuffle"}, nil, "1025 1600 1026 1602 1028x10 1603 1029 1604"},
		{[]string{"--later-codes"}, []string{"later-codes"}, "825 1600 826 1602 828x10 1603 900 1604"},
		{[]string{"--extra-packet"}, nil, "1025 1600 1026 1602 1028x11 1603 1029 1604"},
		{[]string{"--split-writes", "header"}, nil, "1025 1600 1026 1602 1028x10 1603 1029 1604"},
		{[]string{"--split-writes", "bytes"}, nil, "1025 1600 1026 1602 1028x10 1603 1029 1604"},
		{[]string{"--one-write"}, nil, "1025 1600 1026 1602 1028x10 1603 1029 1604"},
	}
	for _, from := range Peers {
		for _, to := range Peers {
			for _, c := range cases {
				client := Client{Maker: from, Dialect: spec, Habits: c.habits}
				t.Run(fmt.Sprintf("%s to %s", client, to), func(t *testing.T) {
					s := newScene(t, programs, Server{Maker: to, Dialect: spec, Quirks: c.quirks}, size)
					s.want(s.send(client), 0, c.codes)
					s.wantStored()
				})
			}
		}
	}
}

// TestLaterCodesAreOtherCodes shows that a server of the one edition refuses a client of the other.
func TestLaterCodesAreOtherCodes(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	for _, maker := range Peers {
		s := newScene(t, programs, Server{Maker: maker, Dialect: spec}, 1)
		later := Client{Maker: maker, Dialect: spec, Habits: []string{"--later-codes"}}
		s.want(s.send(later), 1, "825 1607 825 1607 825 1607 825 1607")
		s = newScene(t, programs, Server{Maker: maker, Dialect: spec, Quirks: []string{"later-codes"}}, 1)
		s.want(s.send(Client{Maker: maker, Dialect: spec}), 1, "1025 1607 1025 1607 1025 1607 1025 1607")
	}
}
