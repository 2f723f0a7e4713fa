package client_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
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

// Servers that take one layout of packets.
func takesPadded(m []byte) bool { return !isPacket(m) || len(m) == 23+267+1024 && number(m) > 0 }
func takesSingle(m []byte) bool { return !isPacket(m) || binary.LittleEndian.Uint16(m[33:]) == 1 }
func takesOwn(m []byte) bool { // per-packet: Content Size is that of the packet, and more than what is in it
	return !isPacket(m) || int(binary.LittleEndian.Uint32(m[23:])) == len(m)-23-267 &&
		int(binary.LittleEndian.Uint32(m[27:])) < len(m)-23-267
}
func takesFromZero(m []byte) bool {
	return !isPacket(m) || len(m) == 23+267+1024 && number(m) < binary.LittleEndian.Uint16(m[33:])
}
func takesNoFile(m []byte) bool { return !isPacket(m) }

func adaptive(p *picky, dir string) client.Options {
	return client.Options{
		Server: p.addr, Name: "Michael Jackson", Identity: client.IdentityFile(filepath.Join(dir, "me.info")),
		Codes: client.AutoCodes, Dialect: client.Auto,
		Known:   client.KnownServersFile(filepath.Join(dir, "known_servers")),
		Backoff: func(int) time.Duration { return 0 },
	}
}

// Whatever a server does about packets that it does not take, the client finds
// out what it takes, with files of other names; and remembers it.
func TestTheDialectIsFoundOutOnce(t *testing.T) {
	defer client.Impatient()()
	for _, tc := range []struct {
		dialect client.Dialect
		takes   func(m []byte) bool
	}{
		{client.Padded, takesPadded},
		{client.ZeroBased, takesFromZero},
		{client.PerPacket, takesOwn},
		{client.Single, takesSingle},
	} {
		for _, other := range []string{answer1607, closeIt, sayNothing} {
			t.Run(fmt.Sprint(tc.dialect, " ", other), func(t *testing.T) {
				s := fakeserver.New(t)
				p := newPicky(t, s, tc.takes, other)
				dir, content := t.TempDir(), pattern(200_003)
				o := adaptive(p, dir)
				if err := sendAll(o, content); err != nil {
					t.Fatal(err)
				}
				if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
					t.Error("stored something else")
				}
				probes := 0
				for i, name := range p.sent() {
					if name == "f" {
						continue
					}
					probes++
					if _, err := os.Stat(filepath.Join(dir, name)); err == nil || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
						t.Errorf("file %d is called %q", i, name)
					}
				}
				if probes == 0 || probes > 20 {
					t.Errorf("%d probes", probes)
				}
				if got := strings.Count(p.take(), "1031"); got < probes/2 {
					t.Errorf("%d probes and %d 1031s", probes, got)
				}
				facts, err := o.Known.Load(p.addr)
				if err != nil || facts == nil || facts.Dialect != tc.dialect || facts.Codes != client.Codes1025 {
					t.Errorf("known: %+v, %v", facts, err)
				}

				// The next run knows it, the batch client too.
				for _, batch := range []bool{false, true} {
					p.sent()
					o.NoProbes = batch
					if err := sendAll(o, content); err != nil {
						t.Fatal(err)
					}
					got := p.take()
					if !strings.HasPrefix(got, "conn 1027 1028 ") || strings.Count(got, "conn") > 1 || strings.Contains(got, "1031") {
						t.Errorf("batch %v: sequence %.60q", batch, got)
					}
				}
			})
		}
	}
}

// A checksum that is wrong twice is a reason, too.
func TestAWrongChecksumMeansAnotherDialect(t *testing.T) {
	s := fakeserver.New(t)
	var mu sync.Mutex
	padded := map[string]bool{}
	p := newPicky(t, s, func(m []byte) bool {
		if isPacket(m) {
			mu.Lock()
			padded[fileName(m)] = takesPadded(m)
			mu.Unlock()
		}
		return true
	}, "")
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		if m.Code == codec.CodeSendFile && !padded[m.Name] {
			right[len(right)-1] ^= 1
		}
		return right
	}
	if err := sendAll(adaptive(p, t.TempDir()), pattern(3000)); err != nil {
		t.Fatal(err)
	}
	want := "conn 1025 1026 1028 1030 1028 1031 "
	if got := p.take(); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, " 1028 1028 1028 1029") {
		t.Errorf("sequence %q", got)
	}
}

