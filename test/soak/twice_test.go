//go:build linux

package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealift/codec"
)

// TestTwice sends a folder of small files over TLS, as a client that is pinned to its key,
// and then sends it again: nothing of the files goes out, and only the one that has changed is
// sent.
func TestTwice(t *testing.T) {
	r := newRun(t)
	n := r.size(300, 10_000)
	dir := r.TempDir()
	s := r.start(dir)
	u := r.uploads(1)
	folder := filepath.Join(u.dir, "folder")
	data := int64(0)
	for i := range n {
		data += int64(1 + i%2000)
		at := filepath.Join(folder, fmt.Sprint(i%50))
		if err := os.MkdirAll(at, 0o755); err != nil {
			r.Fatalf("%v", err)
		}
		if err := os.WriteFile(filepath.Join(at, fmt.Sprint("file ", i)), pattern(r.seed+uint64(i), 1+i%2000), 0o600); err != nil {
			r.Fatalf("%v", err)
		}
	}
	m := r.meter(s.addr)
	var cpu time.Duration // of client and server in the last run
	sends := func(what string, more ...string) (sent int64, took time.Duration, output string) {
		before, began, used := m.up.Load(), time.Now(), s.cpu()
		args := append([]string{"send", "--tls", "--tls-trust-first", "--server", m.addr(), "--name", "twice", "--identity", filepath.Join(u.dir, "me.info"), "-r"}, more...)
		p := u.launch(append(args, folder)...)
		<-p.exited
		if p.status() != 0 {
			r.Fatalf("%s: status %d: %s", what, p.status(), p.output.String())
		}
		took = time.Since(began)
		cpu = p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime() + s.cpu() - used
		return m.up.Load() - before, took, p.output.String()
	}
	content, first, _ := sends("the first time")
	asked, second, output := sends("the second time")
	r.Logf("%d files: %d bytes in %.2f s, then %d bytes in %.2f s, with %.2f s of processor time of client and server",
		n, content, first.Seconds(), asked, second.Seconds(), cpu.Seconds())
	// A 1032, the 1029 that makes sure, the record around them, and a handshake.
	question := int64(2*(codec.RequestHeaderSize+codec.NameSize) + 8 + 22)
	if limit := int64(n)*question + 16<<10; asked > limit {
		r.Errorf("the second time %d bytes were sent for %d files, more than %d: content was among them", asked, n, limit)
	}
	if !strings.Contains(strings.ReplaceAll(output, ",", ""), fmt.Sprint(n)) {
		r.Errorf("the client does not say how many files it skipped: %s", output)
	}
	// One changes, with its size as it was.
	changed := filepath.Join(folder, "7", "file 7")
	if err := os.WriteFile(changed, pattern(r.seed+1_000_000, 1+7), 0o600); err != nil {
		r.Fatalf("%v", err)
	}
	if sent, _, _ := sends("with a change"); sent <= asked {
		r.Errorf("with a change %d bytes were sent, %d without", sent, asked)
	}
	all := 0
	r.eachFile(dir, func(path string) {
		if strings.HasSuffix(path, "/7/file 7") {
			r.same(filepath.Join(dir, "files", path), changed)
		}
		all++
	})
	if all != n {
		r.Errorf("%d files are there, %d were sent", all, n)
	}
	if sent, _, _ := sends("with --force", "--force"); sent < data+int64(n)*(2*(codec.RequestHeaderSize+codec.NameSize)+12) {
		r.Errorf("with --force %d bytes were sent, and the files have %d", sent, data)
	}
	r.verify(dir)
	s.finish()
}
