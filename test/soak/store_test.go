//go:build linux

package soak

import (
	"context"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sealift/codec"
	"sealift/crypto/cksum"
	daemon "sealift/server"
	"sealift/storage"
	"sealift/storage/sqlite"
)

// fileName is a file of a client.
type fileName struct {
	id   codec.ClientID
	path string
}

// stored is a file that a server must have.
type stored struct {
	fileName
	size  int64
	cksum uint32
}

// records reads what the registry in dir has of files.
func (r *run) records(dir string) (files []storage.File) {
	r.Helper()
	reg, err := sqlite.OpenReadOnly(context.Background(), filepath.Join(dir, daemon.DatabaseName))
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer reg.Close()
	if err := reg.Files(context.Background(), func(f storage.File) error {
		files = append(files, f)
		return nil
	}); err != nil {
		r.Fatalf("%v", err)
	}
	return files
}

// partials reads what the registry in dir has of partial files.
func (r *run) partials(dir string) (all []storage.Partial) {
	r.Helper()
	reg, err := sqlite.OpenReadOnly(context.Background(), filepath.Join(dir, daemon.DatabaseName))
	if err != nil {
		r.Fatalf("%v", err)
	}
	defer reg.Close()
	if err := reg.Partials(context.Background(), func(p storage.Partial) error {
		all = append(all, p)
		return nil
	}); err != nil {
		r.Fatalf("%v", err)
	}
	return all
}

// checkStore asserts that the server's directory is in order and that each of
// want is in it: recorded once, Verified, equal. Nobody may be uploading. It
// returns what is verified.
func (r *run) checkStore(dir string, want []stored) (good map[fileName]storage.File) {
	r.Helper()
	rows := r.records(dir)
	good = make(map[fileName]storage.File)
	awaited := make(map[string]bool)   // keys of incoming files
	halfWay := make(map[fileName]bool) // may be in their places, but are not verified yet
	for _, f := range rows {
		if !f.Verified {
			awaited[f.Incoming] = true
			halfWay[fileName{f.ID, f.Path}] = true
			continue
		}
		if !f.Taken.IsZero() {
			continue // it is not the server's any more
		}
		name := fileName{f.ID, f.Path}
		if _, twice := good[name]; twice {
			r.Errorf("%s is recorded twice", f.PathName())
		}
		good[name] = f
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.PathName())))
		switch {
		case err != nil:
			r.Errorf("a verified file: %v", err)
		case int64(len(b)) != f.Size || cksum.Checksum(b) != f.Cksum:
			r.Errorf("%s is verified and not what was recorded: %d bytes, not %d", f.PathName(), len(b), f.Size)
		}
	}
	for _, w := range want {
		f, ok := good[w.fileName]
		if !ok {
			r.Errorf("%v/%s got its 1604 and is not there", w.id, w.path)
		} else if f.Size != w.size || f.Cksum != w.cksum {
			r.Errorf("%s got its 1604 and is not what was sent: cksum %d, not %d", f.PathName(), f.Cksum, w.cksum)
		}
	}
	for _, p := range r.partials(dir) {
		awaited[p.Incoming] = true
	}
	r.eachFile(dir, func(path string) {
		if strings.HasPrefix(path, ".incoming/") {
			if !awaited[filepath.Base(path)] {
				r.Errorf("files/%s lies about for no reason", path)
			}
			return
		}
		id, name, _ := strings.Cut(path, "/")
		client := clientID(id)
		if client.IsZero() {
			r.Errorf("files/%s belongs to nobody", path)
		} else if at := (fileName{client, name}); !halfWay[at] && good[at].Path == "" {
			r.Errorf("files/%s is not recorded", path)
		}
	})
	r.verify(dir)
	return good
}

// verify asserts that `sealiftd verify` agrees.
func (r *run) verify(dir string) {
	r.Helper()
	if out, complaint, status, err := program(sealiftd, "verify", "--dir", dir); err != nil || status != 0 {
		r.Errorf("sealiftd verify: status %d %v\n%s%s", status, err, out, complaint)
	}
}

// eachFile calls yield with everything below dir/files that is no folder and
// not the lock; the path is slash-separated and begins below files.
func (r *run) eachFile(dir string, yield func(path string)) {
	r.Helper()
	err := fs.WalkDir(os.DirFS(filepath.Join(dir, "files")), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path != ".lock" {
			yield(path)
		}
		return err
	})
	if err != nil {
		r.Errorf("%v", err)
	}
}

// incoming is how many files are being received, or wait for their verdict.
func (r *run) incoming(dir string) (n int) {
	r.Helper()
	r.eachFile(dir, func(path string) {
		if strings.HasPrefix(path, ".incoming/") {
			n++
		}
	})
	return n
}

// calm waits until the server has put away what its clients have left.
func (r *run) calm(s *server) {
	r.Helper()
	r.until("the server to have nothing to do", func() bool {
		awaited := r.awaited(s.dir)
		return s.descriptors() <= r.atRest().descriptors+awaited && r.incoming(s.dir) == awaited
	})
}

// awaited is how many files wait in that store for their verdict, or for their client to
// go on with them. The server may hold a descriptor of each.
func (r *run) awaited(dir string) (n int) {
	r.Helper()
	n = len(r.partials(dir))
	for _, f := range r.records(dir) {
		if !f.Verified {
			n++
		}
	}
	return n
}

// clientID reads a client id in hex; it is zero if there is none.
func clientID(s string) (id codec.ClientID) {
	if b, err := hex.DecodeString(s); err == nil && len(b) == len(id) {
		id = codec.ClientID(b)
	}
	return id
}
