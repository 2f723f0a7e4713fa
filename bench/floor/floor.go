//go:build linux

// Package floor receives bytes over gnet and writes them to files, and does
// nothing else: what a server costs before it knows any protocol. A client sends
// the number of bytes, eight of them, least significant first, then the bytes;
// the server sends the number back when they are written. Then the next may come.
package floor

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// readSize is how much is read and written at a time, in bytes.
const readSize = 256 << 10

type server struct {
	gnet.BuiltinEventEngine
	dir    string
	engine gnet.Engine
	booted chan struct{}
	serial atomic.Int64
}

// file is what a connection sends.
type file struct {
	size, left uint64
	path       string
	f          *os.File
}

// Serve serves on addr until ctx ends. started is called when it accepts
// connections.
func Serve(ctx context.Context, addr *net.TCPAddr, dir string, loops int, started func()) error {
	s := &server{dir: dir, booted: make(chan struct{})}
	served := make(chan error, 1)
	go func() {
		served <- gnet.Run(s, "tcp://"+addr.String(), gnet.WithNumEventLoop(loops), gnet.WithReadBufferCap(readSize),
			gnet.WithLogger(zap.NewNop().Sugar()))
	}()
	select {
	case err := <-served:
		return err
	case <-s.booted:
	}
	started()
	select {
	case err := <-served:
		return fmt.Errorf("the event loops ended unasked: %w", err)
	case <-ctx.Done():
		_ = s.engine.Stop(context.Background())
		return <-served
	}
}

// OnBoot implements gnet.EventHandler.
func (s *server) OnBoot(e gnet.Engine) gnet.Action {
	s.engine = e
	close(s.booted)
	return gnet.None
}

// OnOpen implements gnet.EventHandler.
func (s *server) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	c.SetContext(&file{path: filepath.Join(s.dir, fmt.Sprint("floor-", s.serial.Add(1)))})
	return nil, gnet.None
}

// OnTraffic implements gnet.EventHandler.
func (s *server) OnTraffic(c gnet.Conn) gnet.Action {
	f := c.Context().(*file)
	for {
		p, _ := c.Peek(-1)
		switch {
		case f.left == 0 && len(p) < 8:
			return gnet.None
		case f.left == 0:
			n := binary.LittleEndian.Uint64(p)
			_, _ = c.Discard(8)
			if err := f.begin(n); err != nil {
				return fail(err)
			}
			continue
		case len(p) == 0:
			return gnet.None
		}
		p = p[:min(uint64(len(p)), f.left)]
		if _, err := f.f.Write(p); err != nil {
			return fail(err)
		}
		_, _ = c.Discard(len(p))
		if f.left -= uint64(len(p)); f.left > 0 {
			continue
		}
		if err := f.f.Close(); err != nil {
			return fail(err)
		}
		if _, err := c.Write(binary.LittleEndian.AppendUint64(nil, f.size)); err != nil {
			return fail(err)
		}
	}
}

func fail(err error) gnet.Action {
	fmt.Fprintln(os.Stderr, err)
	return gnet.Close
}

// begin makes the file for size bytes, with its room reserved, as the real
// server does.
func (f *file) begin(size uint64) (err error) {
	if size == 0 {
		return fmt.Errorf("%s: nothing to receive", f.path)
	}
	if f.f, err = os.Create(f.path); err != nil {
		return err
	}
	f.size, f.left = size, size
	if err := unix.Fallocate(int(f.f.Fd()), 0, 0, int64(size)); err != nil && err != unix.EOPNOTSUPP {
		return os.NewSyscallError("fallocate", err)
	}
	return nil
}
