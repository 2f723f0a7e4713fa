package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// highWater is the most memory that a process has had so far, in KiB: VmHWM of
// proc_pid_status(5). ok is false if the process is gone.
func highWater(pid int) (kib int, ok bool) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, found := strings.Cut(string(status), "VmHWM:")
	if !found {
		return 0, false
	}
	_, err := fmt.Sscan(rest, &kib)
	return kib, err == nil
}

// A file goes through in bounded memory, however large it is.
func TestMemory(t *testing.T) {
	size := int64(256 << 20)
	if large {
		size = 4_000_000_000
	}
	d, dir := serve(t), t.TempDir()
	path := filepath.Join(dir, "large")
	sparse(t, path, size)

	p := start(t, dir, nil, sealift, "send", "--server", d.addr, "--name", "n", path)
	// The client's figure is gone when it ends, so it is read again and again.
	// It cannot fall, and the client does nothing new at its end.
	var client int
	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for tick := time.Tick(5 * time.Millisecond); ; {
			if kib, ok := highWater(p.cmd.Process.Pid); ok {
				client = kib
			}
			select {
			case <-tick:
			case <-ended:
				return
			}
		}
	}()
	got := p.wait()
	close(ended)
	<-watched
	got.succeeded(t)
	server, ok := highWater(d.cmd.Process.Pid)
	if !ok || client == 0 {
		t.Fatal("there is no VmHWM")
	}
	t.Logf("%d bytes: VmHWM of the server %.1f MiB, of the client %.1f MiB", size, float64(server)/1024, float64(client)/1024)
	if server >= 96<<10 {
		t.Errorf("the server took %d KiB", server)
	}
	if client >= 64<<10 {
		t.Errorf("the client took %d KiB", client)
	}

	want, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	all := d.files()
	if len(all) != 1 || !all[0].Verified || all[0].Size != size {
		t.Fatalf("files %+v", all)
	}
	checkFile(t, filepath.Join(d.dir, all[0].Path), want)
}

// The same where every packet comes before its turn.
func TestMemoryReversed(t *testing.T) {
	size := 192 << 20
	if large {
		size = 1 << 30
	}
	d := serve(t)
	p := login(t, d, "n")
	f := p.File("f", randomBytes(size, 1))
	packets := cut(f, 65_536)
	slices.Reverse(packets)
	p.sendPackets(packets)
	p.expectReceived(f)
	p.confirm(f.Name)
	server, ok := highWater(d.cmd.Process.Pid)
	t.Logf("%d bytes reversed: VmHWM of the server %.1f MiB", size, float64(server)/1024)
	if !ok || server >= 96<<10 {
		t.Errorf("the server took %d KiB", server)
	}
	checkFile(t, d.stored(p.ID, f.Name), bytes.NewReader(f.Content))
}

// sparse makes a file of zeros with some random blocks, the last byte among
// them, that takes little room.
func sparse(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const blocks, blockSize = 64, 64 << 10
	for i := range int64(blocks) {
		block := randomBytes(blockSize, byte(i))
		if _, err := f.WriteAt(block, i*(size-blockSize)/(blocks-1)); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := f.Stat(); err != nil || info.Size() != size {
		t.Fatal(info.Size(), err)
	}
}
