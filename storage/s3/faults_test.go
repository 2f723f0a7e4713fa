package s3

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"sealift/internal/testservices"
	"sealift/storage"
)

var quiet = log.New(io.Discard, "", 0)

// A server's answer that is lost, or an error that passes, at any request of an upload costs
// time and nothing else.
func TestFaultAtAnyRequest(t *testing.T) {
	b := testservices.S3(t)
	p := newProxy(t, b, nil)
	s := openAt(t, b.URLAt(p.URL, newPrefix()), b, Options{PartSize: minPart})
	other := openAt(t, b.URLAt(p.URL, s.url.Prefix), b, Options{PartSize: minPart})
	data := content(1, 2*minPart+1000)
	uploads := map[string]func(path string) *upload{
		"small": func(path string) *upload { return create(t, s, path, data[:3000]).complete(data[:3000]) },
		"empty": func(path string) *upload { return create(t, s, path, nil).complete(nil) },
		"large": func(path string) *upload { return create(t, s, path, data).complete(data) },
		"flushed, and gone on with by another server": func(path string) *upload {
			u := create(t, s, path, data[:minPart+500]).flush(minPart + 500).close()
			next := u.reopen(other, minPart+500).write(data[minPart+500:]).complete(data)
			u.discard().nothingLeft()
			return next
		},
	}
	for name, run := range uploads {
		for _, what := range []fault{busy, slowDown, cutInside, lost} {
			if (what == slowDown || what == cutInside) && strings.HasPrefix(name, "flushed") {
				continue
			}
			for at := 0; ; at++ {
				base, hit := p.count(), false
				p.set(func(n int, _ *http.Request) fault {
					if n != base+at {
						return pass
					}
					hit = true
					return what
				})
				u := run(fmt.Sprintf("%s/%s/%d", name, what, at))
				p.set(nil)
				u.committed()
				u.discard().nothingLeft()
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

// Some servers do not know an upload any more when they are asked again to complete it. The object tells whether it
// was done.
func TestCompleteIsAskedAgain(t *testing.T) {
	b := testservices.S3(t)
	p := newProxy(t, b, nil)
	s := openAt(t, b.URLAt(p.URL, newPrefix()), b, Options{PartSize: minPart})
	for _, done := range []bool{true, false} {
		asked := 0
		p.set(func(_ int, r *http.Request) fault {
			if r.Method != http.MethodPost || r.URL.Query().Get("uploadId") == "" {
				return pass
			}
			switch asked++; {
			case asked > 1:
				return noUpload
			case done:
				return lost
			}
			return busy
		})
		data := content(1, minPart+1)
		u := create(t, s, "a", data)
		if done {
			u.complete(data).committed()
		} else if err := u.write([]byte("x")).in.Complete(t.Context()); !errors.Is(err, storage.ErrNotStored) {
			t.Errorf("Complete of an upload that is gone: %v, want ErrNotStored", err)
		}
	}
}

// A server may need long to put the parts of a file together, and say nothing meanwhile: it is asked once.
func TestSlowComplete(t *testing.T) {
	b := testservices.S3(t)
	p := newProxy(t, b, nil)
	var asked atomic.Int64
	p.delay = func(r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Query().Get("uploadId") != "" {
			asked.Add(1)
			time.Sleep(1500 * time.Millisecond) // the server is at work
		}
	}
	s := openAt(t, b.URLAt(p.URL, newPrefix()), b, Options{PartSize: minPart})
	s.stall, s.copyRate = time.Second, 1<<20
	data := content(1, minPart+1)
	create(t, s, "a", data).complete(data).committed()
	if n := asked.Load(); n != 1 {
		t.Errorf("the server was asked %d times to complete a file, want once", n)
	}
}

// What lasts ends an upload with an error that says what it is.
func TestLastingFaults(t *testing.T) {
	b := testservices.S3(t)
	p := newProxy(t, b, nil)
	s := openAt(t, b.URLAt(p.URL, newPrefix()), b, Options{PartSize: minPart, Patience: 50 * time.Millisecond})
	for what, want := range map[fault]error{busy: nil, slowDown: nil, cutInside: nil, lost: nil, denied: nil, expiredAt: nil, quota: storage.ErrFull, noRoom: storage.ErrFull} {
		for _, size := range []int{10, 3 * minPart} {
			p.set(func(_ int, r *http.Request) fault {
				if r.Method == http.MethodPut || r.Method == http.MethodPost {
					return what
				}
				return pass
			})
			u := create(t, s, "a", nil)
			_, err := u.in.Write(t.Context(), content(1, size))
			if errComplete := u.in.Complete(t.Context()); err == nil {
				err = errComplete
			}
			if err == nil || want != nil && !errors.Is(err, want) || errors.Is(err, storage.ErrNotStored) {
				t.Errorf("%s, %d bytes: %v, want %v", what, size, err, want)
			}
			p.set(nil)
			u.discard().nothingLeft()
		}
	}
}

// While the S3 server is away, uploads wait for it.
func TestServerIsAway(t *testing.T) {
	b := testservices.S3(t)
	failures := make(chan error, 1000)
	s := open(t, b, Options{PartSize: minPart, Observed: func(_ string, _ time.Duration, err error) {
		if err != nil {
			select {
			case failures <- err:
			default:
			}
		}
	}})
	data := content(1, 2*minPart)
	u := create(t, s, "a", data[:minPart])
	b.Kill()
	done := make(chan error, 1)
	go func() {
		_, err := u.in.Write(t.Context(), data[minPart:])
		done <- errors.Join(err, u.in.Complete(t.Context()))
	}()
	for range 3 {
		<-failures
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	u.data = data
	u.committed()
}

// countingProvider has credentials that expire.
type countingProvider struct {
	credentials.Value
	asked atomic.Int64
}

func (p *countingProvider) Retrieve() (credentials.Value, error) {
	p.asked.Add(1)
	return p.Value, nil
}

func (p *countingProvider) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return p.Retrieve()
}

func (p *countingProvider) IsExpired() bool { return false }

// Credentials that have expired are asked for again: a file or a role has new ones.
func TestExpiredCredentials(t *testing.T) {
	b := testservices.S3(t)
	provider := &countingProvider{Value: credentials.Value{AccessKeyID: b.AccessKey, SecretAccessKey: b.SecretKey, SignerType: credentials.SignatureV4}}
	p := newProxy(t, b, nil)
	s := openAt(t, b.URLAt(p.URL, newPrefix()), b, Options{Credentials: credentials.New(provider)})
	before := provider.asked.Load()
	p.set(func(int, *http.Request) fault {
		if provider.asked.Load() == before {
			return expiredAt
		}
		return pass
	})
	create(t, s, "a", content(1, 10)).complete(content(1, 10)).committed()
	if provider.asked.Load() != before+1 {
		t.Errorf("the credentials were asked for %d times, want once", provider.asked.Load()-before)
	}
}

// A reader whose connection is cut goes on.
func TestReadIsCut(t *testing.T) {
	b := testservices.S3(t)
	s := open(t, b, Options{})
	data := content(1, 3<<20)
	u := create(t, s, "a", data).complete(data)
	for _, from := range []int64{0, 1, 1 << 20, 3<<20 - 1, 3 << 20} {
		r, err := s.get(t.Context(), u.object(), from)
		if err != nil {
			t.Fatal(err)
		}
		reader := r.(*reader)
		reader.body = &cutBody{ReadCloser: reader.body, left: 100_000}
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || string(got) != string(data[from:]) {
			t.Errorf("from %d: %d bytes, %v", from, len(got), err)
		}
	}
}

type cutBody struct {
	io.ReadCloser
	left int
}

func (c *cutBody) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}
