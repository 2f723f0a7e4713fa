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
	"sealift/internal/fakeserver"
)

// memory is an IdentityStore that writes down what is done to it.
type memory struct {
	id   *client.Identity
	kept []client.Identity // that were replaced
	did  []string
	full error // of Reserve
	err  error // of Save
	lock sync.Mutex
}

func (m *memory) Lock(context.Context) (func(), error) {
	m.lock.Lock()
	return m.lock.Unlock, nil
}

func (m *memory) Load() (*client.Identity, error) { return m.id, nil }

func (m *memory) Reserve(client.Identity, *client.Identity) error {
	m.did = append(m.did, "reserve")
	return m.full
}

func (m *memory) Save(id client.Identity, old *client.Identity) error {
	m.did = append(m.did, "save")
	if m.err != nil {
		return m.err
	}
	if old != nil {
		m.kept = append(m.kept, *old)
	}
	m.id = &id
	return nil
}

func (m *memory) Confirm(client.Identity) error {
	m.did = append(m.did, "confirm")
	confirmed := *m.id
	confirmed.KeyPending = false
	m.id = &confirmed
	return nil
}

const forever = 1 << 20

// Each message is answered with a 1607, or not at all, once, three times and
// for ever. It is sent up to four times.
func TestRetries(t *testing.T) {
	whole := []codec.Code{codec.CodeRegister, codec.CodePublicKey, codec.CodeSendFile, codec.CodeCRCOK}
	returning := []codec.Code{codec.CodeReconnect, codec.CodeSendFile, codec.CodeCRCOK}
	for _, fails := range []codec.Code{1025, 1026, 1027, 1028, 1029} {
		for _, fault := range []string{"1607", "drop"} {
			for _, times := range []int{1, 3, 4, forever} {
				// One packet, and so many that the client writes while the reply comes.
				for _, size := range []int{10, 300_000} {
					if size > 10 && fails != codec.CodeSendFile {
						continue
					}
					t.Run(fmt.Sprintf("%d/%s/%d/%d", uint16(fails), fault, times, size), func(t *testing.T) {
						s := fakeserver.New(t)
						store := &memory{}
						messages := whole
						o := options(s)
						o.Identity = store
						if fails == codec.CodeReconnect {
							messages = returning
							store.id = register(t, s)
						}
						before := len(s.Sequence())
						s.Answer = func(m fakeserver.Message, right []byte) []byte {
							if m.Code != fails || m.N > times {
								return right
							}
							if m.Code == codec.CodeRegister { // as if it had not arrived
								s.ForgetName(m.Name)
							}
							if fault == "drop" {
								return nil
							}
							return fakeserver.GeneralError
						}
						content := pattern(size)
						err := sendAll(o, content)

						newConn := fault == "drop" || size > 10
						want := []string{"conn"}
						for _, code := range messages {
							want = append(want, fmt.Sprint(uint16(code)))
							if code != fails {
								continue
							}
							for range min(times, 3) {
								if newConn {
									want = append(want, "conn")
								}
								if newConn && code == codec.CodeSendFile {
									want = append(want, "1027") // for a key of its own
								}
								want = append(want, fmt.Sprint(uint16(code)))
							}
							if times > 3 {
								break
							}
						}
						if got := strings.TrimSpace(s.Sequence()[before:]); got != strings.Join(want, " ") {
							t.Errorf("sequence %q, want %q", got, want)
						}
						var e *client.Error
						switch {
						case times <= 3:
							if err != nil {
								t.Errorf("%v, want success", err)
							}
							if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
								t.Error("stored something else")
							}
						case !errors.As(err, &e) || e.Code != fails || e.Attempts != 4:
							t.Errorf("%#v, want an Error about %d after 4 attempts", err, fails)
						case fault == "1607" != errors.Is(err, client.ErrServer), fault == "drop" != errors.Is(err, client.ErrConnection):
							t.Errorf("%v does not say what happened", err)
						}
					})
				}
			}
		}
	}
}

// sendAll logs in and sends a file "f".
func sendAll(o client.Options, content []byte) error {
	c, err := client.Dial(context.Background(), o)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Login(context.Background()); err != nil {
		return err
	}
	_, err = send(c, "f", content)
	return err
}

