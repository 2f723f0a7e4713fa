//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// portOf waits until the server listens and returns the port.
func (d *daemon) portOf() string {
	d.t.Helper()
	d.ready()
	_, port, err := net.SplitHostPort(d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.addr = net.JoinHostPort("127.0.0.1", port)
	return port
}

// The port is that of port.info, and the server serves there. Without a
// subcommand it serves, too.
func TestPortInfo(t *testing.T) {
	for _, lineEnd := range []string{"", "\n", " \r\n"} {
		port := freePort(t)
		dir := t.TempDir()
		put(t, filepath.Join(dir, "port.info"), []byte(port+lineEnd))
		d := launch(t, dir, nil) // in dir, with neither --dir nor --listen
		if got := d.portOf(); got != port {
			t.Errorf("port %s, want %s", got, port)
		}
		if strings.Contains(d.log.String(), "port.info") {
			t.Error("a warning about port.info")
		}
		p := login(t, d, "n")
		p.upload("file", []byte("content"))
		p.Close()
		d.stop()
	}
}

// Without a port.info, and with one that is rubbish, the server warns and takes
// 1256. If that port is taken, it says so.
func TestBadPortInfo(t *testing.T) {
	for what, content := range map[string]string{
		"missing": "", "empty": "\n", "words": "twelve fifty-six", "zero": "0", "too large": "65536",
		"negative": "-1256", "two": "1234 5678", "binary": "\x00\xff\x1b[31m",
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			if what != "missing" {
				put(t, filepath.Join(dir, "port.info"), []byte(content))
			}
			d := launch(t, dir, nil)
			line := d.await("port.info cannot be used")
			if !strings.Contains(line, `"level":"warn"`) || !strings.Contains(line, `"port":1256`) {
				t.Errorf("the warning is %s", line)
			}
			eventually(t, "sealiftd listens, or says why it cannot", func() bool {
				return !d.running() || strings.Contains(d.log.String(), `"listening"`)
			})
			if d.running() {
				if port := d.portOf(); port != "1256" {
					t.Errorf("port %s, want 1256", port)
				}
				return
			}
			if log := d.log.String(); !strings.Contains(log, "Fatal error: listening") || !strings.Contains(log, ":1256") {
				t.Errorf("sealiftd ended:\n%s", log)
			}
		})
	}
}

func TestListenOverridesPortInfo(t *testing.T) {
	dir := t.TempDir()
	port := freePort(t)
	for _, content := range []string{port, "rubbish"} {
		put(t, filepath.Join(dir, "port.info"), []byte(content))
		d := serveIn(t, dir)
		if got := d.portOf(); got == port || got == "1256" {
			t.Errorf("port %s", got)
		}
		if strings.Contains(d.log.String(), "port.info") {
			t.Error("a warning about a port.info that is not used")
		}
		if got := string(get(t, filepath.Join(dir, "port.info"))); got != content {
			t.Errorf("port.info is now %q", got)
		}
		d.stop()
	}
}

// Two servers cannot have one directory, nor one port.
func TestSecondServer(t *testing.T) {
	d := serve(t)
	run(t, t.TempDir(), sealiftd, "--dir", d.dir, "--listen", "127.0.0.1:0").failed(t, "another sealiftd uses this directory")
	run(t, t.TempDir(), sealiftd, "--dir", t.TempDir(), "--listen", d.addr).failed(t, "listening: listen tcp "+d.addr)
	login(t, d, "n").upload("file", nil)
}

// Each flag has an environment variable, and wins over it.
func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	d := launch(t, t.TempDir(), []string{
		"SEALIFT_DIR=" + dir, "SEALIFT_LISTEN=127.0.0.1:0", "SEALIFT_MAX_FILE_SIZE=1KiB",
		"SEALIFT_LOG_LEVEL=debug", "SEALIFT_KEY_POLICY=pin",
	}, "--key-policy", "replace")
	d.ready()
	p := login(t, d, "n")
	p.upload("1024", make([]byte, 1024))
	p.sendPackets(cut(p.File("1025", make([]byte, 1025)), 0))
	p.expect(codec.CodeError)
	p.send(p.OtherPublicKey(otherKey()))
	p.expect(codec.CodeAESKey) // the flag's policy
	d.await(`"level":"debug"`)
	get(t, filepath.Join(dir, "files", p.ID.String(), "1024"))

	env := []string{"SEALIFT_DIR=" + dir, "SEALIFT_JSON=true"}
	got := rows[fileRow](t, runEnv(t, t.TempDir(), env, sealiftd, "files").succeeded(t).stdout)
	if len(got) != 1 || got[0].FileName != "1024" {
		t.Errorf("files %+v", got)
	}
	for _, bad := range []string{"SEALIFT_MAX_FILE_SIZE=much", "SEALIFT_WORKERS=many", "SEALIFT_FSYNC=perhaps", "SEALIFT_IDLE_TIMEOUT=5"} {
		name, value, _ := strings.Cut(bad, "=")
		got := runEnv(t, t.TempDir(), []string{bad}, sealiftd, "--listen", "127.0.0.1:0").failed(t, value)
		if flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "SEALIFT_"), "_", "-")); !strings.Contains(got.stderr, name) && !strings.Contains(got.stderr, flag) {
			t.Errorf("%s: %q does not say where that comes from", bad, got.stderr)
		}
	}
}

