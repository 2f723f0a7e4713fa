//go:build linux

package soak

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/cksum"
)

// TestFolder runs several sealift in one folder, over and over, while their server
// is killed, drained, put back to a copy of its past, and replaced by another.
// No identity is lost, what is called stored is stored, and a run fails only
// where the protocol's rules say so.
func TestFolder(t *testing.T) {
	r := newRun(t)
	rounds := r.size(6, 500)
	ends := make(map[string]int)
	files := 0
	var mu sync.Mutex
	round := 0
	var wg sync.WaitGroup
	for range r.size(1, 4) { // they mostly wait
		wg.Go(func() {
			for !r.Failed() {
				mu.Lock()
				n := round
				round++
				mu.Unlock()
				if n >= rounds {
					return
				}
				h := &household{run: r, rng: rand.New(rand.NewPCG(r.seed, uint64(n))), ends: make(map[string]int), ids: make(map[codec.ClientID]bool)}
				h.live()
				mu.Lock()
				files += len(h.want)
				for end, n := range h.ends {
					ends[end] += n
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	r.Logf("%d rounds of 1 to 8 processes: %d files are called stored, and are; the processes ended %v", rounds, files, ends)
}

// household is one round: a folder, and whatever serves at one address.
type household struct {
	*run
	rng    *rand.Rand
	base   string   // for all that the round makes
	dir    string   // where sealift runs
	addr   string   // of the server
	stores []string // every directory that a server had
	copy   string   // a backup of one, "" if there is none
	server *server

	mu     sync.Mutex
	reborn bool                    // a server had forgotten clients
	ids    map[codec.ClientID]bool // that were told to the user
	want   []stored
	ends   map[string]int // of processes, by how
}

// live is the round.
func (h *household) live() {
	h.Helper()
	h.base = h.TempDir()
	defer os.RemoveAll(h.base)
	h.dir = h.folder()
	// Nobody dials from this address, so that nobody takes the port meanwhile.
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		h.Fatalf("%v", err)
	}
	h.addr = ln.Addr().String()
	_ = ln.Close()
	h.serve(h.folder())
	var wg sync.WaitGroup
	for i := range 1 + h.rng.IntN(8) {
		seed := h.rng.Uint64()
		wg.Go(func() { h.sends(i, rand.New(rand.NewPCG(seed, 0))) })
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for range h.rng.IntN(8) {
		select {
		case <-done:
		case <-time.After(time.Duration(h.rng.IntN(150)) * time.Millisecond):
			h.trouble()
		}
	}
	<-done
	h.server.kill()
	h.check()
}

// folder makes one.
func (h *household) folder() string {
	h.Helper()
	dir, err := os.MkdirTemp(h.base, "")
	if err != nil {
		h.Fatalf("%v", err)
	}
	return dir
}

// serve starts a server on that store, at the address of all.
func (h *household) serve(store string) {
	h.Helper()
	if len(h.stores) == 0 || h.stores[len(h.stores)-1] != store {
		h.stores = append(h.stores, store)
	}
	args := []string{"serve", "--dir", store, "--listen", h.addr, "--log-format", "json", "--drain-timeout", "2s"}
	h.server = h.launch(exec.Command(sealiftd, args...), store)
	h.server.ready()
}

// trouble does something to the server.
func (h *household) trouble() {
	h.Helper()
	store := h.server.dir
	switch h.rng.IntN(8) {
	case 0, 1:
		h.server.kill()
	case 2, 3:
		h.server.signal(syscall.SIGTERM)
		h.server.wait()
	case 4, 5:
		to := filepath.Join(h.folder(), "copy")
		if out, complaint, status, err := program(sealiftd, "backup", "--dir", store, "--to", to); err != nil || status != 0 {
			h.Errorf("backup: %v, status %d: %s%s", err, status, out, complaint)
			return
		}
		h.copy = to
		return
	case 6: // from the copy; what came since is not there
		if h.copy == "" {
			return
		}
		h.server.kill()
		store, h.copy = h.copy, ""
		h.setReborn()
	case 7: // by another, which knows nobody
		if h.rng.IntN(3) > 0 {
			return
		}
		h.server.kill()
		store = h.folder()
		// It has the same TLS key: another one would be no server of the household's.
		if err := os.CopyFS(filepath.Join(store, "tls"), os.DirFS(filepath.Join(h.server.dir, "tls"))); err != nil {
			h.Errorf("%v", err)
		}
		h.setReborn()
	}
	h.serve(store)
}

func (h *household) setReborn() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reborn = true
}

// common is a name under which several send files of their own. The last one stays.
const common = "common"

// sends runs sealift a few times, one after the other.
func (h *household) sends(number int, rng *rand.Rand) {
	for n := range 1 + rng.IntN(3) {
		var names []string
		contents := make(map[string][]byte)
		for i := range 1 + rng.IntN(3) {
			name := fmt.Sprintf("file-%d-%d-%d", number, n, i)
			if i == 0 && rng.IntN(4) == 0 {
				name = fmt.Sprintf("of-%d/%s", number, common)
				if err := os.MkdirAll(filepath.Join(h.dir, filepath.Dir(name)), 0o700); err != nil {
					h.Errorf("%v", err)
					return
				}
			}
			contents[name] = pattern(rng.Uint64(), rng.IntN(300_000))
			if err := os.WriteFile(filepath.Join(h.dir, name), contents[name], 0o600); err != nil {
				h.Errorf("%v", err)
				return
			}
			names = append(names, name)
		}
		h.send(rng, names, contents)
	}
}

// outcome is a line of sealift's --json.
type outcome struct {
	File, Name, Error string
	Stored            bool
	ClientID          string `json:"client_id"`
}

func (h *household) send(rng *rand.Rand, names []string, contents map[string][]byte) {
	args := []string{"send", "--json", "--server", h.addr, "--name", "household"}
	if rng.IntN(3) == 0 {
		args = append(args, "--parallel", "3")
	}
	cmd := exec.Command(sealift, append(args, names...)...)
	cmd.Dir = h.dir
	cmd.Env = clientEnvironment(filepath.Join(h.base, "known_servers"))
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Start(); err != nil {
		h.Errorf("%v", err)
		return
	}
	ended := "by itself"
	if signal := []syscall.Signal{0, 0, 0, 0, 0, 0, syscall.SIGKILL, syscall.SIGINT}[rng.IntN(8)]; signal != 0 {
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		if cmd.Process.Signal(signal) == nil {
			ended = signal.String()
		}
	}
	_ = cmd.Wait()
	status := cmd.ProcessState.ExitCode()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ends[fmt.Sprintf("%s: %d", ended, status)]++
	told := 0
	for line := range strings.Lines(out.String()) {
		var o outcome
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			if ended == "by itself" {
				h.Errorf("%q is no line of --json: %v", line, err)
			}
			continue
		}
		told++
		id, err := hex.DecodeString(o.ClientID)
		if err == nil && len(id) == codec.IDSize {
			h.ids[codec.ClientID(id)] = true
		}
		if !o.Stored {
			continue
		}
		if err != nil {
			h.Errorf("%s is stored for client %q", o.File, o.ClientID)
			continue
		}
		if o.Name == common {
			continue
		}
		h.want = append(h.want, stored{fileName{codec.ClientID(id), o.Name}, int64(len(contents[o.File])), cksum.Checksum(contents[o.File])})
	}
	_, err := os.Stat(filepath.Join(h.dir, "me.info"))
	switch {
	case ended != "by itself":
	case told != len(names):
		h.Errorf("%d files, and %d lines: %s%s", len(names), told, out.String(), complaint.String())
	case status == 0:
	case strings.Contains(complaint.String(), "(1601)") && (h.reborn || err != nil):
		// The name is the server's, and the id that it has is not known here: the
		// reply with it was lost, or it is of a time that came back. The protocol
		// has no way out of that.
	default:
		h.Errorf("status %d: %s%s", status, out.String(), complaint.String())
	}
}

// check looks at the round when all processes have ended.
func (h *household) check() {
	h.Helper()
	if id, err := client.IdentityFile(filepath.Join(h.dir, "me.info")).Load(); err != nil || id == nil && len(h.ids) > 0 {
		h.Errorf("me.info holds %v: %v", id, err)
	}
	paths, err := filepath.Glob(filepath.Join(h.dir, "me.info*"))
	if err != nil {
		h.Fatalf("%v", err)
	}
	kept := make(map[codec.ClientID]bool)
	for _, path := range paths {
		if id, err := client.IdentityFile(path).Load(); err == nil && id != nil {
			kept[id.ID] = true
		}
	}
	for id := range h.ids {
		if !kept[id] {
			h.Errorf("the identity %v is lost: there are %v", id, paths)
		}
	}
	for _, w := range h.want {
		if !h.has(w) {
			h.Errorf("%v/%s is called stored, and is in none of the stores", w.id, w.path)
		}
	}
}

// has reports whether any of the stores has the file.
func (h *household) has(w stored) bool {
	for _, dir := range h.stores {
		b, err := os.ReadFile(filepath.Join(dir, "files", w.id.String(), w.path))
		if err == nil && int64(len(b)) == w.size && cksum.Checksum(b) == w.cksum {
			return true
		}
	}
	return false
}
