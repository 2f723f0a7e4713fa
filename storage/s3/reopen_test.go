package s3

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"sealift/internal/testservices"
	"sealift/storage"
)

// servers are two stores that share a bucket.
func servers(t *testing.T, b *testservices.Bucket) (one, other *Store) {
	one = open(t, b, Options{PartSize: minPart})
	return one, openAt(t, b.URL(one.url.Prefix), b, Options{PartSize: minPart})
}

// What was flushed of an upload, another server finds, however it lies in parts.
func TestAnotherServerGoesOn(t *testing.T) {
	b := testservices.S3(t)
	one, other := servers(t, b)
	data := content(1, 2*minPart+777)
	for _, length := range []int{0, 1, 1000, minPart - 1, minPart, minPart + 1, 2*minPart - 1, 2 * minPart, len(data)} {
		for _, more := range []int{0, 1, len(data)} { // what came in besides, before the Flush
			u := create(t, one, fmt.Sprintf("%d and %d", length, more), data[:min(len(data), length+more)])
			u.flush(int64(length))
			// A part that is on its way when its upload is ended may stay, or come back with it.
			u.parts()
			u.close()
			if n, err := other.Size(t.Context(), u.up); n < int64(length) || err != nil {
				t.Errorf("%d bytes were flushed, and Size is %d, %v", length, n, err)
			}
			u = u.reopen(other, int64(length))
			u.write(data[length:]).complete(data).committed()
			if left := u.left(); len(left) != 1 {
				t.Errorf("besides the object there is %q", left)
			}
		}
	}
}

// Checkpoints come while content does, and any of the last can be gone back to.
func TestCheckpoints(t *testing.T) {
	b := testservices.S3(t)
	one, other := servers(t, b)
	data := content(2, 6*minPart)
	u := create(t, one, "a", nil)
	const step = minPart + 1<<20
	for from := 0; from+step < len(data); from += step {
		u.write(data[from : from+step]).flush(int64(from + step))
	}
	if left := u.left(); len(left) != 3 {
		t.Errorf("the bucket has %q, want two checkpoints and a multipart upload", left)
	}
	u.close()
	u.reopen(other, 4*step).write(data[4*step:]).complete(data).committed()
	u = u.reopen(other, 3*step)
	u.write(data[3*step : 4*step]).flush(4 * step).write(data[4*step : 4*step+100]).flush(4*step + 100).close()
	u = u.reopen(one, 3*step) // where it was reopened at, other content follows
	wrong := content(3, minPart)
	u.write(wrong).flush(3*step + minPart).close()
	u = u.reopen(one, 3*step)
	u.write(data[3*step:]).flush(4 * step).flush(4*step + 1).complete(data).committed()
	if left := u.left(); len(left) != 1 {
		t.Errorf("besides the object there is %q", left)
	}
}

// What a Flush is about to send stays in the scratch file, whatever is written and sent meanwhile.
func TestFlushBesideParts(t *testing.T) {
	b := testservices.S3(t)
	p := newProxy(t, b, nil)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p.delay = func(r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, keptMark) {
			once.Do(func() {
				close(arrived)
				<-goOn
			})
		}
	}
	refused := false
	p.judge = func(_ int, r *http.Request) fault {
		if refused || r.Method != http.MethodPut || !strings.Contains(r.URL.Path, keptMark) {
			return pass
		}
		refused = true // so that it is read once more
		return busy
	}
	s := openAt(t, b.URLAt(p.URL, newPrefix()), b, Options{PartSize: minPart})
	data := content(1, minPart+1<<20)
	u := create(t, s, "a", data[:1<<20])
	done := make(chan error, 1)
	go func() { done <- s.Flush(t.Context(), u.up, 1<<20) }()
	<-arrived
	u.write(data[1<<20:])
	u.parts()
	u.in.(*incoming).dropDone()
	other := create(t, s, "b", content(2, minPart)) // takes the blocks that are free
	close(goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	u.close()
	other.close()
	u = u.reopen(s, 1<<20)
	u.write(data[1<<20:]).complete(data).committed()
}

// What is complete goes on from before its end, with other content.
func TestGoBackInWhatIsWhole(t *testing.T) {
	b := testservices.S3(t)
	one, other := servers(t, b)
	data, wrong := content(1, 3*minPart), content(2, 3*minPart)
	for _, length := range []int{0, 10, minPart, minPart + 10, 3*minPart - 1, 3 * minPart} {
		u := create(t, one, fmt.Sprint(length), append(bytes.Clone(data[:length]), wrong[length:]...))
		u.complete(nil)
		u.reopen(other, int64(length)).close() // changes nothing
		u.reopen(one, int64(length)).write(data[length:]).complete(data).committed()
	}
}

