//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sealift/bench/load"
	"sealift/crypto/cksum"
	sealift "sealift/server"
)

// sourceFile is a file of that size for programs to send, made once.
func (h *harness) sourceFile(size int64) (string, error) {
	path := filepath.Join(h.dir, fmt.Sprintf("source-%d", size))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return path, errors.Join(load.WriteContent(f, size), f.Close())
}

// compareFiles looks whether the files that programs sent have arrived whole:
// all regular files in dir but those that a server keeps beside them.
func (h *harness) compareFiles(dir string, spec load.Spec) error {
	from, err := h.sourceFile(spec.FileSize)
	if err != nil {
		return err
	}
	want, err := cksumOf(from)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	whole := 0
	for _, e := range entries {
		if !e.Type().IsRegular() || strings.HasSuffix(e.Name(), ".info") || strings.HasSuffix(e.Name(), ".lock") {
			continue
		}
		got, err := cksumOf(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s has arrived with another checksum", e.Name())
		}
		whole++
	}
	if whole != spec.Connections {
		return fmt.Errorf("%d files were sent, and %d have arrived", spec.Connections, whole)
	}
	return nil
}

func cksumOf(path string) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h := cksum.New()
	_, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	return h.Sum32(), err
}

// storedBySealift reads back what is in the stores of a server of Sealift's. The clients
// have compared what the server received; this is whether that is on the disk.
func storedBySealift(ctx context.Context, _ *harness, s *server) error {
	stored, err := sealift.OpenReadOnly(ctx, sealift.Stores{Dir: s.opts.dir, Registry: s.opts.registry, Files: s.opts.files})
	if err != nil {
		return err
	}
	defer stored.Close()
	n := 0
	var wrong error
	err = stored.Verify(ctx, func(f sealift.File, err error) {
		n++
		if err != nil && wrong == nil {
			wrong = fmt.Errorf("%s: %w", f.PathName(), err)
		}
	})
	if err == nil && n == 0 {
		err = errNothingStored
	}
	return errors.Join(err, wrong)
}

var errNothingStored = errors.New("nothing is stored")

// storedByPython looks whether there is anything: that server records no
// checksums.
func storedByPython(_ context.Context, _ *harness, s *server) error {
	n := 0
	err := eachFile(filepath.Join(s.opts.dir, "files"), func(string, int64) error { n++; return nil })
	if err == nil && n == 0 {
		err = errNothingStored
	}
	return err
}

// eachFile calls f with the path and size of each regular file below dir.
func eachFile(dir string, f func(path string, size int64) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return f(path, info.Size())
	})
}

// giveUpRoom empties the large files below dir, so that the next server finds
// the disk and the page cache as this one did. The small ones stay to the end of
// the run, because of what [files.SpreadFolders] says of ext4.
func giveUpRoom(dir string) error {
	return eachFile(dir, func(path string, size int64) error {
		if size < 64*kib {
			return nil
		}
		return os.Truncate(path, 0)
	})
}

// touchPageCache writes size bytes and removes them. A virtual machine gives back
// the memory that it has not used for a few seconds, and to get it again page by
// page makes writing several times as slow: this is not what is to be measured.
func (h *harness) touchPageCache(size int64) error {
	path := filepath.Join(h.dir, "touch")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = load.WriteContent(f, size)
	return errors.Join(err, f.Close(), os.Remove(path))
}
