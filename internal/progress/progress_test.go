package progress

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

func TestLineFitsTheTerminal(t *testing.T) {
	long := strings.Repeat("long-name-", 25)
	for _, width := range []int{40, 60, 80, 200} {
		for _, label := range []string{"a", "report.docx", long} {
			for _, done := range []int64{0, 1, 999_999_999, 4_000_000_000} {
				got := line(width, label, done, 4_000_000_000, 0, time.Minute)
				if len(got) > width {
					t.Errorf("width %d: %d columns: %q", width, len(got), got)
				}
			}
		}
	}
	got := line(80, "report.docx", 50_000_000, 200_000_000, 0, 2*time.Second)
	if !strings.HasPrefix(got, "report.docx [====") || !strings.HasSuffix(got, "]  25%  50.0 MB / 200.0 MB  25.0 MB/s  6s left") {
		t.Errorf("got %q", got)
	}
	if got := line(80, "empty", 0, 0, 0, 0); !strings.Contains(got, "100%") {
		t.Errorf("an empty file is done: %q", got)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 4_000_000_000: "4.0 GB", 5e12: "5.0 TB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestTextIsNotMixedWithTheBar(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	b := &Bar{w: &out, width: func() int { return 60 }, now: func() time.Time { return now }}
	b.Update("f", 10, 100)
	b.Update("f", 11, 100) // too soon after the first
	if n := strings.Count(out.String(), "\r"); n != 1 {
		t.Fatalf("drawn %d times: %q", n, out.String())
	}
	out.Reset()
	if _, err := b.Write([]byte("a warning\n")); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "\r\x1b[Ka warning\n" {
		t.Errorf("got %q, want the bar cleared first", got)
	}
	out.Reset()
	b.Update("f", 12, 100)
	if !strings.Contains(out.String(), "12%") {
		t.Errorf("not drawn again below the text: %q", out.String())
	}
	out.Reset()
	b.Clear()
	b.Clear()
	if got := out.String(); got != "\r\x1b[K" {
		t.Errorf("cleared with %q", got)
	}
}

func TestNoTerminalNoBar(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := New(f)
	if b != nil {
		t.Fatal("a file is no terminal")
	}
	b.Update("f", 1, 2)
	b.Clear()
}
