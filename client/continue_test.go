package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealift/client"
	"sealift/codec"
	"sealift/internal/fakeserver"
)

const mib = 1 << 20

// cuts ends the connection before packet at of each of the first times transfers.
func cuts(s *fakeserver.Server, at, times int) {
	s.Cut = func(m fakeserver.Message) bool {
		if times == 0 || int(m.SendFile.Packet) != at {
			return false
		}
		times--
		return true
	}
}

// continuing returns a server that continues files, and options of a client that keeps
// what it finds out.
func continuing(t *testing.T) (*fakeserver.Server, client.Options) {
	s := fakeserver.New(t)
	s.Continues = true
	o := options(s)
	o.Known = client.KnownServersFile(filepath.Join(t.TempDir(), "known_servers"))
	return s, o
}

// believes returns what the client remembers about the server.
func believes(t *testing.T, o client.Options) client.Continuing {
	t.Helper()
	facts, err := o.Known.Load(o.Server)
	if err != nil {
		t.Fatal(err)
	}
	if facts == nil {
		return client.ContinueUnknown
	}
	return facts.Continue
}

// went checks what the server heard since before, and that it has the file.
func went(t *testing.T, s *fakeserver.Server, before, want string, content []byte) {
	t.Helper()
	if got := strings.TrimSpace(strings.TrimPrefix(s.Sequence(), before)); got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
	if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
		t.Errorf("the server has %d other bytes", len(got))
	}
}

// A server of which nothing is known is asked when a connection was lost, and what it
// has is not sent again.
func TestGoesOnWhereItWasCut(t *testing.T) {
	for _, d := range []client.Dialect{client.Auto, client.Spec, client.Padded, client.ZeroBased, client.ZeroBasedShort, client.PacketSize} {
		t.Run(d.String(), func(t *testing.T) {
			s, o := continuing(t)
			o.Dialect, o.PacketSize = d, 64<<10
			cuts(s, 40, 1)
			var began []int64
			o.Progress = func(p client.Progress) {
				if p.Offset > 0 && p.Sent == p.Offset {
					began = append(began, p.Offset)
				}
			}
			content := pattern(3*mib + 5)
			c := login(t, o)
			before := s.Sequence()
			r, err := send(c, "f", content)
			if err != nil {
				t.Fatal(err)
			}
			first := "1028"
			if d == client.ZeroBased || d == client.ZeroBasedShort {
				first = "1028(0)"
			}
			went(t, s, before, fmt.Sprintf("%s conn 1027 1032 %[1]s 1029", first), content)
			if sent := s.Received(); sent > int64(len(content)+2*64<<10) {
				t.Errorf("%d bytes were sent of a file of %d", sent, len(content))
			}
			if r.Attempts != 2 || r.Offset != 0 || len(began) != 1 || began[0] < 2*mib {
				t.Errorf("%+v, began at %v", r, began)
			}
			if believes(t, o) != client.ContinueYes {
				t.Error("that the server continues files was not kept")
			}
		})
	}
}

// The next run asks first, where the server is known to continue files, and the file
// has 8 MiB; in each dialect the rest is a transfer of its own.
func TestTheNextRunGoesOn(t *testing.T) {
	for _, d := range client.Dialects() {
		s, o := continuing(t)
		o.Dialect, o.Continue = d, client.ContinueYes
		content := pattern(8*mib + 3)
		s.Keep("f", content[:7*mib+1], len(content))
		c := login(t, o)
		before := s.Sequence()
		r, err := send(c, "f", content)
		if err != nil {
			t.Fatal(d, err)
		}
		first := "1028"
		if d == client.ZeroBased || d == client.ZeroBasedShort {
			first = "1028(0)"
		}
		went(t, s, before, "1032 "+first+" 1029", content)
		if r.Offset != 7*mib+1 || r.Attempts != 1 || s.Received() > 2*mib {
			t.Errorf("%v: %+v, %d bytes of content", d, r, s.Received())
		}
		// A smaller one is not asked about.
		before = s.Sequence()
		if _, err := send(c, "g", content[:8*mib-1]); err != nil || strings.Contains(strings.TrimPrefix(s.Sequence(), before), "1032") {
			t.Errorf("%v: %v, %q", d, err, s.Sequence())
		}
	}
}

