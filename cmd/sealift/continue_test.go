package main_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/crypto/tlskey"
	"sealift/internal/fakeserver"
)

// A file that was cut goes on at the next call with --resume, and from then on without
// the flag; sealift says so.
func TestResume(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	s.Continues = true
	content := strings.Repeat("0123456789abcdef", 9<<20/16)
	put(t, dir, "big", content)
	call := func(args ...string) result {
		t.Helper()
		got := run(t, dir, append([]string{"send", "--server", s.Addr, "--name", "n", "big"}, args...)...)
		if got.status != 0 {
			t.Fatalf("%+v", got)
		}
		return got
	}
	for i, args := range [][]string{{"--resume"}, nil} {
		before := s.Received()
		s.Keep("big", []byte(content[:7<<20]), len(content))
		got := call(args...)
		if got.stderr != "big: continuing at 7.0 MiB of 9.0 MiB\n" || !strings.Contains(got.stdout, "stored big: 9437184 bytes") ||
			!strings.Contains(got.stdout, ", continued at 7.0 MiB\n") {
			t.Errorf("call %d: %+v", i, got)
		}
		if n := s.Received() - before; n < 2<<20 || n > 2<<20+100 {
			t.Errorf("call %d sent %d bytes", i, n)
		}
	}
	if known, err := os.ReadFile(knownServers(dir)); err != nil || !strings.Contains(string(known), " continue=yes") {
		t.Errorf("%q, %v", known, err)
	}
	before := s.Received()
	if got := call().succeeded(t); got.stdout != fmt.Sprintf("big is on the server already: %d bytes, cksum %d\n", len(content), sumOf(content)) {
		t.Errorf("%+v", got)
	}
	var o struct {
		Stored bool  `json:"stored"`
		Size   int64 `json:"size_bytes"`
		Offset int64 `json:"offset_bytes"`
	}
	if err := json.Unmarshal([]byte(call("--json").succeeded(t).stdout), &o); err != nil || !o.Stored || o.Offset != 9<<20 || o.Size != o.Offset {
		t.Errorf("%+v, %v", o, err)
	}
	if s.Received() != before {
		t.Error("what the server has was sent")
	}
	call("--force").succeeded(t)
	if s.Received() == before {
		t.Error("--force sent nothing")
	}
}

// A connection that is lost in the middle is told, with what becomes of it.
func TestACutIsTold(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	s.Continues = true
	var cut atomic.Bool
	s.Cut = func(m fakeserver.Message) bool { return m.SendFile.Packet == 33 && cut.CompareAndSwap(false, true) }
	put(t, dir, "big", strings.Repeat("0123456789abcdef", 3<<20/16))
	got := run(t, dir, "send", "--server", s.Addr, "--name", "n", "big")
	if got.status != 0 || !strings.Contains(got.stderr, "big: continuing at 2.0 MiB of 3.0 MiB\n") || !strings.HasSuffix(got.stdout, " MB/s, continued at 2.0 MiB\n") {
		t.Errorf("%+v", got)
	}
}

// A folder is sent once.
func TestAFolderTwice(t *testing.T) {
	s, key := fakeserver.OverTLS(t, func(c *tls.Config) { c.NextProtos = []string{tlskey.ALPNContinue, tlskey.ALPN} })
	s.Continues = true
	dir := t.TempDir()
	for i := range 1200 {
		put(t, dir, fmt.Sprintf("in/%d/f%d", i%7, i), fmt.Sprint("content ", i))
	}
	args := []string{"send", "--server", s.Addr, "--name", "n", "--tls-fingerprint", key.String(), "-r", "in"}
	if got := run(t, dir, args...).succeeded(t); strings.Count(got.stdout, "stored ") != 1200 {
		t.Errorf("%d lines", strings.Count(got.stdout, "\n"))
	}
	n := strings.Count(s.Sequence(), "1028")
	if got := run(t, dir, args...).succeeded(t); got.stdout != "1,200 files are on the server already\n" {
		t.Errorf("%+v", got)
	}
	if got := strings.Count(s.Sequence(), "1028"); got != n {
		t.Errorf("%d files were sent again", got-n)
	}
	put(t, dir, "in/0/f0", "content 1")
	if got := run(t, dir, args...).succeeded(t); !strings.HasPrefix(got.stdout, "stored in/0/f0: ") || !strings.HasSuffix(got.stdout, "\n1,199 files are on the server already\n") {
		t.Errorf("%+v", got)
	}
	if got := run(t, dir, append(args, "--json")...).succeeded(t); strings.Count(got.stdout, `"stored":true`) != 1200 {
		t.Errorf("%d lines", strings.Count(got.stdout, "\n"))
	}
}

// A file that no transfer carries is an error before anything is sent, with advice.
func TestTooLarge(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	path := filepath.Join(dir, "huge")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 5<<30); err != nil {
		t.Skip("the file system has no sparse files: ", err)
	}
	run(t, dir, "send", "--server", s.Addr, "--name", "n", "huge").failed(t, "--resume")
	if got := s.Sequence(); got != "conn 1025 1026" {
		t.Errorf("sequence %q", got)
	}
	run(t, dir, "send", "--server", s.Addr, "--name", "n", "--resume", "huge").failed(t, "too large")
	if strings.Contains(s.Sequence(), "1028") {
		t.Errorf("sequence %q", s.Sequence())
	}
	s.Continues = true
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeContinue && m.Total > 1<<30 {
			return fakeserver.GeneralError
		}
		return right
	}
	put(t, dir, "big", strings.Repeat("0123456789abcdef", 9<<20/16))
	got := run(t, dir, "send", "--server", s.Addr, "--resume", "big", "huge") // big shows that the server continues files
	if got.status != 75 || !strings.Contains(got.stderr, "not stored: huge: message 1032 continue of ") ||
		!strings.Contains(got.stderr, ". It may be that it takes no file of that size\n") {
		t.Errorf("%+v", got)
	}
}

func sumOf(content string) uint32 {
	return cksum.Checksum([]byte(content))
}
