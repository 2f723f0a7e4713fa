package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/internal/fakeserver"
)

func options(s *fakeserver.Server) client.Options {
	return client.Options{
		Server:  s.Addr,
		Name:    "Michael Jackson",
		Backoff: func(int) time.Duration { return 0 },
	}
}

// login returns a client that is ready to send.
func login(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8*13)
	}
	return b
}

func send(c *client.Client, name string, content []byte) (client.Result, error) {
	return c.Send(context.Background(), name, bytes.NewReader(content), int64(len(content)))
}

func TestEverySizeDialectAndPacketSize(t *testing.T) {
	for _, d := range client.Dialects() {
		for _, packetSize := range []int{0, 16, 1000, 1024, 65536, 300_001} {
			if d == client.Single && packetSize != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%v/%d", d, packetSize), func(t *testing.T) {
				s := fakeserver.New(t)
				o := options(s)
				o.Dialect, o.PacketSize = d, packetSize
				c := login(t, o)
				for _, size := range []int{0, 1, 15, 16, 17, 1023, 1024, 4095, 4096, 4097, 100_003, 700_000} {
					name, content := fmt.Sprint("file-", size), pattern(size)
					r, err := send(c, name, content)
					if err != nil {
						t.Fatalf("%d bytes: %v", size, err)
					}
					if got, _ := s.Stored(name); !bytes.Equal(got, content) {
						t.Errorf("%d bytes: the server has %d other ones", size, len(got))
					}
					if r.Cksum != cksum.Checksum(content) || r.Size != int64(size) || r.Attempts != 1 || r.Name != name {
						t.Errorf("%d bytes: result %+v", size, r)
					}
				}
				if n := strings.Count(s.Sequence(), "conn"); n != 1 {
					t.Errorf("%d connections, want one for all files", n)
				}
			})
		}
	}
}

// The protocol numbers at most 65,535 packets.
func TestPacketsGrowWithTheFile(t *testing.T) {
	s := fakeserver.New(t)
	o := options(s)
	o.Dialect = client.Padded
	size := 65535*1024 + 1
	r, err := send(login(t, o), "large", make([]byte, size))
	if err != nil {
		t.Fatal(err)
	}
	if want := (size/16*16+16)/1040 + 1; r.Packets != want {
		t.Errorf("%d packets, want %d of 1040 bytes", r.Packets, want)
	}
	o.PacketSize = 1024
	_, err = send(login(t, func() client.Options { o.Name = "other"; return o }()), "large", make([]byte, size))
	if !errors.Is(err, client.ErrTooLarge) || !strings.Contains(err.Error(), "1040 bytes or more") {
		t.Errorf("with packets of 1024: %v", err)
	}
}

func TestRepliesOneByteAtATime(t *testing.T) {
	s := fakeserver.New(t)
	s.ByteWise = true
	content := pattern(100_003)
	if _, err := send(login(t, options(s)), "f", content); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
		t.Error("stored something else")
	}
}

// countingConn counts writes.
type countingConn struct {
	net.Conn
	mu     *sync.Mutex
	writes *[]int
}

func (c countingConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	*c.writes = append(*c.writes, len(b))
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// There are servers that read a header and its payload with one recv.
func TestAMessageIsOneWrite(t *testing.T) {
	s := fakeserver.New(t)
	var mu sync.Mutex
	var writes []int
	o := options(s)
	o.PacketSize = 1000
	o.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, address)
		return countingConn{nc, &mu, &writes}, err
	}
	if _, err := send(login(t, o), "f", make([]byte, 2000)); err != nil {
		t.Fatal(err)
	}
	const header = 23
	want := []int{
		header + 255,               // 1025
		header + 255 + 160,         // 1026
		header + 267 + 1000,        // 1028, 1 of 3
		header + 267 + 1000,        // 2 of 3
		header + 267 + 2016 - 2000, // 3 of 3
		header + 255,               // 1029
	}
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(writes) != fmt.Sprint(want) {
		t.Errorf("writes of %v bytes, want %v", writes, want)
	}
}