// register returns an identity that the server knows. The connection is gone.
func register(t *testing.T, s *fakeserver.Server) *client.Identity {
	t.Helper()
	c := login(t, options(s))
	c.Close()
	id := c.Identity()
	return &id
}

func TestWrongChecksums(t *testing.T) {
	for _, tc := range []struct {
		wrong    int
		sequence string
	}{
		{1, "1028 1030 1028 1029"},
		{3, "1028 1030 1028 1030 1028 1030 1028 1029"},
		{4, "1028 1030 1028 1030 1028 1030 1028 1031"},
		{forever, "1028 1030 1028 1030 1028 1030 1028 1031"},
	} {
		for _, ack := range []bool{false, true} { // some servers answer the 1030
			s := fakeserver.New(t)
			s.Ack1030 = ack
			s.Answer = func(m fakeserver.Message, right []byte) []byte {
				if m.Code == codec.CodeSendFile && m.Name == "f" && m.N <= tc.wrong {
					right[len(right)-1] ^= 0x80
				}
				return right
			}
			c := login(t, options(s))
			r, err := send(c, "f", pattern(100_003))
			if got, want := s.Sequence(), "conn 1025 1026 "+tc.sequence; got != want {
				t.Errorf("%d wrong: sequence %q, want %q", tc.wrong, got, want)
			}
			if tc.wrong <= 3 {
				if err != nil || r.Attempts != tc.wrong+1 {
					t.Errorf("%d wrong: %+v, %v", tc.wrong, r, err)
				}
				continue
			}
			var e *client.Error
			if !errors.Is(err, client.ErrChecksum) || !errors.As(err, &e) || e.Attempts != 4 || e.File != "f" {
				t.Errorf("%d wrong: %v", tc.wrong, err)
			}
			if ack { // not one too many was passed over
				if _, err := send(c, "g", pattern(5)); err != nil {
					t.Errorf("the next file: %v", err)
				}
			}
		}
	}
}

// The fourth wrong checksum is what counts, also when the abort fails.
func TestAnAbortIsRetriedToo(t *testing.T) {
	for _, times := range []int{1, forever} {
		s := fakeserver.New(t)
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			switch {
			case m.Code == codec.CodeSendFile:
				right[len(right)-1] ^= 1
			case m.Code == codec.CodeAbort && m.N <= times:
				return fakeserver.GeneralError
			}
			return right
		}
		_, err := send(login(t, options(s)), "f", nil)
		if !errors.Is(err, client.ErrChecksum) || errors.Is(err, client.ErrServer) != (times == forever) {
			t.Errorf("1031 fails %d times: %v", times, err)
		}
		if got, want := strings.Count(s.Sequence(), "1031"), min(times+1, 4); got != want {
			t.Errorf("1031 fails %d times: sent %d times, want %d", times, got, want)
		}
	}
}

// A connection that is lost while the file comes again is not a reason to say
// 1030 again.
func TestLostAfterA1030(t *testing.T) {
	s := fakeserver.New(t)
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeSendFile {
			switch m.N {
			case 1:
				right[len(right)-1] ^= 1
			case 2:
				return nil
			}
		}
		return right
	}
	if _, err := send(login(t, options(s)), "f", pattern(1000)); err != nil {
		t.Error(err)
	}
	if got, want := s.Sequence(), "conn 1025 1026 1028 1030 1028 conn 1027 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

func TestARejectedClientRegistersAnew(t *testing.T) {
	for _, known := range []bool{true, false} {
		s := fakeserver.New(t)
		old := register(t, s)
		before := len(s.Sequence())
		store := &memory{id: old}
		o := options(s)
		o.Identity, o.Name = store, "not used"
		want := "1027 1028 1029"
		if !known {
			s.ForgetClients()
			s.ForgetName(old.Name)
			want = "1027 1025 1026 1028 1029"
		}
		if err := sendAll(o, pattern(10)); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(s.Sequence()[before:]); got != "conn "+want {
			t.Errorf("known %v: sequence %q, want %q", known, got, want)
		}
		if known {
			if len(store.did) > 0 {
				t.Errorf("the identity was touched: %v", store.did)
			}
			continue
		}
		if fmt.Sprint(store.did) != "[reserve save confirm]" || store.id.Name != old.Name || store.id.Key.Equal(old.Key) {
			t.Errorf("did %v, now %q; want the old name with a new key", store.did, store.id.Name)
		}
		if len(store.kept) != 1 || store.kept[0] != *old {
			t.Errorf("kept %v, want the old identity", store.kept)
		}
	}
}

