package client_test

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/tlskey"
	"sealift/internal/fakeserver"
)

// folder makes n files of a little over size bytes, and returns what is to be sent.
func folder(t *testing.T, n, size int) (dir string, files []client.File) {
	t.Helper()
	dir = t.TempDir()
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%05d", i)), pattern(size + i)[i:], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := client.FolderFiles(t.Context(), dir, client.FolderOptions{})
	if err != nil || len(files) != n {
		t.Fatal(len(files), err)
	}
	return dir, files
}

// continuingTLS returns a server behind TLS that continues files, and options of a client
// that trusts it and skips what is there.
func continuingTLS(t *testing.T) (*secured, client.Options) {
	s := newSecured(t, func(c *tls.Config) { c.NextProtos = []string{tlskey.ALPNContinue, tlskey.ALPN} })
	s.Continues = true
	o := newHome(t).options(s.Addr)
	o.TLS.Fingerprints = []client.Fingerprint{s.key}
	o.SkipStored = true
	return s, o
}

// count returns how often each message came since before.
func count(s *fakeserver.Server, before string) map[string]int {
	n := map[string]int{}
	for _, m := range strings.Fields(strings.TrimPrefix(s.Sequence(), before)) {
		n[m]++
	}
	return n
}

// What the server has verified is not sent a second time, and what has changed is.
func TestNothingTwice(t *testing.T) {
	const n = 300
	s, o := continuingTLS(t)
	dir, files := folder(t, n, 1000)
	if results, err := client.Run(t.Context(), o, files, nil); err != nil || len(results) != n {
		t.Fatal(len(results), err)
	}
	content := s.Received()
	for _, parallel := range []int{1, 3} {
		o.Parallel = parallel
		before := s.Sequence()
		results, err := client.Run(t.Context(), o, files, nil)
		if err != nil || len(results) != n {
			t.Fatal(len(results), err)
		}
		for _, r := range results {
			if r.Offset != r.Size || r.Packets != 0 || r.Attempts != 0 || r.Cksum == 0 {
				t.Fatalf("%+v", r)
			}
		}
		if got := count(s.Server, before); got["conn"] != 1 || got["1032"] != n || got["1029"] != n || got["1028"] != 0 || s.Received() != content {
			t.Errorf("%v", got)
		}
	}

	// One has other content, one is longer, one is new, one is empty.
	for name, content := range map[string][]byte{
		"f00003": pattern(1000)[1:], "f00005": pattern(2000), "g": pattern(5), "h": nil,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := client.FolderFiles(t.Context(), dir, client.FolderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := s.Sequence()
	results, err := client.Run(t.Context(), o, files, nil)
	if err != nil || len(results) != n+2 {
		t.Fatal(len(results), err)
	}
	if got := count(s.Server, before); got["1028"] != 4 || got["1029"] != n+2 {
		t.Errorf("%v", got)
	}
	if got, _ := s.Stored("f00005"); len(got) != 2000 {
		t.Errorf("%d bytes", len(got))
	}
	o.Force = true
	before = s.Sequence()
	if _, err := client.Run(t.Context(), o, files, nil); err != nil {
		t.Fatal(err)
	}
	if got := count(s.Server, before); got["1028"] != n+2 || got["1032"] != 0 {
		t.Errorf("with Force: %v", got)
	}
}

// A connection that is lost while files are asked about, a 1607 to one and a 1608 that is
// no use do not keep the others from being skipped.
func TestSkippingGoesOn(t *testing.T) {
	const n = 300
	s, o := continuingTLS(t)
	o.Retries = 1
	_, files := folder(t, n, 100)
	if _, err := client.Run(t.Context(), o, files, nil); err != nil {
		t.Fatal(err)
	}
	before := s.Sequence()
	faults := map[codec.Code]int{}
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		faults[m.Code]++
		switch {
		case m.Code == codec.CodeContinue && (faults[m.Code] == 100 || faults[m.Code] == 200 || faults[m.Code] == 300):
			return nil
		case m.Code == codec.CodeContinue && m.Name == "f00010", m.Code == codec.CodeCRCOK && m.Name == "f00020" && faults[codec.CodeSendFile] == 0:
			return fakeserver.GeneralError
		}
		return right
	}
	results, err := client.Run(t.Context(), o, files, nil)
	if err != nil || len(results) != n {
		t.Fatal(len(results), err)
	}
	if got := count(s.Server, before); got["1028"] != 2 || got["conn"] != 4 {
		t.Errorf("%v", got)
	}
}

// Many files are asked about over several connections. One that does not come about leaves its
// files to the others, and a file is asked about once.
func TestManyAreAskedAtOnce(t *testing.T) {
	const n = 1100
	s, o := continuingTLS(t)
	_, files := folder(t, n, 10)
	if _, err := client.Run(t.Context(), o, files, nil); err != nil {
		t.Fatal(err)
	}
	for _, alone := range []bool{false, true} {
		before := s.Sequence()
		var logins atomic.Int32
		others := make(chan struct{}) // closed at the second 1027
		s.Answer = func(m fakeserver.Message, right []byte) []byte {
			switch m.Code {
			case codec.CodeReconnect:
				n := logins.Add(1)
				if n == 2 {
					close(others)
				}
				if alone && n > 1 {
					return fakeserver.GeneralError
				}
			case codec.CodeContinue:
				<-others // as long as nobody else is there, the first does not go on
			}
			return right
		}
		o.RetryFor, o.Retries = 0, 1
		results, err := client.Run(t.Context(), o, files, nil)
		if err != nil || len(results) != n {
			t.Fatal(len(results), err)
		}
		if got := count(s.Server, before); got["1032"] != n || got["1029"] != n || got["1028"] != 0 || got["conn"] < 2 {
			t.Errorf("alone %v: %v", alone, got)
		}
	}
}

// A server that ends the connection at each 1029 is not asked without end.
func TestSkippingEnds(t *testing.T) {
	s, o := continuingTLS(t)
	o.Retries = 2
	_, files := folder(t, 3, 100)
	if _, err := client.Run(t.Context(), o, files, nil); err != nil {
		t.Fatal(err)
	}
	before := s.Sequence()
	asked := 0
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		switch m.Code {
		case codec.CodeContinue:
			asked++
		case codec.CodeCRCOK:
			if asked <= 100 && count(s.Server, before)["1028"] == 0 {
				return nil
			}
		}
		return right
	}
	if _, err := client.Run(t.Context(), o, files, nil); err != nil {
		t.Fatal(err)
	}
	if got := count(s.Server, before); got["conn"] > 10 || got["1028"] == 0 {
		t.Errorf("%v", got)
	}
}

