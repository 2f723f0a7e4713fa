//go:build unix

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealift/codec"
	"sealift/internal/fakeserver"
)

// changes are what others may do to a file while it is sent. Each gets the path
// of the file, and the new content, as long as the old one.
func changes(t *testing.T) map[string]func(path, content string) {
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	overwrite := func(path, content string) {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(err)
		_, err = f.WriteString(content)
		must(err)
		must(f.Close())
	}
	return map[string]func(path, content string){
		"overwritten": overwrite,
		"appended to": func(path, content string) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			must(err)
			_, err = f.WriteString(content)
			must(err)
			must(f.Close())
		},
		"cut": func(path, content string) { must(os.Truncate(path, 3)) },
		"overwritten, with its old times": func(path, content string) {
			info, err := os.Stat(path)
			must(err)
			overwrite(path, content)
			must(os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
		"replaced": func(path, content string) {
			must(os.WriteFile(path+".new", []byte(content), 0o644))
			info, err := os.Stat(path)
			must(err)
			must(os.Chtimes(path+".new", info.ModTime(), info.ModTime()))
			must(os.Rename(path+".new", path))
		},
	}
}

// at1028 has the server do something when a file has arrived, before it answers.
func at1028(s *fakeserver.Server, do func(n int)) {
	s.Answer = func(m fakeserver.Message, right []byte) []byte {
		if m.Code == codec.CodeSendFile {
			do(m.N)
		}
		return right
	}
	s.Sequence() // takes the lock that each connection takes, which then has Answer
}

// A file that changes while it is sent is sent again, and what was sent before
// is not confirmed.
func TestAFileThatChanges(t *testing.T) {
	for what, change := range changes(t) {
		s, dir := fakeserver.New(t), t.TempDir()
		path := filepath.Join(dir, "file")
		put(t, dir, "file", "old content")
		at1028(s, func(n int) {
			if n == 1 {
				change(path, "NEW CONTENT")
			}
		})
		got := send(t, s, dir, "--log-level", "error", "file").succeeded(t)
		now, _ := os.ReadFile(path)
		heard(t, s, "file="+string(now))
		if got, want := s.Sequence(), "conn 1025 1026 1028 1031 1028 1029"; got != want {
			t.Errorf("%s: sequence %q, want %q", what, got, want)
		}
		if !strings.Contains(got.stdout, "sent 2 times") {
			t.Errorf("%s: %q", what, got.stdout)
		}
	}
}

// One that changes each time is never confirmed, and the next file goes.
func TestAFileThatChangesAllTheTime(t *testing.T) {
	for what, change := range changes(t) {
		s, dir := fakeserver.New(t), t.TempDir()
		path := filepath.Join(dir, "file")
		put(t, dir, "file", "the content at the beginning")
		at1028(s, func(n int) {
			if what == "cut" {
				_ = os.WriteFile(path, []byte("longer than the three bytes"), 0o644)
			}
			if n <= 4 {
				change(path, fmt.Sprint("THE CONTENT AT THE TIME OF ", n))
			}
		})
		put(t, dir, "other", "")
		got := send(t, s, dir, "--log-level", "error", "file", "other").failed(t, "1 of 2 files is not stored")
		if got, want := s.Sequence(), "conn 1025 1026"+strings.Repeat(" 1028 1031", 4)+" 1028 1029"; got != want {
			t.Errorf("%s: sequence %q, want %q", what, got, want)
		}
		if strings.Contains(got.stdout, "stored file") || !strings.Contains(got.stderr, "the file changed while it was sent") || !strings.Contains(got.stderr, "tried 4 times") {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

// Stores into a page that was mapped and changed before do not show in the times
// of the file.
func TestAFileThatChangesInMemory(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "file", strings.Repeat("old ", 3000))
	f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := syscall.Mmap(int(f.Fd()), 0, 12_000, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(page) }()
	for i := range page {
		page[i] = '-'
	}
	at1028(s, func(n int) {
		if n == 1 {
			page[5000] = '+'
		}
	})
	send(t, s, dir, "--log-level", "error", "file").succeeded(t)
	heard(t, s, "file="+string(page))
	if got, want := s.Sequence(), "conn 1025 1026 1028 1031 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

// What only touches what is known of a file is no change, and a file that has
// been left alone is sent once.
func TestAFileThatOnlySeemsToChange(t *testing.T) {
	s, dir := fakeserver.New(t), t.TempDir()
	put(t, dir, "file", "content")
	path := filepath.Join(dir, "file")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	at1028(s, func(int) { _ = os.Chmod(path, 0o600) })
	send(t, s, dir, "file").succeeded(t)
	if got, want := s.Sequence(), "conn 1025 1026 1028 1029"; got != want {
		t.Errorf("sequence %q, want %q", got, want)
	}
}

// A file that the system makes up when it is read has no size that could be
// sent. That is told at once, with what helps.
func TestFilesWithoutASize(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems have no /proc/version, and make up no other file")
	}
	made := "/proc/version"
	s, dir := fakeserver.New(t), t.TempDir()
	got := send(t, s, dir, made).failed(t, "/proc/version: its size is not that of its content: the system says 0 bytes. To send what can be read of it: sealift send --as NAME - </proc/version")
	if strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("more than one line: %q", got.stderr)
	}
	silent(t, s)
	content, err := os.Open(made)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	want, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, dir, "send", "--server", s.Addr, "--name", "n", "--as", "version", "-")
	cmd.Stdin = content
	finish(t, cmd).succeeded(t)
	heard(t, s, "version="+string(want))
}