// What a server may answer to a 1032, and what becomes of it.
func TestAnswersToA1032(t *testing.T) {
	defer client.Impatient()()
	content := pattern(8*mib + 1)
	other := bytes.Clone(content)
	other[5] ^= 1
	alter := func(change func(*codec.Continued)) func([]byte) []byte {
		return func(right []byte) []byte {
			m, err := codec.ParseContinued(right[codec.ResponseHeaderSize:])
			if err != nil {
				t.Error(err)
			}
			change(&m)
			return m.Append(nil)
		}
	}
	instead := func(reply []byte) func([]byte) []byte { return func([]byte) []byte { return reply } }
	const whole = "1028 1029"
	for _, tc := range []struct {
		what   string
		knows  client.Continuing
		kept   []byte
		answer func(right []byte) []byte
		times  int
		want   string // after a 1032
		after  client.Continuing
	}{
		{"1607, remembered", client.ContinueYes, content[:mib], instead(fakeserver.GeneralError), forever, "conn 1027 " + whole, client.ContinueUnknown},
		{"close once, remembered", client.ContinueYes, content[:mib], instead(nil), 1, "conn 1027 1032 " + whole, client.ContinueYes},
		{"close, remembered", client.ContinueYes, content[:mib], instead(nil), forever, "conn 1027 1032 conn 1027 " + whole, client.ContinueUnknown},
		{"another code", client.ContinueYes, nil, instead(codec.IDReply{Code: codec.CodeAck}.Append(nil)), forever, "conn 1027 " + whole, client.ContinueUnknown},
		{"another id", client.ContinueYes, nil, alter(func(m *codec.Continued) { m.ID[3]++ }), forever, "conn 1027 " + whole, client.ContinueUnknown},
		{"another name", client.ContinueYes, nil, alter(func(m *codec.Continued) { m.FileName = []byte("g") }), forever, "conn 1027 " + whole, client.ContinueUnknown},
		{"more than the file has", client.ContinueYes, nil, alter(func(m *codec.Continued) { m.Offset = 8*mib + 2 }), forever, "conn 1027 " + whole, client.ContinueUnknown},
		{"an absurd offset", client.ContinueYes, nil, alter(func(m *codec.Continued) { m.Offset = 1 << 63 }), forever, "conn 1027 " + whole, client.ContinueUnknown},
		{"a wrong size", client.ContinueYes, nil, func(b []byte) []byte { b[3] = 0; return b }, forever, "conn 1027 " + whole, client.ContinueUnknown},
		{"nothing", client.ContinueYes, nil, nil, 0, whole, client.ContinueYes},
		{"a part", client.ContinueYes, content[:mib], nil, 0, whole, client.ContinueYes},
		{"all", client.ContinueYes, content, nil, 0, "1029", client.ContinueYes},
		{"a part of another file", client.ContinueYes, other[:mib], nil, 0, "1031 1032 " + whole, client.ContinueYes},
		{"all of another file", client.ContinueYes, other, nil, 0, "1031 1032 " + whole, client.ContinueYes},
		{"a wrong checksum each time", client.ContinueYes, content[:mib], alter(func(m *codec.Continued) { m.Offset, m.Cksum = mib, m.Cksum^1 }), forever, "1031 1032 conn 1027 " + whole, client.ContinueYes},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s, o := continuing(t)
			if tc.kept != nil {
				s.Keep("f", tc.kept, len(content))
			}
			s.Answer = func(m fakeserver.Message, right []byte) []byte {
				if m.Code == codec.CodeContinue && m.N <= tc.times {
					return tc.answer(right)
				}
				return right
			}
			if err := o.Known.Save(o.Server, client.Facts{Codes: client.AutoCodes, Dialect: client.Auto, Continue: tc.knows}); err != nil {
				t.Fatal(err)
			}
			c := login(t, o)
			before := s.Sequence()
			r, err := send(c, "f", content)
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == "1029" {
				if r.Attempts != 0 || r.Packets != 0 || r.Offset != r.Size {
					t.Errorf("%+v", r)
				}
				content, _ := s.Stored("f")
				if content != nil {
					t.Error("it was sent")
				}
				if got := strings.TrimPrefix(s.Sequence(), before); got != " 1032 1029" {
					t.Errorf("sequence %q", got)
				}
			} else {
				went(t, s, before, "1032 "+tc.want, content)
			}
			if got := believes(t, o); got != tc.after {
				t.Errorf("the client believes %v, want %v", got, tc.after)
			}
		})
	}
}

