package main_test

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"unicode/utf16"

	"sealift/internal/fakeserver"
)

// speaker answers each connection with something else than this protocol. It
// reads first where it has to be asked.
func speaker(t *testing.T, asked bool, says string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				if asked {
					_, _ = io.ReadFull(nc, make([]byte, 23))
				}
				_, _ = nc.Write([]byte(says))
				_, _ = io.Copy(io.Discard, nc)
			}()
		}
	}()
	return ln.Addr().String()
}

// Who asks at the door of another protocol is told so, in one line, at once.
func TestOtherProtocols(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "file", "content")
	for _, tc := range []struct {
		asked     bool
		says, why string
	}{
		{false, "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", `a server of another protocol, SSH, answers there (it says "SSH-2.0-OpenSSH_9.2p1 Debian-2"): is the port right?`},
		{true, "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n", `another protocol, HTTP, answers there (it says "HTTP/1.1 400 Bad Request")`},
		{false, "220 mail.example.org ESMTP\r\n", "SMTP or FTP"},
		{true, "\x15\x03\x01\x00\x02\x02\x16", "another protocol, TLS, answers there: is the port right?"},
		{false, "Welcome to the bulletin board\r\n", `no server of this protocol answers there (it says "Welcome to the bulletin board")`},
	} {
		got := run(t, dir, "send", "--server", speaker(t, tc.asked, tc.says), "--name", "n", "file").failed(t, tc.why)
		if strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("more than one line: %q", got.stderr)
		}
	}
}

// What may be a damaged reply is asked for again, and then said to be what it most
// likely is.
func TestBinaryProtocols(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "file", "content")
	for _, says := range []string{"J\x00\x00\x00\x0a8.0.33\x00\x08\x00\x00\x00", "\xff\xfd\x18\xff\xfd\x20\xff\xfd\x23"} { // MySQL, Telnet
		run(t, dir, "send", "--server", speaker(t, false, says), "--codes", "1025", "--retry-for", "10ms", "--name", "n", "file").
			failed(t, "tried 4 times. Is that a server of this protocol, and is the port right?")
	}
}

func TestServerAddresses(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "file", "content")
	for server, why := range map[string]string{
		"http://files.example.org:1256/up": "want HOST:PORT and not a URL: files.example.org:1256",
		"https://files.example.org":        "want HOST:PORT and not a URL: files.example.org",
		"files.example.org/":               "want HOST:PORT and not a URL: files.example.org",
		"//":                               "without slashes",
		"::1":                              "an IPv6 address in brackets: [::1]:1256",
		"fe80::1:2":                        "[fe80::1:2]:1256",
		"host:1:2":                         "want HOST:PORT, such as files.example.org:1256 or [::1]:1256",
		"host:http":                        "the port must be a number",
		":1256":                            "there is no host in it",
	} {
		run(t, dir, "send", "--server", server, "--name", "n", "file").misused(t, why)
	}
}

// A server that nobody can reach: what was tried, why it failed, what to do.
func TestUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	dir := t.TempDir()
	put(t, dir, "file", "content")
	got := run(t, dir, "send", "--retry-for", "10ms", "--server", addr, "--name", "n", "file").ended(t, 75, "cannot connect to "+addr+": connection refused")
	if strings.Contains(got.stderr, "lost") || strings.Contains(got.stderr, "message=0") || !strings.Contains(got.stderr, "Is the server running, and is the port right?") {
		t.Errorf("stderr %q", got.stderr)
	}
	put(t, dir, "other", "content")
	got = run(t, dir, "send", "--json", "--retry-for", "10ms", "--server", addr, "--name", "n", "file", "other").ended(t, 75, "2 of 2 files are not stored: cannot connect")
	for f, o := range outcomes(t, got, 2) {
		if o["stored"] != false || o["error"] == "" {
			t.Errorf("%s: %v", f, o)
		}
	}
}

// A server that closes each connection at once: no connection is lost, for none
// was there.
func TestClosedAtOnce(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			nc.Close()
		}
	}()
	dir := t.TempDir()
	put(t, dir, "file", "content")
	got := run(t, dir, "send", "--server", ln.Addr().String(), "--codes", "1025", "--retry-for", "1s", "--name", "n", "file").
		ended(t, 75, "cannot connect to "+ln.Addr().String()+": the server closes connections before it is asked anything")
	lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
	if strings.Contains(lines[len(lines)-1], "lost") {
		t.Errorf("stderr %q", got.stderr)
	}
}

// utf16Bytes returns text as an editor of Windows saves it.
func utf16Bytes(order binary.AppendByteOrder, mark bool, text string) string {
	var b []byte
	if mark {
		b = order.AppendUint16(b, 0xfeff)
	}
	for _, u := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

// Windows saves text as UTF-16 here and there.
func TestUTF16(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, mark := range []bool{true, false} {
			s, dir := fakeserver.New(t), t.TempDir()
			put(t, dir, "file", "content")
			put(t, dir, "transfer.info", utf16Bytes(order, mark, s.Addr+"\r\nMichael Jackson\r\nfile\r\n"))
			run(t, dir).succeeded(t)
			put(t, dir, "me.info", utf16Bytes(order, mark, read(t, dir, "me.info")))
			run(t, dir).succeeded(t)
			if got, want := s.Sequence(), "conn 1025 1026 1028 1029 conn 1027 1028 1029"; got != want {
				t.Errorf("%v, mark %t: sequence %q", order, mark, got)
			}
		}
	}
}