// What is asked for is done, and nothing else.
func TestNoProbesUnlessAskedFor(t *testing.T) {
	for _, tc := range []struct {
		dialect  client.Dialect
		noProbes bool
	}{{client.Spec, false}, {client.Auto, true}} {
		s := fakeserver.New(t)
		p := newPicky(t, s, takesNoFile, answer1607)
		o := adaptive(p, t.TempDir())
		o.Dialect, o.NoProbes = tc.dialect, tc.noProbes
		if err := sendAll(o, pattern(10)); !errors.Is(err, client.ErrServer) || errors.Is(err, client.ErrNoDialect) {
			t.Errorf("%v", err)
		}
		if got, want := p.take(), "conn 1025 1026 1028 1028 1028 1028"; got != want {
			t.Errorf("sequence %q, want %q", got, want)
		}
	}
}

func TestAServerThatTakesNoDialect(t *testing.T) {
	s := fakeserver.New(t)
	p := newPicky(t, s, takesNoFile, answer1607)
	err := sendAll(adaptive(p, t.TempDir()), pattern(10))
	var e *client.Error
	if !errors.As(err, &e) || e.Code != codec.CodeSendFile || e.File != "f" || !errors.Is(err, client.ErrServer) || !errors.Is(err, client.ErrNoDialect) {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"probes in", "sealift conform " + p.addr} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	probes := 0
	for _, name := range p.sent() {
		if name != "f" {
			probes++
		}
	}
	if probes > 20 {
		t.Errorf("%d probes", probes)
	}
}

// A server that a probe has ended is named so, and not tried any further.
func TestAServerThatAProbeEnds(t *testing.T) {
	s := fakeserver.New(t)
	var p *picky
	p = newPicky(t, s, func(m []byte) bool {
		if isPacket(m) && fileName(m) != "f" {
			p.close()
		}
		return takesNoFile(m)
	}, closeIt)
	err := sendAll(adaptive(p, t.TempDir()), pattern(10))
	if err == nil || !strings.Contains(err.Error(), "the server is gone") || !strings.Contains(err.Error(), "dialect") {
		t.Errorf("got %v", err)
	}
	if names := p.sent(); len(names) != 3 {
		t.Errorf("files %q: more than one probe", names)
	}
}

// A server that does not have us back during the probes, and keeps our name,
// costs us nothing: who we are stays.
func TestProbesDoNotCostTheIdentity(t *testing.T) {
	s := fakeserver.New(t)
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeReconnect {
			return codec.IDReply{Code: codec.CodeReconnectRejected, ID: m.ID}.Append(nil)
		}
		return right
	}
	p := newPicky(t, s, takesPadded, closeIt)
	o := adaptive(p, t.TempDir())
	content := pattern(3000)
	if err := sendAll(o, content); err != nil {
		t.Error(err)
	}
	if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
		t.Error("stored something else")
	}
	if id, err := o.Identity.Load(); err != nil || id == nil || id.Name != "Michael Jackson" {
		t.Errorf("who we are: %+v, %v", id, err)
	}
}

// Another server than the one that is remembered.
func TestADialectOfAnotherServer(t *testing.T) {
	for _, remembered := range []client.Facts{
		{Codes: client.Codes1025, Dialect: client.Spec},
		{Codes: client.Codes1025, Dialect: client.Single},
		{Codes: client.Codes825, Dialect: client.ZeroBased, PacketSize: 1024, Pause: 20 * time.Millisecond},
	} {
		s := fakeserver.New(t)
		p := newPicky(t, s, func(m []byte) bool { return first(m) && takesPadded(m) }, closeIt)
		o := adaptive(p, t.TempDir())
		if err := o.Known.Save(p.addr, remembered); err != nil {
			t.Fatal(err)
		}
		content := pattern(3000)
		if err := sendAll(o, content); err != nil {
			t.Fatal(err)
		}
		if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
			t.Error("stored something else")
		}
		if facts, _ := o.Known.Load(p.addr); facts.Codes != client.Codes1025 || facts.Dialect != client.Padded || facts.PacketSize != 1024 {
			t.Errorf("%+v: now %+v", remembered, facts)
		}
	}
}