func TestProgress(t *testing.T) {
	s := fakeserver.New(t)
	var got []client.Progress
	o := options(s)
	o.PacketSize = 1008
	o.Progress = func(p client.Progress) { got = append(got, p) }
	if _, err := send(login(t, o), "f", make([]byte, 2500)); err != nil {
		t.Fatal(err)
	}
	want := []client.Progress{{"f", 1008, 2500, 0, 1}, {"f", 2016, 2500, 0, 1}, {"f", 2500, 2500, 0, 1}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// sizedReader is a file whose size is not what it was said to be.
type sizedReader struct{ *bytes.Reader }

func TestAFileThatChangesItsSize(t *testing.T) {
	for _, d := range client.Dialects() {
		for _, real := range []int{0, 99_999, 100_001, 100_016, 200_000} {
			s := fakeserver.New(t)
			o := options(s)
			o.Dialect = d
			c := login(t, o)
			_, err := c.Send(t.Context(), "f", sizedReader{bytes.NewReader(make([]byte, real))}, 100_000)
			if !errors.Is(err, client.ErrChanged) {
				t.Errorf("%v: 100000 bytes announced, %d there: %v", d, real, err)
			}
			if _, ok := s.Stored("f"); ok {
				t.Errorf("%v: the server has a file that nobody meant", d)
			}
			// The connection was cut in the middle of a packet; the client goes on.
			if _, err := send(c, "g", pattern(10)); err != nil {
				t.Errorf("%v: the next file: %v", d, err)
			}
		}
	}
}

// failingReader fails with an error of its own.
type failingReader struct{}

var errDisk = errors.New("disk error")

func (failingReader) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

func TestAFileThatCannotBeRead(t *testing.T) {
	s := fakeserver.New(t)
	_, err := login(t, options(s)).Send(t.Context(), "f", failingReader{}, 10)
	if !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
	if got, want := s.Sequence(), "conn 1025 1026"; got != want {
		t.Errorf("sequence %q, want %q: reading again would not help", got, want)
	}
}

func TestNamesAreChecked(t *testing.T) {
	s := fakeserver.New(t)
	c := login(t, options(s))
	for _, name := range []string{"", "na\xefve.txt", "a\nb", "a\x00b", "a\u0085b", "a\u202egpj.exe", "\ufeffa",
		strings.Repeat("x", 255), strings.Repeat("\u00e9", 128)} {
		if _, err := send(c, name, nil); !errors.Is(err, client.ErrName) {
			t.Errorf("file name %q: %v", name, err)
		}
	}
	for _, name := range []string{strings.Repeat("x", 254), strings.Repeat("\u00e9", 127), "r\u00e9sum\u00e9.pdf", "\u5c65\u6b74\u66f8 \U0001f600"} {
		if _, err := send(c, name, nil); err != nil {
			t.Errorf("file name %q: %v", name, err)
		}
	}
	for _, name := range []string{"", "J\xfcrgen", "a\rb", "a\u2028b", strings.Repeat("x", 101), strings.Repeat("\u00e9", 101), strings.Repeat("\U0001f600", 64)} {
		if _, err := c.Register(t.Context(), name); !errors.Is(err, client.ErrName) {
			t.Errorf("user name %q: %v", name, err)
		}
	}
	for _, name := range []string{strings.Repeat("x", 100), strings.Repeat("\u00e9", 100), "J\u00fcrgen", "\u674e"} {
		if _, err := c.Register(t.Context(), name); err != nil {
			t.Errorf("user name %q: %v", name, err)
		}
	}
}

func TestTooLargeFiles(t *testing.T) {
	s := fakeserver.New(t)
	for _, d := range client.Dialects() {
		o := options(s)
		o.Dialect, o.Name = d, d.String()
		c := login(t, o)
		before := s.Sequence()
		sizes := []int64{codec.MaxFileSize + 1, 1 << 40}
		if d == client.Single { // the fields of a 1028 count towards its Payload Size
			sizes = append(sizes, codec.MaxFileSize, 1<<32-267-1)
		}
		for _, size := range sizes {
			if _, err := c.Send(t.Context(), "f", failingReader{}, size); !errors.Is(err, client.ErrTooLarge) {
				t.Errorf("%v: %d bytes: %v", d, size, err)
			}
		}
		if s.Sequence() != before {
			t.Errorf("%v: the server heard of it", d)
		}
	}
}

func TestTheLargestFileIsPlanned(t *testing.T) {
	s := fakeserver.New(t)
	for _, d := range client.Dialects() {
		o := options(s)
		o.Dialect, o.Name = d, d.String()
		size := int64(codec.MaxFileSize)
		if d == client.Single {
			size = 1<<32 - 267 - 21
		}
		// It goes as far as reading the file.
		if _, err := login(t, o).Send(t.Context(), "f", failingReader{}, size); !errors.Is(err, errDisk) {
			t.Errorf("%v: %d bytes: %v", d, size, err)
		}
	}
}

func TestServerAddress(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:1234": "127.0.0.1:1234",
		"127.0.0.1":      "127.0.0.1:1256",
		"files.example":  "files.example:1256",
		"[::1]:80":       "[::1]:80",
		"[::1]":          "[::1]:1256",
		// One spelling for what known_servers has a line for.
		"h:00080": "h:80", "[0:0::0001]:080": "[::1]:80", "[FE80::1%eth0]": "[fe80::1%eth0]:1256",
		"::1": "", "::1:1256": "", "": "", ":1256": "", "h:": "", "h:0": "", "h:65536": "", "h:x": "",
		"a b:1": "", "[::1": "", "h:1:2": "", "127.0.0.1:+5": "",
	} {
		got, err := client.ServerAddress(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestTheContextEndsIt(t *testing.T) {
	s := fakeserver.New(t)
	s.Packet = func(m fakeserver.Message) []byte { return []byte{} } // takes the header, then nothing
	o := options(s)
	var once sync.Once
	ctx, cancel := context.WithCancel(context.Background())
	o.Progress = func(client.Progress) { once.Do(cancel) }
	c := login(t, o)
	_, err := c.Send(ctx, "f", zeros{}, 1<<30)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("sending: %v", err)
	}

	silent := fakeserver.New(t)
	silentCtx, cancelSilent := context.WithCancel(context.Background())
	silent.Answer = func(m fakeserver.Message, right []byte) []byte {
		cancelSilent()
		<-silent.Over()
		return nil
	}
	c, err = client.Dial(silentCtx, options(silent))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Login(silentCtx); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a reply: %v", err)
	}

	o.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if _, err := client.Dial(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("dialling: %v", err)
	}
}

// zeros is a file of any size.
type zeros struct{}

func (zeros) ReadAt(p []byte, off int64) (int, error) {
	const end = 1 << 30
	if off >= end {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), end-off))
	clear(p[:n])
	return n, nil
}

func TestASilentServerTimesOut(t *testing.T) {
	s := fakeserver.New(t)
	s.Answer = func(fakeserver.Message, []byte) []byte { return []byte{} }
	o := options(s)
	o.ReplyTimeout = time.Millisecond
	o.Retries = -1
	c, err := client.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Login(t.Context()); !errors.Is(err, client.ErrConnection) || !strings.Contains(err.Error(), "no reply within 1ms") {
		t.Errorf("got %v", err)
	}
}
