//go:build linux

// Package parts measures what the parts of receiving a file cost, each alone on
// the machine and on one goroutine, so that one sees how far a whole server is
// from the sum of them.
package parts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sealift/bench/report"
	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
	"sealift/storage"
	"sealift/storage/files"
	"sealift/storage/sqlite"
)

const (
	bufferSize = 256 << 10 // as the server has them
	stride     = 32 << 10  // as the server decrypts and sums
)

// bench is one measurement under way.
type bench struct {
	dir  string
	time time.Duration // how long to repeat, at least
	size int64         // bytes of a file
	out  []report.Part
}

// Measure measures all parts. It writes below dir.
func Measure(dir string, tiny bool) ([]report.Part, error) {
	b := &bench{dir: dir, time: 400 * time.Millisecond, size: 1 << 30}
	if tiny {
		b.time, b.size = time.Millisecond, 1<<20
	}
	for _, measure := range []func() error{b.sockets, b.ciphers, b.writes, b.smallFiles, b.registry, b.keys} {
		if err := measure(); err != nil {
			return nil, err
		}
	}
	return b.out, nil
}

// clock is the time and the processor time of this process.
type clock struct {
	wall time.Time
	cpu  float64
}

func now() (clock, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return clock{time.Now(), float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9}, os.NewSyscallError("getrusage", err)
}

// add runs f until the time is up; each run is worth that many units.
func (b *bench) add(name, unit, about string, units float64, f func() error) error {
	from, err := now()
	if err != nil {
		return err
	}
	n := 0.0
	for time.Since(from.wall) < b.time || n == 0 {
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		n += units
	}
	to, err := now()
	if err != nil {
		return err
	}
	b.out = append(b.out, report.Part{
		Name: name, Unit: unit, About: about,
		Rate: n / to.wall.Sub(from.wall).Seconds(), CPU: (to.cpu - from.cpu) / n,
	})
	return nil
}

// sockets sends bytes through a connection of this machine to itself. The two
// ends share the time, and the processor time is that of both.
func (b *bench) sockets() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		buf := make([]byte, bufferSize)
		for {
			if _, err := nc.Read(buf); err != nil {
				return
			}
		}
	})
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer nc.Close()
	buf := make([]byte, bufferSize)
	return b.add("socket", "GB", "write(2) and read(2) of 256 KiB over loopback, both ends", bufferSize/1e9, func() error {
		_, err := nc.Write(buf)
		return err
	})
}

// ciphers runs over 8 MiB, so that the data comes from beyond the second level
// cache.
func (b *bench) ciphers() error {
	data := make([]byte, 8<<20)
	gb := float64(len(data)) / 1e9
	var key [keys.AESKeySize]byte
	dec := aescbc.NewDecrypter(&key)
	enc := aescbc.NewEncrypter(&key)
	var sum cksum.Hash
	over := func(each func(p []byte)) func() error {
		return func() error {
			for p := data; len(p) > 0; p = p[stride:] {
				each(p[:stride])
			}
			return nil
		}
	}
	return errors.Join(
		b.add("decrypt", "GB", "AES-256-CBC in place, 32 KiB at a time", gb, over(func(p []byte) { dec.CryptBlocks(p, p) })),
		b.add("checksum", "GB", "POSIX cksum, 32 KiB at a time", gb, over(func(p []byte) { _, _ = sum.Write(p) })),
		b.add("decrypt and checksum", "GB", "the one after the other, 32 KiB at a time, as the server does", gb,
			over(func(p []byte) { dec.CryptBlocks(p, p); _, _ = sum.Write(p) })),
		b.add("encrypt", "GB", "one stream; a client's work, and serial in CBC", gb, over(func(p []byte) { enc.CryptBlocks(p, p) })),
	)
}

