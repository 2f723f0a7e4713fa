package logqueue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func tell(lost int) []byte { return fmt.Appendf(nil, "lost %d\n", lost) }

// target is a writer that does what the test wants.
type target struct {
	mu   sync.Mutex
	got  bytes.Buffer
	err  error // of the writes to come
	most int   // bytes that they take in spite of it
	hold chan struct{}
	held chan struct{} // told when a write waits
}

func (w *target) Write(p []byte) (int, error) {
	w.mu.Lock()
	hold := w.hold
	w.mu.Unlock()
	if hold != nil {
		w.held <- struct{}{}
		<-hold
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		n := min(w.most, len(p))
		w.got.Write(p[:n])
		w.most -= n
		return n, w.err
	}
	return w.got.Write(p)
}

func (w *target) fail(err error, most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err, w.most = err, most
}

func (w *target) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got.String()
}

func line(t *testing.T, q *Writer, text string) {
	t.Helper()
	if n, err := q.Write([]byte(text + "\n")); n != len(text)+1 || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
}

func TestAllLinesInOrder(t *testing.T) {
	w := new(target)
	q := New(w, 1<<20, tell)
	var want strings.Builder
	for i := range 10_000 {
		line(t, q, strconv.Itoa(i))
		fmt.Fprintln(&want, i)
	}
	_ = q.Sync()
	if got := w.text(); got != want.String() {
		t.Errorf("%d bytes were written, not the %d of the log", len(got), want.Len())
	}
}

// A caller may change its buffer afterwards.
func TestWriteCopies(t *testing.T) {
	w := &target{hold: make(chan struct{}), held: make(chan struct{}, 10)}
	q := New(w, 1<<20, tell)
	line(t, q, "first")
	<-w.held
	p := []byte("second\n")
	_, _ = q.Write(p)
	clear(p)
	close(w.hold)
	_ = q.Sync()
	if got := w.text(); got != "first\nsecond\n" {
		t.Errorf("%q", got)
	}
}

// A writer that takes nothing holds nobody up, what waits is bounded, and the
// log says how many lines it lost when it goes on.
func TestWriterThatBlocks(t *testing.T) {
	const limit = 1000
	w := &target{hold: make(chan struct{}), held: make(chan struct{}, 10)}
	q := New(w, limit, tell)
	line(t, q, "one")
	<-w.held
	for i := range 100_000 {
		line(t, q, fmt.Sprintf("line %03d", i)) // 9 bytes, from 1000 on 10 to 11
	}
	if n := cap(q.pending); n > 2*limit {
		t.Errorf("%d bytes wait", n)
	}
	if err := q.Sync(); err != nil {
		t.Error(err)
	}
	close(w.hold)
	_ = q.Sync()
	line(t, q, "afterwards")
	_ = q.Sync()
	lines := strings.Split(strings.TrimSuffix(w.text(), "\n"), "\n")
	kept := 0
	for i, l := range lines[1:] {
		if l != fmt.Sprintf("line %03d", i) {
			break
		}
		kept++
	}
	want := []string{fmt.Sprintf("lost %d", 100_000-kept), "afterwards"}
	if kept != limit/9 || fmt.Sprint(lines[1+kept:]) != fmt.Sprint(want) {
		t.Errorf("after %d lines: %q, want %q", kept, lines[1+kept:], want)
	}
}

// A writer that fails loses what it fails with, and no more.
func TestWriterThatFails(t *testing.T) {
	w := new(target)
	q := New(w, 1000, tell)
	line(t, q, "before")
	_ = q.Sync()
	w.fail(errors.New("no room"), 0)
	for range 5 {
		line(t, q, "lost")
		_ = q.Sync()
	}
	w.fail(errors.New("no room"), 2)
	line(t, q, "cut in two")
	_ = q.Sync()
	w.fail(nil, 0)
	line(t, q, "after")
	_ = q.Sync()
	line(t, q, "and on")
	_ = q.Sync()
	if got, want := w.text(), "before\ncu\nafter\nlost 6\nand on\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A line longer than all that may wait is lost like any other.
func TestLineThatIsTooLong(t *testing.T) {
	w := new(target)
	q := New(w, 10, tell)
	line(t, q, strings.Repeat("x", 10))
	line(t, q, "short")
	_ = q.Sync()
	if got, want := w.text(), "short\nlost 1\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestManyGoroutines(t *testing.T) {
	r, p, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	q := New(p, 1<<20, tell)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				_, _ = q.Write([]byte("line\n"))
			}
		})
	}
	read := make(chan int)
	go func() {
		b, _ := io.ReadAll(r)
		read <- bytes.Count(b, []byte("line\n"))
	}()
	wg.Wait()
	_ = q.Sync()
	_ = p.Close()
	if n := <-read; n != 8000 {
		t.Errorf("%d lines arrived", n)
	}
}

func BenchmarkWrite(b *testing.B) {
	q := New(io.Discard, DefaultBytes, tell)
	p := []byte(strings.Repeat("x", 199) + "\n")
	for b.Loop() {
		_, _ = q.Write(p)
	}
}
