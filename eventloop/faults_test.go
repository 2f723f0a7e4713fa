package eventloop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"sealift/client"
	"sealift/codec"
	"sealift/internal/testpeer"
	"sealift/session"
)

// Each fault makes the client do what the protocol asks of it.
func TestFaults(t *testing.T) {
	const forever = 99
	for _, tc := range []struct {
		faults   string
		attempts int // of the file, until it is stored; forever: it never is
		injected int // lines in the log
	}{
		{"crc=2", 3, 2},
		{"crc=3", 4, 3},
		{"crc=-1", forever, 4},
		{"error=1025:1,error=1026:2", 1, 3},
		{"error=1028:1", 2, 1},
		{"error=1028:-1", forever, 4},
		{"error=1029:3", 1, 3},
		{"drop=1028:1", 2, 1},
		{"drop=1029:1", 1, 1},
		{"drop=1029:-1", forever, 4},
		{"delay=1ms", 1, 0},
		{"cut=1:1", 2, 1},
		{"cut=3001:2", 3, 2},
		{"cut=10016:1", 1, 0},                              // no more is to come
		{"crc=1,error=1028:1,drop=1029:1,delay=1ms", 4, 3}, // once more because of the 1607 to the second 1029
	} {
		t.Run(tc.faults, func(t *testing.T) {
			t.Parallel()
			faults, err := session.ParseFaults(tc.faults)
			if err != nil {
				t.Fatal(err)
			}
			r := start(t, func(o *Options, cfg *session.Config) { o.ReplyDelay, cfg.Faults = faults.Delay, faults })
			ctx := context.Background()
			c, err := client.Dial(ctx, client.Options{
				Server: r.Addr().String(), Name: "x", PacketSize: 1024,
				Backoff: func(int) time.Duration { return 0 },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Login(ctx); err != nil {
				t.Fatal(err)
			}
			content := random(10_001)
			got, err := c.Send(ctx, "f", bytes.NewReader(content), int64(len(content)))
			switch {
			case tc.attempts == forever:
				if err == nil {
					t.Error("sent although the server never lets it")
				}
			case err != nil:
				t.Error(err)
			case got.Attempts != tc.attempts:
				t.Errorf("sent %d times, want %d", got.Attempts, tc.attempts)
			default:
				r.stored(c.Identity().ID, "f", content)
			}
			if n := r.logs.FilterMessage("FAULT INJECTED").Len(); n != tc.injected {
				t.Errorf("%d faults injected, want %d", n, tc.injected)
			}
		})
	}
}

// A reply that is held back reaches the client also when it is the last one.
func TestFaultDelayBeforeTheEnd(t *testing.T) {
	r := start(t, func(o *Options, _ *session.Config) { o.ReplyDelay = 50 * time.Millisecond })
	nc, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	message := codec.Register{Name: []byte("x")}.Append(nil)
	message[19] = 254 // a Payload Size that no 1025 has
	if _, err := nc.Write(message); err != nil {
		t.Fatal(err)
	}
	want := codec.EmptyReply{Code: codec.CodeError}.Append(nil)
	if got, err := io.ReadAll(nc); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got % x, %v; want % x and the end", got, err, want)
	}
}

func TestFaultReject(t *testing.T) {
	faults, err := session.ParseFaults("reject=1")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(_ *Options, cfg *session.Config) { cfg.Faults = faults })
	c := r.client("x")
	err = c.Reconnect(context.Background(), c.Identity())
	if !errors.Is(err, client.ErrRejected) {
		t.Errorf("the first 1027: %v, want a 1606", err)
	}
}

func TestFaultsThatAreNone(t *testing.T) {
	for _, text := range []string{"", "crc", "crc=0", "crc=x", "error=1", "error=1600:1", "drop=1028", "reject=-2", "delay=fast", "delay=-1s", "cut=1", "cut=0:1", "cut=-1:1", "cut=x:1", "cut=1:0", "crc=1,,"} {
		if _, err := session.ParseFaults(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// A cut is a reset, and not an end in good order.
func TestFaultCutResets(t *testing.T) {
	faults, err := session.ParseFaults("cut=100000:1")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(_ *Options, cfg *session.Config) { cfg.Faults = faults })
	p := &testpeer.Conn{Peer: testpeer.Peer{Name: "x", Pair: testpeer.SharedPair(0)}}
	p.Use(r.raw())
	defer p.Close()
	if err := p.Enter(); err != nil {
		t.Fatal(err)
	}
	f := p.File("f", random(1<<20))
	err = p.SendPackets(f.Packets(testpeer.Spec, 1<<20))
	if err == nil { // a reset is told once: to the write that meets it, or else to this read
		_, _, err = p.Read()
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("%v, want a reset", err)
	}
}