// Nothing leads on, and nothing is lost.
func TestARejectedClientWhoseNameIsTaken(t *testing.T) {
	s := fakeserver.New(t)
	old := register(t, s)
	store := &memory{id: old}
	s.ForgetClients()
	before := len(s.Sequence())
	o := options(s)
	o.Identity = store
	err := sendAll(o, nil)
	if !errors.Is(err, client.ErrNameTaken) || !errors.Is(err, client.ErrRejected) || client.Temporary(err) || strings.Contains(err.Error(), "earlier try") {
		t.Errorf("got %v", err)
	}
	if fmt.Sprint(store.did) != "[reserve]" || store.id != old {
		t.Errorf("did %v", store.did)
	}
	if got, want := strings.TrimSpace(s.Sequence()[before:]), "conn 1027 1025 1026"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

// A server that knows the id and lacks the key rejects the reconnect, and has the
// name taken: the key leads on, and who we are stays.
func TestARejectedClientWhoseKeyIsMissing(t *testing.T) {
	s := fakeserver.New(t)
	c, err := client.Dial(t.Context(), options(s))
	if err != nil {
		t.Fatal(err)
	}
	id, err := c.Register(t.Context(), "Michael Jackson")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for _, pending := range []bool{false, true} {
		s.ForgetKeys()
		id.KeyPending = pending
		store := &memory{id: &id}
		before := len(s.Sequence())
		o := options(s)
		o.Identity = store
		if err := sendAll(o, pattern(10)); err != nil {
			t.Fatal(err)
		}
		want, did := "conn 1027 1025 1026 1028 1029", "[reserve]"
		if pending {
			want, did = "conn 1026 1028 1029", "[confirm]"
		}
		if got := strings.TrimSpace(s.Sequence()[before:]); got != want {
			t.Errorf("pending %v: sequence %q, want %q", pending, got, want)
		}
		if fmt.Sprint(store.did) != did || store.id.ID != id.ID || !store.id.Key.Equal(id.Key) || store.id.KeyPending {
			t.Errorf("pending %v: did %v", pending, store.did)
		}
	}
}

// A key that the server has never acknowledged, and never will: the client finds
// its way to a registration.
func TestAPendingKeyThatIsRefused(t *testing.T) {
	s := fakeserver.New(t)
	id := register(t, fakeserver.New(t)) // of another server
	id.ID, id.KeyPending = codec.ClientID{9}, true
	store := &memory{id: id}
	o := options(s)
	o.Identity = store
	if err := sendAll(o, pattern(10)); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Sequence(), "conn 1026 1027 1025 1026 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
	if len(store.kept) != 1 || store.kept[0].ID != id.ID {
		t.Errorf("kept %v", store.kept)
	}
}

// The server loses its clients in the middle of a job, and the connection: the
// job goes on as whom the server then registers.
func TestRejectedInTheMiddle(t *testing.T) {
	for _, at := range []codec.Code{codec.CodeSendFile, codec.CodeCRCOK} {
		s := fakeserver.New(t)
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			switch {
			case m.Code == at && m.N == 1:
				s.ForgetClients()
				s.ForgetName("Michael Jackson")
				return nil
			case m.Code == codec.CodeCRCOK && m.N == 2:
				return fakeserver.GeneralError
			}
			return right
		}
		store := &memory{}
		o := options(s)
		o.Identity = store
		content := pattern(1000)
		if err := sendAll(o, content); err != nil {
			t.Fatal(err)
		}
		want := map[codec.Code]string{
			1028: "conn 1025 1026 1028 conn 1027 1025 1026 1028 1029",
			1029: "conn 1025 1026 1028 1029 conn 1029 1027 1025 1026 1028 1029",
		}[at]
		if got := s.Sequence(); got != want {
			t.Errorf("sequence %q, want %q", got, want)
		}
		if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
			t.Error("stored something else")
		}
		if len(store.kept) != 1 {
			t.Errorf("kept %v", store.kept)
		}
	}
}

