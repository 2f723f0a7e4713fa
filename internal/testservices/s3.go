package testservices

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Bucket is an S3 server, versitygw on a temporary directory, with a bucket in it. One
// goroutine at a time starts and stops it.
type Bucket struct {
	Endpoint  string // http://127.0.0.1:port
	Name      string
	AccessKey string
	SecretKey string
	Dir       string // has the objects as files

	dir, program string
	client       *minio.Client
	cmd          *exec.Cmd
	ended        chan struct{} // closed when cmd has
}

const region = "us-east-1"

// StartS3 starts an S3 server with an empty bucket. The caller ends it with Close.
func StartS3() (*Bucket, error) {
	path, err := findGateway()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sealift-s3-")
	if err != nil {
		return nil, err
	}
	b := &Bucket{
		Name: "sealift", AccessKey: "sealift-test", SecretKey: "sealift-test-secret",
		Dir: filepath.Join(dir, "buckets", "sealift"), dir: dir, program: path,
	}
	if err = b.make(); err == nil {
		err = b.Start()
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// S3 returns an S3 server that ends with the test.
func S3(t TB) *Bucket {
	t.Helper()
	b, err := StartS3()
	Need(t, err)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Logf("%v", err)
		}
	})
	return b
}

func findGateway() (string, error) {
	return program("versitygw", goPrograms(), "/usr/local/bin", "/tmp/bin")
}

// HasS3 returns an ErrMissing where StartS3 would.
func HasS3() error {
	_, err := findGateway()
	return err
}

// goPrograms is where go install puts programs.
func goPrograms() string {
	if dir := os.Getenv("GOBIN"); dir != "" {
		return dir
	}
	if dir := os.Getenv("GOPATH"); dir != "" {
		return filepath.Join(dir, "bin")
	}
	home, _ := os.UserHomeDir()
	return filepath.Join(home, "go", "bin")
}

func (b *Bucket) make() error {
	if err := os.MkdirAll(b.Dir, 0o700); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	b.Endpoint = fmt.Sprintf("http://127.0.0.1:%d", port)
	b.client, err = minio.New(b.address(), &minio.Options{
		Creds: credentials.NewStaticV4(b.AccessKey, b.SecretKey, ""), Region: region, BucketLookup: minio.BucketLookupPath,
	})
	return err
}

func (b *Bucket) address() string { return strings.TrimPrefix(b.Endpoint, "http://") }

// Client is a client of the server.
func (b *Bucket) Client() *minio.Client { return b.client }

// URL names the bucket, with that prefix, as --files takes it.
func (b *Bucket) URL(prefix string) string { return b.URLAt(b.Endpoint, prefix) }

// URLAt is URL by way of another endpoint: a proxy.
func (b *Bucket) URLAt(endpoint, prefix string) string {
	return "s3://" + b.Name + "/" + prefix + "?endpoint=" + url.QueryEscape(endpoint) + "&region=" + region + "&path-style=true"
}

// Env are the variables of the environment with which a program has access.
func (b *Bucket) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + b.AccessKey, "AWS_SECRET_ACCESS_KEY=" + b.SecretKey}
}

// Use gives the test, and what it starts, access. The test cannot be parallel.
func (b *Bucket) Use(t interface{ Setenv(key, value string) }) {
	t.Setenv("AWS_ACCESS_KEY_ID", b.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", b.SecretKey)
}

// Start starts the server, where it does not run, and waits until it answers.
func (b *Bucket) Start() error {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if !b.running() {
			if err := b.launch(); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := b.client.ListBuckets(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("versitygw does not answer: %w\n%s", err, tail(b.log()))
		}
	}
}

func (b *Bucket) log() string { return filepath.Join(b.dir, "log") }

func (b *Bucket) launch() error {
	log, err := os.OpenFile(b.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(b.program, "--quiet", "--keep-alive", "--port", b.address(), "--region", region, "posix", filepath.Dir(b.Dir))
	// Not as arguments, which anybody on the machine could read.
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+b.AccessKey, "ROOT_SECRET_KEY="+b.SecretKey)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = new(syscall.SysProcAttr)
	endWithUs(cmd, syscall.SIGKILL)
	if err := start(cmd); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	b.cmd, b.ended = cmd, ended
	return nil
}

func (b *Bucket) running() bool {
	if b.cmd == nil {
		return false
	}
	select {
	case <-b.ended:
		return false
	default:
		return true
	}
}

// Kill ends the server as a crash does, if it runs.
func (b *Bucket) Kill() {
	if b.running() {
		_ = b.cmd.Process.Kill() // it may have ended
		<-b.ended
	}
}

// Close ends the server and removes what it has.
func (b *Bucket) Close() error {
	b.Kill()
	return os.RemoveAll(b.dir)
}