// A signal stops an idle server with status 0.
func TestSignals(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		d := serve(t)
		p := login(t, d, "n")
		p.upload("file", []byte("content"))
		d.signal(sig)
		p.expectEnd()
		if state := d.wait(); state.ExitCode() != 0 {
			t.Errorf("%v: sealiftd ended with %v", sig, state)
		}
		d.await(`"stopped"`)
		d = d.again(p)
		p.rejoin()
		d.checkVerified(p.ID, "file", []byte("content"))
	}
}

// A signal lets transfers that are under way finish, also those that only wait
// for their 1029, and no new one begin.
func TestDrain(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		d := serve(t, "--drain-timeout", "10m")
		sending, waiting, idle := login(t, d, "sending"), login(t, d, "waiting"), login(t, d, "idle")
		f := sending.File("f", randomBytes(300_000, 1))
		packets := cut(f, 1007)
		sending.sendPackets(packets[:150])
		sending.settle()
		w := waiting.File("w", []byte("content"))
		waiting.sendPackets(cut(w, 0))
		waiting.expectReceived(w)

		d.signal(sig)
		d.await("draining")
		idle.expectEnd()
		sending.sendPackets(cut(sending.File("too late", nil), 0))
		sending.expect(codec.CodeError)
		sending.sendPackets(packets[150:])
		sending.expectReceived(f)
		for p, f := range map[*peer]*testpeer.File{sending: f, waiting: w} {
			if !d.running() {
				t.Fatal("sealiftd has not waited")
			}
			p.confirm(f.Name)
			p.expectEnd()
		}
		if state := d.wait(); state.ExitCode() != 0 {
			t.Errorf("%v: sealiftd ended with %v", sig, state)
		}
		d.checkVerified(sending.ID, "f", f.Content)
		d.checkVerified(waiting.ID, "w", w.Content)
		if files := d.files(); len(files) != 2 {
			t.Errorf("files %+v", files)
		}
	}
}

// Transfers that take longer than --drain-timeout are cut, and what they left
// is removed. The status is 0 all the same.
func TestDrainTimeout(t *testing.T) {
	d := serve(t, "--drain-timeout", "100ms")
	p := login(t, d, "n")
	p.sendPackets(cut(p.File("f", randomBytes(300_000, 1)), 1007)[:150])
	p.settle()
	d.signal(syscall.SIGTERM)
	if state := d.wait(); state.ExitCode() != 0 {
		t.Errorf("sealiftd ended with %v", state)
	}
	d.await("drain timeout")
	if left := d.incoming(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A second signal ends the server at once, whatever is under way.
func TestSecondSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		if sig == syscall.SIGINT && signal.Ignored(sig) {
			continue // as a shell's background jobs do; children inherit it
		}
		d := serve(t, "--drain-timeout", "10m")
		p := login(t, d, "n")
		p.upload("before", []byte("content"))
		p.sendPackets(cut(p.File("f", randomBytes(300_000, 1)), 1007)[:150])
		p.settle()
		d.signal(sig)
		d.await("draining")
		// From the first signal on the second is deadly, but not in the same
		// instant: a user who presses Ctrl-C twice would press it again.
		eventually(t, "sealiftd ends", func() bool {
			if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			return !d.running()
		})
		status, ok := d.wait().Sys().(syscall.WaitStatus)
		if !ok || !status.Signaled() || status.Signal() != sig {
			t.Errorf("sealiftd ended with %v, want death by %v", d.wait(), sig)
		}
		d = d.again(p)
		p.rejoin()
		d.checkVerified(p.ID, "before", []byte("content"))
	}
}

// The registry in memory forgets at the end, and what was stored stays.
func TestMemoryRegistry(t *testing.T) {
	d := serve(t, "--registry", "memory")
	p := login(t, d, "n")
	p.upload("file", []byte("content"))
	checkFile(t, d.stored(p.ID, "file"), bytes.NewReader([]byte("content")))
	p.Close()
	d.stop()
	if _, err := os.Stat(filepath.Join(d.dir, "defensive.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("defensive.db: %v", err)
	}
	d = serveIn(t, d.dir, "--registry", "memory")
	p.addr = d.addr
	p.dial()
	p.send(p.Reconnect())
	p.expectID(codec.CodeReconnectRejected)
	p.signUp()
	p.exchange()
	p.upload("file", []byte(fmt.Sprint("as ", p.ID)))
}

// A number or a time below zero is no setting.
func TestNegativeSettings(t *testing.T) {
	for _, flag := range []string{
		"max-connections=-1", "max-connections-per-ip=-1", "register-rate=-1", "register-rate=NaN", "workers=-1",
		"max-uploads-per-connection=-1", "idle-timeout=-1s", "handshake-timeout=-1s", "drain-timeout=-1s", "unverified-ttl=-1s",
	} {
		name, value, _ := strings.Cut(flag, "=")
		run(t, t.TempDir(), sealiftd, "serve", "--"+flag).failed(t, "--"+name+" "+value+": want 0 or more")
	}
}