func TestTheAnswerToARegistrationIsLost(t *testing.T) {
	s := fakeserver.New(t)
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.N == 1 {
			return nil
		}
		return right
	}
	store := &memory{}
	o := options(s)
	o.Identity = store
	err := sendAll(o, nil)
	if !errors.Is(err, client.ErrNameTaken) || !strings.Contains(err.Error(), "an earlier try whose answer was lost") {
		t.Errorf("got %v", err)
	}
	if got, want := s.Sequence(), "conn 1025 conn 1025"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

func TestAnIdentityThatCannotBeKept(t *testing.T) {
	s := fakeserver.New(t)
	store := &memory{err: errDisk}
	o := options(s)
	o.Identity = store
	if err := sendAll(o, nil); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "could not be kept") {
		t.Errorf("got %v", err)
	}
	if got, want := s.Sequence(), "conn 1025"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

// Before a name is asked for, it is certain that its id can be kept.
func TestNoRoomForAnIdentity(t *testing.T) {
	s := fakeserver.New(t)
	store := &memory{full: errDisk}
	o := options(s)
	o.Identity = store
	if err := sendAll(o, nil); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "nothing was registered") {
		t.Errorf("got %v", err)
	}
	if got, want := s.Sequence(), "conn"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

// A server that gives up in the middle of a file replies and reads no more.
// The client must not be stuck in its write.
func TestAnEarly1607(t *testing.T) {
	for _, times := range []int{1, forever} {
		for _, d := range []client.Dialect{client.Spec, client.Single} {
			s := fakeserver.New(t)
			s.Packet = func(m fakeserver.Message) []byte {
				at := uint16(3)
				if d == client.Single {
					at = 1
				}
				if m.SendFile.Packet == at && m.N <= times {
					return fakeserver.GeneralError
				}
				return nil
			}
			o := options(s)
			o.Dialect = d
			c := login(t, o)
			const size = 64 << 20 // more than the kernel takes on its own
			r, err := c.Send(t.Context(), "f", io.NewSectionReader(zeros{}, 0, size), size)
			if times == 1 {
				if err != nil || r.Attempts != 2 {
					t.Errorf("%v: %+v, %v", d, r, err)
				}
				if got, want := s.Sequence(), "conn 1025 1026 1028 conn 1027 1028 1029"; got != want {
					t.Errorf("%v: sequence %q, want %q", d, got, want)
				}
			} else {
				if !errors.Is(err, client.ErrServer) {
					t.Errorf("%v: %v", d, err)
				}
				if got, want := s.Sequence(), "conn 1025 1026 1028 conn 1027 1028 conn 1027 1028 conn 1027 1028"; got != want {
					t.Errorf("%v: sequence %q, want %q", d, got, want)
				}
			}
		}
	}
}

func TestAServerThatCannotBeReached(t *testing.T) {
	dials, waited := 0, []int{}
	o := client.Options{
		Server: "127.0.0.1:1256",
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			dials++
			return nil, errDisk
		},
		Backoff: func(retry int) time.Duration {
			waited = append(waited, retry)
			return 0
		},
	}
	_, err := client.Dial(t.Context(), o)
	if !errors.Is(err, client.ErrConnection) || !errors.Is(err, errDisk) || dials != 4 || fmt.Sprint(waited) != "[1 2 3]" {
		t.Errorf("%v after %d connections, waits %v", err, dials, waited)
	}
	if want := "cannot connect to 127.0.0.1:1256: disk error; tried 4 times"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

// Some servers close the connection after a 1604. The next file begins with a
// reconnect then.
func TestConnectionClosedAfterAck(t *testing.T) {
	s := fakeserver.New(t)
	s.CloseAfterAck = true
	c := login(t, options(s))
	for _, name := range []string{"a", "b", "c"} {
		if _, err := send(c, name, pattern(100)); err != nil {
			t.Fatal(err)
		}
	}
	got := s.Sequence()
	if strings.Count(got, "1027") != 2 || strings.Count(got, "1029") != 3 || strings.Count(got, "1025") != 1 {
		t.Errorf("sequence %q", got)
	}
}
