package infofile

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Whoever reads the file while it is replaced gets all of the old one; nothing is
// left beside it.
func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Replace(path, []byte("the first"), 0o600); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := Replace(path, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(old); err != nil || string(b) != "the first" {
		t.Errorf("who has the old file open reads %q, %v", b, err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "other" {
		t.Errorf("it holds %q, %v", b, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("beside it: %v, %v", entries, err)
	}
}

// A name without a folder is one in the working directory.
func TestReplaceHere(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := Replace("file", []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile("file"); err != nil || string(b) != "content" {
		t.Errorf("it holds %q, %v", b, err)
	}
}