// writes fills the page cache, and has it flushed.
func (b *bench) writes() error {
	path := filepath.Join(b.dir, "part")
	buf := make([]byte, bufferSize)
	gb := float64(b.size) / 1e9
	write := func(reserve, sync bool) func() error {
		return func() error {
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			defer f.Close()
			if reserve {
				if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, b.size); err != nil && err != unix.EOPNOTSUPP {
					return err
				}
			}
			for n := int64(0); n < b.size; n += bufferSize {
				if _, err := f.Write(buf); err != nil {
					return err
				}
			}
			if sync {
				return f.Sync()
			}
			return nil
		}
	}
	// Once in vain: the memory of a virtual machine that has rested is slow.
	if err := write(false, false)(); err != nil {
		return err
	}
	return errors.Join(
		b.add("write", "GB", "write(2) of 256 KiB into the page cache", gb, write(false, false)),
		b.add("write, reserved", "GB", "the same into a file of reserved size", gb, write(true, false)),
		b.add("write, reserved, fsync", "GB", "the same, then fsync(2)", gb, write(true, true)),
		os.Remove(path),
	)
}

// smallFiles stores files of 1 KiB as the server does.
func (b *bench) smallFiles() error {
	content := make([]byte, 1<<10)
	sum := cksum.Checksum(content)
	ctx := context.Background()
	for _, durable := range []bool{true, false} {
		dir, err := os.MkdirTemp(b.dir, "small-")
		if err != nil {
			return err
		}
		store, err := files.Open(dir, files.Options{Fsync: durable})
		if err != nil {
			return err
		}
		name, about := "small file, durable", "create, write, fsync, rename, fsync of the folder: the store's Create to Commit"
		if !durable {
			name, about = "small file", "the same without fsync"
		}
		n := 0
		err = b.add(name, "files", about, 1, func() error {
			in, err := store.Create(ctx, storage.Place{ID: codec.ClientID{1}, Path: fmt.Sprint("file-", n+1)}, storage.Announce(int64(len(content))))
			if err != nil {
				return err
			}
			_, err = in.Write(ctx, content)
			if err = errors.Join(err, in.Close(ctx)); err != nil {
				return err
			}
			n++
			return store.Commit(ctx, &storage.File{
				ID: codec.ClientID{1}, Path: fmt.Sprint("file-", n), Incoming: in.Key(), Size: int64(len(content)), Cksum: sum,
			})
		})
		if err = errors.Join(err, store.Close(), os.RemoveAll(dir)); err != nil {
			return err
		}
	}
	return nil
}

// registry commits rows one by one and a hundred at a time.
func (b *bench) registry() error {
	ctx := context.Background()
	for _, size := range []int{1, 100} {
		dir, err := os.MkdirTemp(b.dir, "registry-")
		if err != nil {
			return err
		}
		reg, err := sqlite.Open(ctx, filepath.Join(dir, "defensive.db"), sqlite.Options{Fsync: true})
		if err != nil {
			return err
		}
		serial := 0
		err = b.add(fmt.Sprintf("register, %d a commit", size), "rows", "durable SQLite transactions that add clients", float64(size), func() error {
			batch := make([]storage.Operation, size)
			for i := range batch {
				serial++
				batch[i] = &storage.AddClient{ID: codec.ClientID{byte(serial), byte(serial >> 8), byte(serial >> 16)}, Name: fmt.Sprint(serial)}
			}
			return reg.Apply(ctx, batch)
		})
		if err = errors.Join(err, reg.Close(), os.RemoveAll(dir)); err != nil {
			return err
		}
	}
	return nil
}

// keys does the server's part of the key exchange.
func (b *bench) keys() error {
	private, err := keys.Generate()
	if err != nil {
		return err
	}
	public, err := keys.MarshalPublic(&private.PublicKey)
	if err != nil {
		return err
	}
	return b.add("wrap a key", "keys", "read an RSA-1024 public key, encrypt a new AES key for it", 1, func() error {
		pub, err := keys.ParsePublic(public[:])
		if err != nil {
			return err
		}
		key, err := keys.NewAESKey()
		if err != nil {
			return err
		}
		_, err = keys.Wrap(pub, &key)
		return err
	})
}
