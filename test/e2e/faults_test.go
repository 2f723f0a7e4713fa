//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sealift/codec"
	"sealift/internal/fakeserver"
	"sealift/internal/testpeer"
)

const forever = 1 << 20

// newFakeServer is one that sealift reaches as it reaches sealiftd.
func newFakeServer(t *testing.T) *fakeserver.Server {
	s := fakeserver.New(t)
	if testpeer.OverTLS() {
		accept, _ := testpeer.Terminate()
		r := &testpeer.Relay{Near: accept}
		if err := r.Start(s.Addr); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		s.Addr = r.Addr()
	}
	return s
}

// script is what a server does instead of what is right.
type script struct {
	mu     sync.Mutex
	answer func(m fakeserver.Message, right []byte) []byte
}

// scripted starts a server that does what is right until its script is set.
func scripted(t *testing.T) (*fakeserver.Server, *script) {
	s, sc := newFakeServer(t), new(script)
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		sc.mu.Lock()
		defer sc.mu.Unlock()
		if sc.answer == nil {
			return right
		}
		return sc.answer(m, right)
	}
	// The race detector does not see that the other process comes later: this
	// takes the lock that the server takes with each connection.
	_ = s.Sequence()
	return s, sc
}

// set sets the script, nil for what is right. Scripts run one at a time; after
// set, what the one before has written may be read.
func (sc *script) set(answer func(m fakeserver.Message, right []byte) []byte) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.answer = answer
}

// batch is a directory for sealift without arguments.
type batch struct {
	t       *testing.T
	dir     string
	content []byte
}

func newBatch(t *testing.T, s *fakeserver.Server) *batch {
	b := &batch{t: t, dir: t.TempDir(), content: randomBytes(200_000, 1)}
	put(t, filepath.Join(b.dir, "file"), b.content)
	put(t, filepath.Join(b.dir, "transfer.info"), transferInfo(s.Addr, "Michael Jackson", "file"))
	return b
}

func (b *batch) run() result {
	b.t.Helper()
	return run(b.t, b.dir, sealift)
}

// me is the me.info as it is, "" if there is none.
func (b *batch) me() string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, "me.info"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.t.Fatal(err)
	}
	if err == nil {
		readMe(b.t, filepath.Join(b.dir, "me.info")) // it is never half of one
	}
	return string(text)
}

// stored makes sure that the server has the file.
func (b *batch) stored(s *fakeserver.Server) {
	b.t.Helper()
	if got, _ := s.Stored("file"); !bytes.Equal(got, b.content) {
		b.t.Error("the server does not have the file")
	}
}

// sequence is what a server has heard since the last time.
func sequence(s *fakeserver.Server, seen *int) string {
	all := s.Sequence()
	defer func() { *seen = len(all) }()
	return strings.TrimSpace(all[*seen:])
}

// Each message is answered with 1607, or by hanging up, once, three times and
// for ever. It is sent again up to three times, and nothing else is, but for a
// reconnect ahead of a file on a new connection; then sealift ends with a fatal error. What it knows of itself stays.
func TestServerThatFails(t *testing.T) {
	firstVisit := []codec.Code{1025, 1026, 1028, 1029}
	nextVisit := []codec.Code{1027, 1028, 1029}
	for _, fault := range []string{"1607", "hangs up"} {
		for _, fails := range []codec.Code{1025, 1026, 1027, 1028, 1029} {
			for _, times := range []int{1, 3, forever} {
				t.Run(fmt.Sprintf("%s/%d/%d", fault, uint16(fails), times), func(t *testing.T) {
					t.Parallel() // they mostly wait before they try again
					s, script := scripted(t)
					b := newBatch(t, s)
					messages, seen := firstVisit, 0
					if fails == codec.CodeReconnect {
						messages = nextVisit
						b.run().succeeded(t)
						_ = sequence(s, &seen)
					}
					before := b.me()
					broken, keptAtOnce := 0, true
					script.set(func(m fakeserver.Message, right []byte) []byte {
						if m.Code == codec.CodePublicKey {
							_, err := os.Stat(filepath.Join(b.dir, "me.info"))
							keptAtOnce = keptAtOnce && err == nil
						}
						if m.Code != fails || broken >= times {
							return right
						}
						broken++
						if m.Code == codec.CodeRegister {
							s.ForgetName(m.Name) // as if it had not arrived
						}
						if fault == "1607" {
							return fakeserver.GeneralError
						}
						return nil
					})

					got := run(t, b.dir, sealift, "--codes", "1025")
					script.set(nil)

					want := []string{"conn"}
					for _, code := range messages {
						want = append(want, fmt.Sprint(uint16(code)))
						if code != fails {
							continue
						}
						for range min(times, 3) {
							// After a 1607 in the middle of many packets, more of them may come.
							if fault == "hangs up" || code == codec.CodeSendFile {
								want = append(want, "conn")
							}
							// Content goes only under a key of the connection's own.
							if code == codec.CodeSendFile {
								want = append(want, "1027")
							}
							want = append(want, fmt.Sprint(uint16(code)))
						}
						if times > 3 {
							break
						}
					}
					if got, want := sequence(s, &seen), strings.Join(want, " "); got != want {
						t.Errorf("the server heard %q, want %q", got, want)
					}
					if !keptAtOnce {
						t.Error("there was no me.info when the 1026 came")
					}
					after := b.me()
					switch {
					case before != "" && after != before:
						t.Error("me.info has changed")
					case before == "" && (after == "") != (fails == codec.CodeRegister && times > 3):
						t.Errorf("me.info is %q", after)
					}
					if times <= 3 {
						got.succeeded(t)
						b.stored(s)
						return
					}
					why := "(1607)"
					if fault == "hangs up" {
						why = "the connection is lost"
					}
					got.later(t, fmt.Sprintf("message %d", uint16(fails)))
					got.later(t, why)
					if strings.Contains(got.stdout, "stored") {
						t.Errorf("stdout %q", got.stdout)
					}
					// Nothing is lost: on a server that has recovered it goes on.
					b.run().succeeded(t)
					b.stored(s)
				})
			}
		}
	}
}

