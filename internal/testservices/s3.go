package testservices

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3 is an S3 server of its own, versitygw on a temporary directory. One goroutine at a time
// starts and stops it.
type S3 struct {
	dir, program string
	port         int
	client       *minio.Client
	cmd          *exec.Cmd
	ended        chan struct{} // closed when cmd has
}

// The credentials of its only user.
const (
	s3Access = "sealift-access"
	s3Secret = "sealift-secret"
)

// StartS3 starts an S3 server with these buckets, which are empty. The caller ends it with
// Close.
func StartS3(buckets ...string) (*S3, error) {
	path, err := program("versitygw", goPrograms(), "/tmp/bin")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sealift-s3-")
	if err != nil {
		return nil, err
	}
	s := &S3{dir: dir, program: path}
	if err = s.make(buckets); err == nil {
		err = s.Start()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
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

func (s *S3) make(buckets []string) (err error) {
	for _, b := range buckets {
		if err := os.MkdirAll(filepath.Join(s.dir, "buckets", b), 0o700); err != nil {
			return err
		}
	}
	if s.port, err = freePort(); err != nil {
		return err
	}
	s.client, err = minio.New("127.0.0.1:"+strconv.Itoa(s.port), &minio.Options{
		Creds: credentials.NewStaticV4(s3Access, s3Secret, ""), Region: "us-east-1", BucketLookup: minio.BucketLookupPath,
	})
	return err
}

// Endpoint is the URL of the server.
func (s *S3) Endpoint() string { return "http://127.0.0.1:" + strconv.Itoa(s.port) }

// Environment is what a process needs in its environment to be let in.
func (s *S3) Environment() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s3Access, "AWS_SECRET_ACCESS_KEY=" + s3Secret}
}

// Client is a client of the server.
func (s *S3) Client() *minio.Client { return s.client }

// Start starts the server, where it does not run, and waits until it answers.
func (s *S3) Start() error {
	log, err := os.OpenFile(s.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if !s.running() {
			cmd := exec.Command(s.program, "--quiet", "--keep-alive", "--port", "127.0.0.1:"+strconv.Itoa(s.port), "posix", filepath.Join(s.dir, "buckets"))
			cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3Access, "ROOT_SECRET_KEY="+s3Secret)
			cmd.Stdout, cmd.Stderr = log, log
			cmd.SysProcAttr = new(syscall.SysProcAttr)
			endWithUs(cmd, syscall.SIGKILL)
			if err := cmd.Start(); err != nil {
				return err
			}
			ended := make(chan struct{})
			go func() {
				_ = cmd.Wait()
				close(ended)
			}()
			s.cmd, s.ended = cmd, ended
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := s.client.ListBuckets(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("versitygw does not answer: %w\n%s", err, tail(s.log()))
		}
	}
}

func (s *S3) log() string { return filepath.Join(s.dir, "log") }

func (s *S3) running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Stop ends the server in the middle of whatever it does.
func (s *S3) Stop() error {
	if s.running() {
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	return nil
}

// Close ends the server and removes what it has.
func (s *S3) Close() error { return errors.Join(s.Stop(), os.RemoveAll(s.dir)) }

// NewS3 returns an S3 server that ends with the test.
func NewS3(t TB, buckets ...string) *S3 {
	t.Helper()
	s, err := StartS3(buckets...)
	Need(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Logf("%v", err)
		}
	})
	return s
}