// A server that has answered a 1032 in this run is asked once more after a 1607, and then
// gets the whole file; one that is too large for that fails as by any 1607.
func TestA1607ToA1032(t *testing.T) {
	for _, tc := range []struct {
		times int
		most  int64
		want  string
	}{
		{1, 1 << 32, "1032 1032 1028 1029"},
		{forever, 1 << 32, "1032 1032 conn 1027 1028 1029"},
		{3, 9 * mib, "1032 1032 1032 1032 1028 1029"},
		{forever, 9 * mib, "1032 1032 1032 1032"},
	} {
		s, o := continuing(t)
		o.Continue = client.ContinueYes
		c := login(t, o)
		if _, err := send(c, "g", pattern(8*mib)); err != nil {
			t.Fatal(err)
		}
		left := tc.times
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			if m.Code == codec.CodeContinue && left > 0 {
				left--
				return fakeserver.GeneralError
			}
			return right
		}
		before := s.Sequence()
		content := pattern(9*mib + 1)
		restore := client.Segments(tc.most, 64*mib)
		_, err := send(c, "f", content)
		restore()
		if tc.times == forever && tc.most == 9*mib {
			var e *client.Error
			if !errors.Is(err, client.ErrServer) || !client.Temporary(err) || !errors.As(err, &e) || e.Code != codec.CodeContinue {
				t.Errorf("%v", err)
			}
			content = nil
		} else if err != nil {
			t.Error(err)
		}
		went(t, s, before, tc.want, content)
		if believes(t, o) != client.ContinueYes {
			t.Error("a 1607 was taken for good")
		}
	}
}

// A server of which nothing is known, and that does not know 1032, gets the whole file
// after a cut, and is remembered.
func TestServersThatDoNotContinue(t *testing.T) {
	defer client.Impatient()()
	for _, how := range []string{"1607", "close", "silence"} {
		s, o := continuing(t)
		s.Continues, o.ReplyTimeout = false, time.Hour
		cuts(s, 40, 2)
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			switch {
			case m.Code != codec.CodeContinue:
			case how == "close":
				return nil
			case how == "silence":
				<-s.Over()
			}
			return right
		}
		c := login(t, o)
		before := s.Sequence()
		content := pattern(3 * mib)
		if _, err := send(c, "f", content); err != nil {
			t.Fatal(how, err)
		}
		asked := "1032"
		if how == "close" { // that may have been an accident, and is tried again
			asked = "1032 conn 1027 1032"
		}
		// The second cut is not followed by a 1032.
		went(t, s, before, "1028 conn 1027 "+asked+" conn 1027 1028 conn 1027 1028 1029", content)
		if believes(t, o) != client.ContinueNo {
			t.Errorf("%s: it is not remembered", how)
		}
		cuts(s, 40, 1)
		o.Name, before = "other", s.Sequence()
		if _, err := send(login(t, o), "f", content); err != nil || strings.Contains(strings.TrimPrefix(s.Sequence(), before), "1032") {
			t.Errorf("%s: the next run: %v, %q", how, err, s.Sequence())
		}
	}
}

// What was not cut is not worth a question, nor is a file of less than 1 MiB.
func TestWhatIsNoCut(t *testing.T) {
	s, o := continuing(t)
	cuts(s, 10, 1)
	content := pattern(mib - 1)
	c := login(t, o)
	before := s.Sequence()
	if _, err := send(c, "f", content); err != nil {
		t.Fatal(err)
	}
	went(t, s, before, "1028 conn 1027 1028 1029", content)

	s, o = continuing(t)
	s.Answer = faults{1028: {"1607"}}.answer
	c = login(t, o)
	before, content = s.Sequence(), pattern(3*mib)
	if _, err := send(c, "f", content); err != nil {
		t.Fatal(err)
	}
	went(t, s, before, "1028 conn 1027 1028 1029", content)
}

// Each time that the server has more of the file, the number of retries begins anew.
func TestCutsThatGetFurtherAreNotCounted(t *testing.T) {
	s, o := continuing(t)
	o.Retries = 1
	cuts(s, 40, 7)
	content := pattern(20 * mib)
	r, err := send(login(t, o), "f", content)
	if err != nil || r.Attempts != 8 {
		t.Errorf("%+v, %v", r, err)
	}
	if s.Received() > 21*mib {
		t.Errorf("%d bytes were sent", s.Received())
	}
	s, o = continuing(t)
	o.Retries, s.Continues = 1, false
	cuts(s, 40, 7)
	if _, err := send(login(t, o), "f", content[:4*mib]); !errors.Is(err, client.ErrConnection) {
		t.Errorf("a server that continues nothing: %v", err)
	}
}