// What a server still does that had the upload open when another one reopened it changes nothing of what that has,
// and nothing of what a third finds that reopens it.
func TestLateServer(t *testing.T) {
	b := testservices.S3(t)
	one, other := servers(t, b)
	data, wrong := content(1, 4*minPart), content(2, 4*minPart)
	for _, flushed := range []int{1000, minPart, 2*minPart + 7} {
		for name, late := range map[string]func(u *upload){
			"flushes": func(u *upload) { _ = u.s.Flush(t.Context(), u.up, int64(flushed+100)) },
			"writes and flushes": func(u *upload) {
				_, _ = u.in.Write(t.Context(), wrong[:2*minPart])
				_ = u.s.Flush(t.Context(), u.up, int64(flushed+2*minPart))
			},
			"completes": func(u *upload) { _ = u.in.Complete(t.Context()) },
		} {
			for _, before := range []bool{false, true} {
				u := create(t, one, fmt.Sprintf("%s %d %v", name, flushed, before), data[:flushed]).flush(int64(flushed))
				u.write(wrong[:200])
				if before {
					late(u)
				}
				next := u.reopen(other, int64(flushed))
				late(u)
				third := u.reopen(other, int64(flushed))
				_ = u.in.Close(t.Context())
				for _, u := range []*upload{next, third} {
					u.write(data[flushed : flushed+100]).flush(int64(flushed + 100)).close()
					u.reopen(one, int64(flushed+100)).write(data[flushed+100:]).complete(data).committed()
				}
			}
		}
	}
}

// A part that somebody has written over is found out: by Complete, and by Reopen.
func TestPartWrittenOver(t *testing.T) {
	b := testservices.S3(t)
	one, other := servers(t, b)
	data, wrong := content(1, 2*minPart+5), content(2, minPart)
	core := minio.Core{Client: b.Client()}
	for _, who := range []string{"Complete", "Reopen"} {
		u := create(t, one, who, data).flush(2 * minPart)
		in := u.in.(*incoming)
		if _, err := core.PutObjectPart(t.Context(), b.Name, u.object(), in.uploadID, 1, bytes.NewReader(wrong), minPart,
			minio.PutObjectPartOptions{CustomHeader: http.Header{checksumHeader: {checksumOf(wrong)}}}); err != nil {
			t.Fatal(err)
		}
		if who == "Complete" {
			if err := u.in.Complete(t.Context()); err == nil {
				t.Error("Complete takes a part that is not its own")
			}
			continue
		}
		u.close()
		if _, err := other.Reopen(t.Context(), u.up, storage.Announced{}, 2*minPart); !errors.Is(err, storage.ErrNotStored) {
			t.Errorf("Reopen: %v, want ErrNotStored", err)
		}
	}
}

// A server that dies at any request of a Reopen leaves what the next one needs.
func TestDeathInReopen(t *testing.T) {
	b := testservices.S3(t)
	p := newProxy(t, b, nil)
	s := open(t, b, Options{PartSize: minPart})
	dies := openAt(t, b.URLAt(p.URL, s.url.Prefix), b, Options{PartSize: minPart, Patience: time.Nanosecond})
	data := content(1, 2*minPart+1)
	for name, begin := range map[string]func(path string) (*upload, int64){
		"a tail": func(path string) (*upload, int64) { return create(t, s, path, data[:1000]).flush(1000).close(), 1000 },
		"parts and a tail": func(path string) (*upload, int64) {
			return create(t, s, path, data[:minPart+100]).flush(minPart).flush(minPart + 100).close(), minPart + 100
		},
		"within a part": func(path string) (*upload, int64) {
			return create(t, s, path, data).flush(minPart + 100).close(), minPart + 100
		},
		"whole": func(path string) (*upload, int64) { return create(t, s, path, data).complete(data), minPart + 5 },
	} {
		for _, what := range []fault{busy, lost} {
			for at := 0; ; at++ {
				u, length := begin(fmt.Sprintf("%s/%s/%d", name, what, at))
				base, hit := p.count(), false
				p.set(func(n int, _ *http.Request) fault {
					switch {
					case n == base+at:
						hit = true
						return what
					case n > base+at:
						return busy
					}
					return pass
				})
				if in, err := dies.Reopen(t.Context(), u.up, storage.Announced{}, length); err == nil {
					_ = in.Close(t.Context())
				}
				next := u.reopen(s, length) // what was recorded is the old key
				next.write(data[length:]).complete(data).committed()
				if left := next.left(); len(left) != 1 {
					t.Errorf("besides the object there is %q", left)
				}
				if t.Failed() {
					t.Fatalf("%s: %s at request %d:\n%s", name, what, at, p.last(base))
				}
				if !hit {
					break
				}
			}
		}
	}
}

// However large an object is, the parts that it is copied in are such as S3 takes, and few of those that a file may have.
func TestPieces(t *testing.T) {
	for length := int64(minPart); length <= maxSize; length += length/3 + 1 {
		for _, length := range []int64{length - 1, length, length / copyPiece * copyPiece, length/copyPiece*copyPiece + minPart - 1} {
			if length < minPart {
				continue
			}
			count, size := pieces(length)
			if last := length - (count-1)*size; count > maxParts/4 || size > maxPart || last > maxPart || last < minPart {
				t.Errorf("%d bytes: %d parts of %d, the last of %d", length, count, size, last)
			}
		}
	}
}