// A checksum that is wrong once or three times is made good; four times, and
// the client gives up with a 1031 and a fatal error.
func TestServerThatSpoilsChecksums(t *testing.T) {
	t.Parallel()
	const gaveUp = "conn 1025 1026 1028 1030 1028 1030 1028 1030 1028 1031"
	for _, tc := range []struct {
		times int
		want  string
	}{
		{1, "conn 1025 1026 1028 1030 1028 1029"},
		{3, "conn 1025 1026 1028 1030 1028 1030 1028 1030 1028 1029"},
		{4, gaveUp},
		{forever, gaveUp},
	} {
		s, script := scripted(t)
		b, seen := newBatch(t, s), 0
		script.set(func(m fakeserver.Message, right []byte) []byte {
			if m.Code == codec.CodeSendFile && m.N <= tc.times {
				right[len(right)-1] ^= 1 // Cksum is the last field of a 1603
			}
			return right
		})
		got := b.run()
		if heard := sequence(s, &seen); heard != tc.want {
			t.Errorf("%d times: the server heard %q, want %q", tc.times, heard, tc.want)
		}
		if tc.times <= 3 {
			got.succeeded(t)
			b.stored(s)
		} else {
			got.failed(t, "checksum")
		}
		if b.me() == "" {
			t.Error("me.info is gone")
		}
	}
}

// A reconnect that is rejected: the client registers anew under the same name,
// each time that it happens. The old me.info is there until the new one is, and
// is kept then.
func TestServerThatRejectsTheReconnect(t *testing.T) {
	t.Parallel()
	for _, times := range []int{1, 3, forever} {
		s, script := scripted(t)
		b, seen := newBatch(t, s), 0
		b.run().succeeded(t)
		_ = sequence(s, &seen)
		there := true // the old me.info, when the 1025 came
		script.set(func(m fakeserver.Message, right []byte) []byte {
			switch {
			case m.Code == codec.CodeReconnect && m.N <= times:
				s.ForgetName(m.Name)
				return codec.IDReply{Code: codec.CodeReconnectRejected, ID: m.ID}.Append(nil)
			case m.Code == codec.CodeRegister:
				_, err := os.Stat(filepath.Join(b.dir, "me.info"))
				there = there && err == nil
			}
			return right
		})
		for visit := 1; visit <= 5; visit++ {
			before := b.me()
			b.run().succeeded(t)
			b.stored(s)
			want, anew := "conn 1027 1028 1029", false
			if visit <= times {
				want, anew = "conn 1027 1025 1026 1028 1029", true
			}
			if heard := sequence(s, &seen); heard != want {
				t.Errorf("rejects %d times, visit %d: the server heard %q, want %q", times, visit, heard, want)
			}
			after := b.me()
			if (before != after) != anew || !strings.HasPrefix(after, "Michael Jackson\n") {
				t.Errorf("rejects %d times, visit %d: me.info was\n%s\nand is\n%s", times, visit, before, after)
			}
			if id := strings.Split(before, "\n")[1]; anew && string(get(t, filepath.Join(b.dir, "me.info."+id))) != before {
				t.Errorf("rejects %d times, visit %d: the old me.info was not kept", times, visit)
			}
		}
		script.set(nil)
		if !there {
			t.Error("the old me.info was gone when the 1025 came")
		}
	}
}

// Rejected, and the name is taken: that is the end of the run, and not of
// me.info. Who puts it aside can register under another name.
func TestRejectedAndTaken(t *testing.T) {
	s, _ := scripted(t)
	b, seen := newBatch(t, s), 0
	b.run().succeeded(t)
	before := b.me()
	s.ForgetClients()
	_ = sequence(s, &seen)
	b.run().failed(t, "1601")
	if got, want := sequence(s, &seen), "conn 1027 1025 1026"; got != want {
		t.Errorf("the server heard %q, want %q", got, want)
	}
	if me := b.me(); me != before {
		t.Errorf("me.info is %q", me)
	}
	if err := os.Rename(filepath.Join(b.dir, "me.info"), filepath.Join(b.dir, "aside")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(b.dir, "transfer.info"), transferInfo(s.Addr, "Janet Jackson", "file"))
	b.run().succeeded(t)
	if !strings.HasPrefix(b.me(), "Janet Jackson\n") {
		t.Error("me.info has another name")
	}
}

// Nobody listens: four tries, and a fatal error. Nothing is written.
func TestNoServer(t *testing.T) {
	t.Parallel()
	b := newBatch(t, newFakeServer(t))
	put(t, filepath.Join(b.dir, "transfer.info"), transferInfo("127.0.0.1:1", "Michael Jackson", "file"))
	got := b.run().later(t, "tried 4 times")
	if n := strings.Count(got.stderr, "trying again"); n != 3 {
		t.Errorf("%d retries are shown: %s", n, got.stderr)
	}
	if me := b.me(); me != "" {
		t.Errorf("me.info %q", me)
	}
}