// A server that forgets each segment as soon as it has said that it has it does not get
// the file for ever.
func TestAServerThatForgetsSegments(t *testing.T) {
	s, o := continuing(t)
	o.Continue, o.Retries = client.ContinueYes, 2
	defer client.Segments(4*mib, mib)()
	c, content := login(t, o), pattern(6*mib)
	for _, tc := range []struct {
		name          string
		forgets, sent int
	}{{"f", 2, 8}, {"g", forever, 4}} {
		left, sent := tc.forgets, 0
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			if m.Code != codec.CodeSendFile {
				return right
			}
			if sent++; sent > 100 {
				return nil
			}
			if left > 0 {
				left--
				s.Keep(tc.name, nil, len(content))
			}
			return right
		}
		_, err := send(c, tc.name, content)
		if ok := err == nil; ok != (tc.forgets == 2) || !ok && !errors.Is(err, client.ErrReply) || sent != tc.sent {
			t.Errorf("forgets %d: %d segments were sent: %v", tc.forgets, sent, err)
		}
	}
}

// A 1029 that gets 1607 on another connection is followed by a question: the server
// may have the file.
func TestAVerdictAfterA1608(t *testing.T) {
	s, o := continuing(t)
	s.Answer = faults{1029: {"drop", "1607"}}.answer
	c := login(t, o)
	before := s.Sequence()
	content := pattern(2 * mib)
	r, err := send(c, "f", content)
	if err != nil || r.Attempts != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	went(t, s, before, "1028 1029 conn 1029 1027 1032 1029", content)
}

// The 1603 of a file that is there is lost: it is not sent again.
func TestALost1603(t *testing.T) {
	s, o := continuing(t)
	s.Answer = faults{1028: {"drop"}}.answer
	c := login(t, o)
	before := s.Sequence()
	content := pattern(2 * mib)
	if _, err := send(c, "f", content); err != nil {
		t.Error(err)
	}
	went(t, s, before, "1028 conn 1027 1032 1029", content)
}

// After a wrong checksum a 1030 takes the server back to the offset of the 1608; over
// another connection it is asked again.
func TestWrongChecksumsOfARest(t *testing.T) {
	content := pattern(9 * mib)
	for _, tc := range []struct {
		faults   faults
		sequence string
	}{
		{faults{1028: {"crc"}}, "1032 1028 1030 1028 1029"},
		{faults{1028: {"crc", "crc", "drop"}}, "1032 1028 1030 1028 1030 1028 conn 1027 1032 1029"},
		{faults{1028: {"crc", "1607"}}, "1032 1028 1030 1028 conn 1027 1032 1029"},
	} {
		s, o := continuing(t)
		o.Continue = client.ContinueYes
		s.Keep("f", content[:5*mib], len(content))
		s.Answer = tc.faults.answer
		c := login(t, o)
		before := s.Sequence()
		r, err := send(c, "f", content)
		if err != nil || r.Offset != 5*mib {
			t.Errorf("%+v, %v", r, err)
		}
		went(t, s, before, tc.sequence, content)
	}
}

// closing is a log that ends the connection when it says what.
type closing struct {
	slog.Handler
	what string
	nc   *net.Conn
}

func (c closing) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, c.what) {
		(*c.nc).Close()
	}
	return nil
}

func (c closing) Enabled(context.Context, slog.Level) bool { return true }

// A connection that is lost after a wrong checksum: on the next one the server is asked, and
// no 1030 takes it back.
func TestLostAfterAWrongChecksum(t *testing.T) {
	s, o := continuing(t)
	o.Continue = client.ContinueYes
	var nc net.Conn
	o.DialContext = func(ctx context.Context, network, address string) (_ net.Conn, err error) {
		nc, err = new(net.Dialer).DialContext(ctx, network, address)
		return nc, err
	}
	o.Logger = slog.New(closing{what: "checksum is wrong", nc: &nc})
	content := pattern(8 * mib)
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeSendFile && m.N == 1 {
			s.Keep("f", content[:5*mib], len(content)) // what it finds when it is asked again
		}
		return faults{1028: {"crc"}}.answer(m, right)
	}
	c := login(t, o)
	before := s.Sequence()
	if _, err := send(c, "f", content); err != nil {
		t.Fatal(err)
	}
	went(t, s, before, "1032 1028 conn 1027 1032 1028 1029", content)
}

// Force sends what the server has already.
func TestForce(t *testing.T) {
	s, o := continuing(t)
	o.Continue = client.ContinueYes
	content := pattern(8 * mib)
	if _, err := send(login(t, o), "f", content); err != nil {
		t.Fatal(err)
	}
	o.Name = "other"
	before := s.Sequence()
	if r, err := send(login(t, o), "f", content); err != nil || r.Attempts != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	went(t, s, before, "conn 1025 1026 1032 1029", content)
	o.Name, o.Force = "third", true
	before = s.Sequence()
	if r, err := send(login(t, o), "f", content); err != nil || r.Attempts != 1 || r.Offset != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	went(t, s, before, "conn 1025 1026 1032 1031 1032 1028 1029", content)
}