// The batch client does not try dialects, but it lets go of one that is wrong.
func TestBatchForgetsAWrongDialect(t *testing.T) {
	s := fakeserver.New(t)
	p := newPicky(t, s, func(m []byte) bool { return !isPacket(m) || number(m) > 0 }, answer1607)
	o := adaptive(p, t.TempDir())
	o.NoProbes = true
	if err := o.Known.Save(p.addr, client.Facts{Codes: client.Codes1025, Dialect: client.ZeroBased}); err != nil {
		t.Fatal(err)
	}
	if err := sendAll(o, pattern(100_000)); err != nil {
		t.Fatal(err)
	}
	if facts, _ := o.Known.Load(p.addr); facts.Dialect != client.Spec {
		t.Errorf("now %+v", facts)
	}
}

// A file that a good server does not take is not a matter of dialects: the error
// is about the file, and what is remembered stays.
func TestAFileThatIsRefused(t *testing.T) {
	s := fakeserver.New(t)
	p := newPicky(t, s, func(m []byte) bool { return fileName(m) != "f" }, answer1607)
	o := adaptive(p, t.TempDir())
	spec := client.Facts{Codes: client.Codes1025, Dialect: client.Spec}
	if err := o.Known.Save(p.addr, spec); err != nil {
		t.Fatal(err)
	}
	if err := sendAll(o, pattern(10)); !errors.Is(err, client.ErrServer) || errors.Is(err, client.ErrNoDialect) || !strings.HasSuffix(err.Error(), "tried 4 times") {
		t.Errorf("got %v", err)
	}
	if facts, _ := o.Known.Load(p.addr); *facts != spec {
		t.Errorf("now %+v", facts)
	}
}

// A file of one packet is the same in most dialects: that it went through says
// something about others of one packet, and nothing about larger ones.
func TestOnePacketSaysLittle(t *testing.T) {
	s := fakeserver.New(t)
	refused := map[string]bool{"g": true}
	p := newPicky(t, s, func(m []byte) bool { return takesSingle(m) && !refused[fileName(m)] }, answer1607)
	o := adaptive(p, t.TempDir())
	if err := sendAll(o, pattern(100)); err != nil {
		t.Fatal(err)
	}
	if facts, _ := o.Known.Load(p.addr); facts == nil || *facts != (client.Facts{Codes: client.Codes1025, Dialect: client.Auto, OnePacket: true}) {
		t.Errorf("known: %+v", facts)
	}
	p.take()
	c := login(t, o)
	if _, err := send(c, "g", pattern(100)); !errors.Is(err, client.ErrServer) || strings.Count(p.take(), "1028") != 4+1 {
		t.Errorf("another of one packet: %v", err)
	}
	content := pattern(200_000)
	if err := sendAll(o, content); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Stored("f"); !bytes.Equal(got, content) {
		t.Error("stored something else")
	}
	if facts, _ := o.Known.Load(p.addr); facts.Dialect != client.Single || facts.OnePacket {
		t.Errorf("known: %+v", facts)
	}
}

