package testservices

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
)

// An S3 server keeps what it has over a restart, and leaves nothing behind.
func TestS3(t *testing.T) {
	s := S3(t)
	ctx := context.Background()
	if _, err := s.Client().PutObject(ctx, s.Name, "folder/name", strings.NewReader("content"), 7, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	o, err := s.Client().GetObject(ctx, s.Name, "folder/name", minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(o); err != nil || string(b) != "content" {
		t.Errorf("after a restart: %q, %v", b, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("after Close its directory is there: %v", err)
	}
}
