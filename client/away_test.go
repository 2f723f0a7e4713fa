package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sealift/client"
	"sealift/codec"
	"sealift/internal/fakeserver"
)

// outages makes connections, but for those that a test wants to fail.
type outages struct {
	mu    sync.Mutex
	fail  int // how many of the next connections
	dials int
}

func (o *outages) next(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail = n
}

func (o *outages) dial(ctx context.Context, network, address string) (net.Conn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dials++; o.fail > 0 {
		o.fail--
		return nil, errDisk
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// patient are options of a client that tries for long, and a log of what it says.
func patient(s *fakeserver.Server) (client.Options, *outages, *syncBuffer) {
	o, away, log := options(s), new(outages), new(syncBuffer)
	o.RetryFor, o.DialContext = time.Hour, away.dial
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	return o, away, log
}

// A server that is away for a while is waited for, at any point of a job. It is
// told once, with what is the matter and how long it may take.
func TestAServerThatIsAwayForAWhile(t *testing.T) {
	for _, at := range []codec.Code{0, 1025, 1026, 1027, 1028, 1029} {
		s := fakeserver.New(t)
		o, away, log := patient(s)
		store := &memory{}
		if at == codec.CodeReconnect {
			store.id = register(t, s)
		}
		o.Identity = store
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			if m.Code != at || m.N > 1 {
				return right
			}
			if m.Code == codec.CodeRegister {
				s.ForgetName(m.Name) // as if it had not arrived
			}
			away.next(20)
			return nil
		}
		if at == 0 {
			away.next(20)
		}
		content := pattern(100_000)
		if err := sendAll(o, content); err != nil {
			t.Errorf("away at %v: %v", at, err)
		}
		if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
			t.Errorf("away at %v: stored something else", at)
		}
		if got := strings.Count(log.String(), "disk error"); got != 1 || !strings.Contains(log.String(), "at_most_seconds=3600") {
			t.Errorf("away at %v: told %d times\n%s", at, got, log.String())
		}
	}
}

// The time is over some day, and after the first try where it is short.
func TestAServerThatStaysAway(t *testing.T) {
	o, away, _ := patient(fakeserver.New(t))
	o.RetryFor = 1
	away.next(forever)
	_, err := client.Dial(t.Context(), o)
	if !errors.Is(err, errDisk) || !client.Temporary(err) || away.dials != 1 {
		t.Errorf("%v after %d dials", err, away.dials)
	}
}

// Connections that are lost are retried for the time, and at least as often as
// the protocol wants it.
func TestConnectionsLostAgainAndAgain(t *testing.T) {
	for _, tc := range []struct {
		code     codec.Code
		retryFor time.Duration
		lost     int
		sent     int // 0: the file arrives
	}{
		{1028, time.Hour, 12, 0},
		{1029, time.Hour, 12, 0},
		{1028, 1, 3, 0},
		{1028, 1, forever, 4},
		{1029, 1, forever, 4},
	} {
		s := fakeserver.New(t)
		o, _, _ := patient(s)
		o.RetryFor = tc.retryFor
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			if m.Code == tc.code && m.N <= tc.lost {
				return nil
			}
			return right
		}
		err := sendAll(o, pattern(1000))
		if tc.sent == 0 {
			if err != nil {
				t.Errorf("%v lost %d times: %v", tc.code, tc.lost, err)
			}
			continue
		}
		var e *client.Error
		if !errors.Is(err, client.ErrConnection) || !errors.As(err, &e) || e.Attempts != tc.sent || !client.Temporary(err) {
			t.Errorf("%v lost for ever: %v", tc.code, err)
		}
	}
}

// A 1607 that answers a message is no matter of time.
func TestA1607IsRetriedThreeTimes(t *testing.T) {
	for _, code := range []codec.Code{1025, 1028, 1029} {
		s := fakeserver.New(t)
		o, _, _ := patient(s)
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			if m.Code == code {
				return fakeserver.GeneralError
			}
			return right
		}
		err := sendAll(o, pattern(300_000))
		var e *client.Error
		if !errors.Is(err, client.ErrServer) || !errors.As(err, &e) || e.Code != code || e.Attempts != 4 {
			t.Errorf("%v: %v", code, err)
		}
	}
}