// Clients that send at once share what one of them finds out.
func TestSeveralAtOnceFindOutOnce(t *testing.T) {
	s := fakeserver.New(t)
	p := newPicky(t, s, takesPadded, answer1607)
	dir := t.TempDir()
	var files []client.File
	for i := range 6 {
		name := fmt.Sprintf("file%d", i)
		if err := os.WriteFile(filepath.Join(dir, name), pattern(3000), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, client.File{Path: filepath.Join(dir, name)})
	}
	o := adaptive(p, dir)
	o.Parallel = 3
	results, err := client.Run(t.Context(), o, files, nil)
	if err != nil || len(results) != 6 {
		t.Fatalf("%d stored, %v", len(results), err)
	}
	probes := 0
	for _, name := range p.sent() {
		if strings.HasPrefix(name, "probe") {
			probes++
		}
	}
	if probes == 0 || probes > 4 {
		t.Errorf("%d probes", probes)
	}
}

// After a failure packets are paced, and the pause that has helped is
// remembered: unless there was one packet only, or the server has taken files
// without before.
func TestPausesAreRemembered(t *testing.T) {
	for _, tc := range []struct {
		what   string
		size   int
		known  *client.Facts
		fails  int
		paused time.Duration
	}{
		{"no failure", 200_000, nil, 0, 0},
		{"one failure", 200_000, nil, 1, 300 * time.Microsecond},
		{"two failures", 200_000, nil, 2, 2500 * time.Microsecond},
		{"three failures", 200_000, nil, 3, 20 * time.Millisecond},
		{"one packet", 100, nil, 1, 0},
		{"a good server fails once", 200_000, &client.Facts{Codes: client.Codes1025, Dialect: client.Spec}, 1, 0},
		{"and twice", 200_000, &client.Facts{Codes: client.Codes1025, Dialect: client.Spec}, 2, 2500 * time.Microsecond},
		{"a pause that is too short now", 200_000, &client.Facts{Codes: client.Codes1025, Dialect: client.Spec, Pause: 300 * time.Microsecond}, 2, 20 * time.Millisecond},
	} {
		s := fakeserver.New(t)
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			if m.Code == codec.CodeSendFile && m.N <= tc.fails {
				return fakeserver.GeneralError
			}
			return right
		}
		p := newPicky(t, s, both, "")
		o := adaptive(p, t.TempDir())
		o.NoProbes = true
		if tc.known != nil {
			if err := o.Known.Save(p.addr, *tc.known); err != nil {
				t.Fatal(err)
			}
		}
		if err := sendAll(o, pattern(tc.size)); err != nil {
			t.Errorf("%s: %v", tc.what, err)
		}
		dialect := client.Spec
		if tc.size == 100 { // that is the same in most dialects
			dialect = client.Auto
		}
		if facts, err := o.Known.Load(p.addr); err != nil || facts == nil || facts.Pause != tc.paused || facts.Dialect != dialect {
			t.Errorf("%s: known %+v, %v; want a pause of %v", tc.what, facts, err, tc.paused)
		}
	}
}

// known_servers that cannot be written is worth a warning, and no more.
func TestWhatCannotBeKept(t *testing.T) {
	s := fakeserver.New(t)
	o := options(s)
	var log syncBuffer
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	o.Codes, o.Dialect, o.Known = client.AutoCodes, client.Auto, client.KnownServersFile(filepath.Join(os.Args[0], "known_servers"))
	if err := sendAll(o, pattern(10)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "cannot be kept") {
		t.Errorf("log %q", log.String())
	}
	if got, want := s.Sequence(), "conn 1025 1026 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

// Who waits is told what for and how long yet.
func TestWaitsAreTold(t *testing.T) {
	defer client.Impatient()()
	s := fakeserver.New(t)
	var log syncBuffer
	told := make(chan struct{})
	log.wrote = func(text string) {
		if strings.Contains(text, "still waiting") && strings.Contains(text, "1026") {
			close(told)
			log.wrote = nil
		}
	}
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodePublicKey {
			<-told
		}
		return right
	}
	o := options(s)
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	if err := sendAll(o, pattern(10)); err != nil {
		t.Fatal(err)
	}
	if want := `for="the reply to 1026 public key" at_most_seconds=60`; !strings.Contains(log.String(), want) {
		t.Errorf("log %q", log.String())
	}
}

type syncBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	wrote func(text string)
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrote != nil {
		s.wrote(string(p))
	}
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
