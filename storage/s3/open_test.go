package s3

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"sealift/internal/testservices"
	"sealift/storage"
)

func TestParseURL(t *testing.T) {
	for _, name := range []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	for url, want := range map[string]URL{
		"s3://bucket":                  {Bucket: "bucket", Endpoint: "s3.amazonaws.com", Secure: true, PathStyle: "auto"},
		"s3://bucket/":                 {Bucket: "bucket", Endpoint: "s3.amazonaws.com", Secure: true, PathStyle: "auto"},
		"s3://bucket/a/b/?region=eu-1": {Bucket: "bucket", Prefix: "a/b", Region: "eu-1", Endpoint: "s3.amazonaws.com", Secure: true, PathStyle: "auto"},
		"s3://b-1.x?endpoint=host":     {Bucket: "b-1.x", Region: "us-east-1", Endpoint: "host", Secure: true, PathStyle: "auto"},
		"s3://bucket?path-style=false": {Bucket: "bucket", Endpoint: "s3.amazonaws.com", Secure: true, PathStyle: "false"},
		"s3://bucket/f%20g/ä?path-style=true&endpoint=http://127.0.0.1:9000": {
			Bucket: "bucket", Prefix: "f g/ä", Region: "us-east-1", Endpoint: "127.0.0.1:9000", PathStyle: "true"},
		"s3://bucket?endpoint=https%3A%2F%2Fs3.eu-central-1.amazonaws.com%2F": {Bucket: "bucket", Endpoint: "s3.eu-central-1.amazonaws.com", Secure: true, PathStyle: "auto"},
	} {
		if got, err := ParseURL(url); got != want || err != nil {
			t.Errorf("%s: %+v, %v, want %+v", url, got, err, want)
		}
	}
	for url, want := range map[string]string{
		"":                                      "is no bucket",
		"bucket":                                "is no bucket",
		"/var/lib/sealift":                      "is no bucket",
		"s3://":                                 "bucket \"\"",
		"s3://B@":                               "want AWS_ACCESS_KEY_ID",
		"s3://user:secret@b":                    "want AWS_ACCESS_KEY_ID",
		"s3://user:sec%ret@b":                   "cannot be read",
		"s3://bu/a":                             "bucket \"bu\"",
		"s3://bucket/a//b":                      "want folders",
		"s3://bucket/a/../b":                    "want folders",
		"s3://bucket/a%00":                      "want folders",
		"s3://bucket?profile=x":                 "want endpoint, region or path-style",
		"s3://bucket?path-style":                "want true, false or auto",
		"s3://bucket?endpoint=ftp://host":       "want http://host:port",
		"s3://bucket?endpoint=http://host/path": "want http://host:port",
		"s3://bucket?endpoint=http://u:secret@host":       "want http://host:port",
		"s3://bucket/" + strings.Repeat("a", maxPrefix+1): "up to 128 bytes",
	} {
		_, err := ParseURL(url)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		} else if strings.Contains(err.Error(), "sec") && strings.Contains(url, "sec") {
			t.Errorf("%s: the error has the password in it: %v", url, err)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://minio:9000")
	t.Setenv("AWS_DEFAULT_REGION", "eu-2")
	if got, err := ParseURL("s3://bucket"); got != (URL{Bucket: "bucket", Endpoint: "minio:9000", Region: "eu-2", PathStyle: "auto"}) || err != nil {
		t.Errorf("with variables: %+v, %v", got, err)
	}
	if !IsURL("s3://bucket") || IsURL("/s3://") || IsURL("") {
		t.Error("IsURL takes something else for a bucket, or a bucket for something else")
	}
}

// What is wrong with a bucket is found when it is opened, and said with what would be right.
func TestOpenSaysWhatIsWrong(t *testing.T) {
	b := testservices.S3(t)
	p := newProxy(t, b, nil)
	fails := func(what, url string, o Options, want ...string) {
		t.Helper()
		o.Patience = 50 * time.Millisecond
		if o.Credentials == nil {
			o.Credentials = credentials.NewStaticV4(b.AccessKey, b.SecretKey, "")
		}
		o.Scratch = t.TempDir()
		s, err := Open(t.Context(), url, o)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: opened", what)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q in it", what, err, w)
			}
		}
		if strings.Contains(err.Error(), b.SecretKey) {
			t.Errorf("%s: the error has the secret in it: %v", what, err)
		}
	}
	fails("no such bucket", strings.Replace(b.URL("x"), b.Name, "nowhere", 1), Options{}, "s3://nowhere/x", "does not exist")
	fails("another secret", b.URL(""), Options{Credentials: credentials.NewStaticV4(b.AccessKey, "wrong", "")}, "does not take the credentials")
	fails("another user", b.URL(""), Options{Credentials: credentials.NewStaticV4("nobody", b.SecretKey, "")}, "does not take the credentials")
	fails("no credentials", b.URL(""), Options{Credentials: credentials.NewStaticV4("", "", "")}, "there are no credentials", "AWS_ACCESS_KEY_ID")
	fails("nobody listens", b.URLAt("http://127.0.0.1:1", ""), Options{}, "s3://", "http://127.0.0.1:1 does not answer as an S3 server: dial tcp")
	for permission, is := range map[string]func(r *http.Request) bool{
		"s3:ListBucket ":              func(r *http.Request) bool { return r.URL.Query().Has("list-type") },
		"s3:PutObject":                func(r *http.Request) bool { return r.Method == http.MethodPut },
		"s3:GetObject":                func(r *http.Request) bool { return r.Method == http.MethodHead },
		"s3:DeleteObject":             func(r *http.Request) bool { return r.Method == http.MethodDelete },
		"s3:AbortMultipartUpload":     func(r *http.Request) bool { return r.Method == http.MethodDelete && r.URL.Query().Has("uploadId") },
		"s3:ListMultipartUploadParts": func(r *http.Request) bool { return r.URL.Query().Has("part-number-marker") },
	} {
		p.set(func(_ int, r *http.Request) fault {
			if is(r) {
				return denied
			}
			return pass
		})
		fails(permission, b.URLAt(p.URL, newPrefix()), Options{}, "lack the permission "+strings.TrimSpace(permission))
	}
	p.set(nil)
	s := openAt(t, b.URLAt(p.URL, "probe"), b, Options{})
	if left, err := s.list(t.Context(), "probe", 0); len(left) > 0 || err != nil {
		t.Errorf("trying out left %v, %v", left, err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	p.set(func(int, *http.Request) fault { return denied })
	if err := s.Ping(t.Context()); err == nil {
		t.Error("Ping of a bucket that refuses")
	}
}

// Servers that start at one moment try out one prefix, and all of them start.
func TestManyOpenAtOnce(t *testing.T) {
	b := testservices.S3(t)
	for range 25 {
		prefix := newPrefix()
		errs := make(chan error)
		const servers = 8
		for range servers {
			scratch := t.TempDir()
			go func() {
				s, err := Open(t.Context(), b.URL(prefix), Options{
					Scratch: scratch, Credentials: credentials.NewStaticV4(b.AccessKey, b.SecretKey, ""),
				})
				if err == nil {
					err = s.Close()
				}
				errs <- err
			}()
		}
		for range servers {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	}
}

// Without a scratch directory a store reads and removes, and takes nothing.
func TestWithoutScratch(t *testing.T) {
	b := testservices.S3(t)
	full := open(t, b, Options{})
	data := content(1, 1000)
	u := create(t, full, "a", data).complete(data)
	s, err := Open(t.Context(), b.URL(full.url.Prefix), Options{Credentials: credentials.NewStaticV4(b.AccessKey, b.SecretKey, "")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	u.s = s
	u.committed()
	if _, err := s.Create(t.Context(), u.up.Place, storage.Announced{}); err == nil {
		t.Error("Create")
	}
	if _, err := s.Reopen(t.Context(), u.up, storage.Announced{}, 10); err == nil {
		t.Error("Reopen")
	}
	if _, err := s.Scratch(t.Context()); err == nil {
		t.Error("Scratch")
	}
	u.discard().nothingLeft()
}