// Part of a small file that was cut is continued, since the server expects the rest
// after it was asked.
func TestAPartThatSkippingFinds(t *testing.T) {
	s, o := continuingTLS(t)
	_, files := folder(t, 3, 2*mib)
	content, err := os.ReadFile(files[1].Path)
	if err != nil {
		t.Fatal(err)
	}
	s.Keep(files[1].Name, content[:mib], len(content))
	if _, err := client.Run(t.Context(), o, files, nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Stored(files[1].Name); string(got) != string(content) || s.Received() > 5*mib+mib/2 {
		t.Errorf("%d bytes are there, %d came", len(got), s.Received())
	}
}

// A file that gets another size after it was asked about is asked about again: the server
// expects as much as the first time.
func TestAFileThatChangesAfterItWasAskedAbout(t *testing.T) {
	s, o := continuingTLS(t)
	_, files := folder(t, 3, 1000)
	for _, size := range []int{500, 5000} {
		content := pattern(size)
		if _, err := client.Run(t.Context(), o, files, &client.Events{Stored: func(f client.File, _ client.Result) {
			if f.Path == files[0].Path {
				if err := os.WriteFile(files[2].Path, content, 0o600); err != nil {
					t.Error(err)
				}
			}
		}}); err != nil {
			t.Fatal(err)
		}
		if got, _ := s.Stored(files[2].Name); string(got) != string(content) {
			t.Errorf("%d bytes are there, want %d", len(got), size)
		}
		if err := os.WriteFile(files[2].Path, pattern(2000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files[0].Path, pattern(size+1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Files are asked about only where the server can know what is whose.
func TestWhereNothingIsSkipped(t *testing.T) {
	for what, change := range map[string]func(*secured, *client.Options){
		"a client without a TLS key": func(_ *secured, o *client.Options) { o.Identity = &memory{} },
		"a folder is not asked for":  func(_ *secured, o *client.Options) { o.SkipStored = false },
		"never":                      func(_ *secured, o *client.Options) { o.Continue = client.ContinueNo },
	} {
		s, o := continuingTLS(t)
		change(s, &o)
		_, files := folder(t, 3, 100)
		for range 2 {
			if _, err := client.Run(t.Context(), o, files, nil); err != nil {
				t.Fatal(what, err)
			}
		}
		if got := count(s.Server, ""); got["1028"] != 6 || got["1032"] != 0 {
			t.Errorf("%s: %v", what, got)
		}
	}
	// ALPN is sealift/3, whatever is remembered.
	s := newSecured(t, nil)
	s.Continues = true
	o := newHome(t).options(s.Addr)
	o.TLS.Fingerprints, o.SkipStored, o.Continue = []client.Fingerprint{s.key}, true, client.ContinueYes
	_, files := folder(t, 3, 9*mib)
	for range 2 {
		if _, err := client.Run(t.Context(), o, files, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(s.Server, ""); got["1028"] != 6 || got["1032"] != 0 {
		t.Errorf("%v", got)
	}
}