// A server that is replaced by another when it has given an id knows neither the
// id nor the name. The client registers there, too, and keeps both.
func TestReplacedBeforeTheKey(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Hour} {
		s := fakeserver.New(t)
		o, _, _ := patient(s)
		o.RetryFor = wait
		store := &memory{}
		o.Identity = store
		first := true
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			if m.Code != codec.CodePublicKey || !first {
				return right
			}
			if first = m.N < 4; !first {
				s.ForgetClients()
				s.ForgetName(o.Name)
			}
			return fakeserver.GeneralError
		}
		err := sendAll(o, pattern(10))
		want := "conn 1025 1026 1026 1026 1026 1027 1025 1026 1028 1029"
		if wait == 0 { // the protocol's three retries, and no more
			want = "conn 1025 1026 1026 1026 1026"
			if !errors.Is(err, client.ErrServer) {
				t.Error(err)
			}
		} else if err != nil || len(store.kept) != 1 {
			t.Errorf("%v; kept %v", err, store.kept)
		}
		if got := strings.TrimSpace(s.Sequence()); got != want {
			t.Errorf("sequence %q, want %q", got, want)
		}
	}
}

// A server that forgets the client between two files has each under the id that
// it was sent under, and the results say so.
func TestResultsSayAsWhom(t *testing.T) {
	s := fakeserver.New(t)
	s.CloseAfterAck = true
	o := options(s)
	o.Identity = &memory{}
	c, err := client.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	login, err := c.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Send(t.Context(), "first", strings.NewReader("1"), 1)
	if err != nil {
		t.Fatal(err)
	}
	s.ForgetClients()
	s.ForgetName(o.Name)
	second, err := c.Send(t.Context(), "second", strings.NewReader("2"), 1)
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != login.Identity.ID || second.ID == first.ID || second.ID != c.Identity().ID {
		t.Errorf("logged in as %v, sent as %v and %v, now %v", login.Identity.ID, first.ID, second.ID, c.Identity().ID)
	}
}

// A verdict that gets 1607 to the end may be about a file that another sender has
// replaced. With time, the whole file goes again.
func TestReplacedByAnotherSender(t *testing.T) {
	for _, tc := range []struct {
		wait     time.Duration
		refused  int // verdicts
		sends    int
		verdicts int
	}{
		{0, 100, 1, 4},
		{time.Hour, 4, 2, 5},
		{time.Hour, 12, 4, 13},
		{time.Hour, 100, 4, 16},
	} {
		s := fakeserver.New(t)
		o, _, _ := patient(s)
		o.RetryFor = tc.wait
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			if m.Code == codec.CodeCRCOK && m.N <= tc.refused {
				return fakeserver.GeneralError
			}
			return right
		}
		err := sendAll(o, pattern(10))
		if (err == nil) != (tc.verdicts > tc.refused) || err != nil && !errors.Is(err, client.ErrServer) {
			t.Errorf("%d refused: %v", tc.refused, err)
		}
		got := s.Sequence()
		if sends, verdicts := strings.Count(got, "1028"), strings.Count(got, "1029"); sends != tc.sends || verdicts != tc.verdicts {
			t.Errorf("%d refused: sent %d times, with %d verdicts, want %d and %d", tc.refused, sends, verdicts, tc.sends, tc.verdicts)
		}
	}
}

// Nonsense is no matter of time either: it is not the protocol that is spoken
// there. Where it shows which one is, the server is asked once.
func TestNonsenseIsNotWaitedFor(t *testing.T) {
	for _, tc := range []struct {
		says  string
		asked int
	}{
		{"\x83\x01\x02\x03\x04\x05\x06\x07\x08\x09", 4},
		{"SSH-2.0-OpenSSH_9.2\r\n", 1},
	} {
		s := fakeserver.New(t)
		o, _, _ := patient(s)
		s.Answer = func(fakeserver.Message, []byte) []byte { return []byte(tc.says) }
		if err := sendAll(o, nil); !errors.Is(err, client.ErrReply) || client.Temporary(err) {
			t.Errorf("%q: %v", tc.says, err)
		}
		if got := strings.Count(s.Sequence(), "1025"); got != tc.asked {
			t.Errorf("%q: asked %d times", tc.says, got)
		}
	}
}