// A file that has changed since it was cut is not continued, and one that changes in
// between is sent anew.
func TestAChangedFileIsNotContinued(t *testing.T) {
	s, o := continuing(t)
	path := filepath.Join(t.TempDir(), "f")
	content := pattern(3 * mib)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(content)
	changed[0] ^= 1
	once := true
	s.Cut = func(m fakeserver.Message) bool {
		if m.SendFile.Packet != 40 || !once {
			return false
		}
		once = false
		// In place: the client may be reading what follows.
		if f, err := os.OpenFile(path, os.O_WRONLY, 0); err != nil {
			t.Error(err)
		} else if _, err := f.WriteAt(changed[:1], 0); errors.Join(err, f.Close()) != nil {
			t.Error(err)
		}
		return true
	}
	c := login(t, o)
	before := s.Sequence()
	if _, err := c.SendFile(t.Context(), client.File{Path: path}); err != nil {
		t.Fatal(err)
	}
	got := strings.TrimPrefix(s.Sequence(), before)
	went(t, s, before, strings.TrimSpace(got), changed)
	if !strings.HasPrefix(got, " 1028 conn 1027 1032 1031 1032 1028") {
		t.Errorf("sequence %q", got)
	}
}

// A client that has to register again after a cut has nothing on the server.
func TestACutThatCostsTheIdentity(t *testing.T) {
	s, o := continuing(t)
	cuts(s, 40, 1)
	forgotten := false
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeReconnect && !forgotten {
			forgotten = true
			s.ForgetClients()
			s.ForgetName(m.Name)
			return codec.IDReply{Code: codec.CodeReconnectRejected, ID: m.ID}.Append(nil)
		}
		return right
	}
	c := login(t, o)
	before := s.Sequence()
	content := pattern(3 * mib)
	r, err := send(c, "f", content)
	if err != nil || r.Attempts != 2 || r.ID != c.Identity().ID {
		t.Errorf("%+v, %v", r, err)
	}
	went(t, s, before, "1028 conn 1027 1025 1026 1032 1028 1029", content)
}

// tapped writes down what is written to connections.
type tapped struct {
	net.Conn
	out *bytes.Buffer
}

func (w tapped) Write(b []byte) (int, error) {
	w.out.Write(b)
	return w.Conn.Write(b)
}

// The bytes of a 1032.
func TestTheBytesOfA1032(t *testing.T) {
	s, o := continuing(t)
	o.Continue = client.ContinueYes
	c := login(t, o)
	id := c.Identity()
	c.Close()
	var out bytes.Buffer
	o.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, address)
		return tapped{nc, &out}, err
	}
	o.Identity = &memory{id: &id}
	content := pattern(8*mib + 0x010203)
	s.Keep("f", content[:8*mib], len(content))
	if _, err := send(login(t, o), "f", content); err != nil {
		t.Fatal(err)
	}
	want := append(bytes.Clone(id.ID[:]), 3, 0x08, 0x04, 0x07, 0x01, 0, 0, 'f')
	want = append(want, make([]byte, 254)...)
	want = append(want, 0x03, 0x02, 0x81, 0, 0, 0, 0, 0)
	reconnect := 16 + 7 + 255
	if got := out.Bytes()[reconnect : reconnect+len(want)]; !bytes.Equal(got, want) {
		t.Errorf("got % x", got)
	}
}

// A server that wants the later numbers has none for a 1032: it is not asked, unless
// that is asked for.
func TestNo1032WithLaterNumbers(t *testing.T) {
	for _, asked := range []client.Continuing{client.ContinueUnknown, client.ContinueYes} {
		s, o := continuing(t)
		o.Codes, o.Continue = client.Codes825, asked
		if err := o.Known.Save(o.Server, client.Facts{Codes: client.Codes825, Dialect: client.Auto, Continue: client.ContinueYes}); err != nil {
			t.Fatal(err)
		}
		c := login(t, o)
		before := s.Sequence()
		content := pattern(8 * mib)
		if _, err := send(c, "f", content); err != nil {
			t.Fatal(err)
		}
		want := "1028 1029"
		if asked == client.ContinueYes {
			want = "1032 1028 1029"
		}
		went(t, s, before, want, content)
	}
}