// door is in front of a server, and turns the next connections away.
type door struct {
	addr string
	mu   sync.Mutex
	shut int
	says []byte // to those
}

func (d *door) close(n int, says []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut, d.says = n, says
}

func newDoor(t *testing.T, s *fakeserver.Server) *door {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	d := &door{addr: ln.Addr().String()}
	go func() {
		for {
			down, err := ln.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			shut := d.shut > 0
			d.shut--
			says := d.says
			d.mu.Unlock()
			go func() {
				defer down.Close()
				if shut {
					_, _ = down.Write(says)
					_ = down.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, down)
					return
				}
				up, err := net.Dial("tcp", s.Addr)
				if err != nil {
					return
				}
				defer up.Close()
				go func() {
					_, _ = io.Copy(down, up)
					down.Close()
				}()
				_, _ = io.Copy(up, down)
			}()
		}
	}()
	return d
}

// A server that takes fewer connections than are wanted gets all files over those
// that it takes, and nobody waits for the others then.
func TestFewerConnectionsThanWanted(t *testing.T) {
	s := fakeserver.New(t)
	o, _, _ := patient(s)
	d := newDoor(t, s)
	o.Server, o.Parallel, o.Identity = d.addr, 3, &memory{}
	var files []client.File
	for i := range 5 {
		path := filepath.Join(t.TempDir(), fmt.Sprint("file ", i))
		if err := os.WriteFile(path, pattern(1000), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, client.File{Path: path})
	}
	results, err := client.Run(t.Context(), o, files, &client.Events{
		LoggedIn: func(client.Login) { d.close(1<<30, fakeserver.GeneralError) },
	})
	if err != nil || len(results) != len(files) {
		t.Errorf("%d of %d are stored: %v", len(results), len(files), err)
	}
}

// A server that turns connections away before it is asked anything, as in a drain
// or at a limit, is waited for: that is neither the message's doing, nor a matter
// of codes or dialects.
func TestTurnedAway(t *testing.T) {
	for _, says := range [][]byte{fakeserver.GeneralError, nil} {
		for _, known := range []bool{false, true} {
			s := fakeserver.New(t)
			d := newDoor(t, s)
			o, _, log := patient(s)
			o.Server, o.Codes, o.Dialect = d.addr, client.AutoCodes, client.Auto
			want := "conn 1025 1026 1028 1029"
			if known {
				o.Identity = &memory{id: register(t, s)}
				want = s.Sequence() + " conn 1027 1028 1029"
			}
			d.close(12, says)
			if err := sendAll(o, pattern(1000)); err != nil {
				t.Errorf("%q: %v", says, err)
			}
			if got := s.Sequence(); got != want {
				t.Errorf("%q: sequence %q, want %q", says, got, want)
			}
			if got := strings.Count(log.String(), "trying again"); got > 3 {
				t.Errorf("%q: told %d times\n%s", says, got, log.String())
			}
		}
	}
}

// A server that restarts again and again while a file is sent costs no probes:
// that a connection is lost with its server says nothing about dialects.
func TestRestartsAreNoMatterOfDialects(t *testing.T) {
	s := fakeserver.New(t)
	o, away, _ := patient(s)
	o.Dialect = client.Auto
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeSendFile && m.N <= 5 {
			away.next(2)
			return nil
		}
		return right
	}
	content := pattern(200_000)
	if err := sendAll(o, content); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Sequence(), "conn 1025 1026 1028"+strings.Repeat(" conn 1027 1028", 5)+" 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

// Any wait ends with its context.
func TestTheContextEndsAWaitForTheServer(t *testing.T) {
	s := fakeserver.New(t)
	o, away, log := patient(s)
	o.Backoff = nil
	away.next(forever)
	ctx, cancel := context.WithCancel(t.Context())
	log.wrote = func(text string) {
		if strings.Contains(text, "trying again") {
			cancel()
		}
	}
	if _, err := client.Dial(ctx, o); !errors.Is(err, context.Canceled) || client.Temporary(err) {
		t.Errorf("got %v", err)
	}
}
