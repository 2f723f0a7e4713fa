//go:build unix

package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sealift/codec"
	"sealift/internal/testpeer"
	"sealift/server"
)

// configured is a server with a file of settings.
type configured struct {
	*daemon
	config  string
	reloads int
}

func serveConfigured(t testing.TB, text string, args ...string) *configured {
	t.Helper()
	c := &configured{config: filepath.Join(t.TempDir(), "sealiftd.yaml")}
	put(t, c.config, []byte(text))
	c.daemon = serve(t, append(args, "--config", c.config)...)
	return c
}

// reload gives the server another file and waits until it has gone through it. A setting
// that needs a restart tells that: it has another value each time.
func (c *configured) reload(text string) {
	c.t.Helper()
	c.reloads++
	put(c.t, c.config, fmt.Appendf(nil, "workers: %d\n%s", 100+c.reloads, text))
	c.signal(syscall.SIGHUP)
	c.await(fmt.Sprintf(`"setting":"workers","from":"0","to":"%d"`, 100+c.reloads))
}

// change is the log's line about a setting that was changed.
func change(setting, from, to string) string {
	return fmt.Sprintf(`"msg":"a setting was changed","setting":"%s","from":"%s","to":"%s"`, setting, from, to)
}

// refuses makes sure that the server answers with 1607 to the last of files, of which
// each is sent and has no verdict.
func (p *peer) refuses(files ...*testpeer.File) {
	p.t.Helper()
	for i, f := range files {
		p.sendPackets(cut(f, 0))
		if i < len(files)-1 {
			p.expectReceived(f)
		}
	}
	p.expect(codec.CodeError)
}

// ended reads until the server has ended the connection.
func (p *peer) ended() {
	for {
		if _, _, err := p.Read(); err != nil {
			p.Close()
			return
		}
	}
}

// admits waits until the server serves one more connection.
func (c *configured) admits() {
	c.t.Helper()
	eventually(c.t, "the server admits a connection", func() bool {
		var conn testpeer.Conn
		conn.Name, conn.Pair = "admitted", testpeer.SharedPair(0)
		nc, err := net.DialTimeout("tcp", c.addr, patience)
		if err != nil {
			c.t.Fatal(err)
		}
		defer nc.Close()
		return conn.UseTLS(nc, testpeer.Switched()) == nil && conn.SignUp() == nil
	})
}

// servesBehindProxy makes sure that the server takes a client from what a proxy says.
func (c *configured) servesBehindProxy(ip string) {
	c.t.Helper()
	nc, err := net.DialTimeout("tcp", c.addr, patience)
	if err != nil {
		c.t.Fatal(err)
	}
	defer nc.Close()
	var conn testpeer.Conn
	conn.Name, conn.Pair = "behind", testpeer.SharedPair(0)
	_, err = fmt.Fprintf(nc, "PROXY TCP4 %s 192.0.2.1 4711 1256\r\n", ip)
	if err = cmp.Or(err, conn.UseTLS(nc, testpeer.Switched())); err != nil {
		c.t.Fatal(err)
	}
	if err := conn.SignUp(); err != nil {
		c.t.Fatal(err)
	}
	c.await(`"remote":"` + ip + `:4711"`)
}

// Each setting that may change while the server runs does so at a SIGHUP, and counts from
// then on, also for the connections that are there.
func TestReloadedSettings(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		from, to string
		effect   func(c *configured, p *peer, reload func()) // p can send files
	}{
		"log-level": {"info", "debug", func(c *configured, _ *peer, reload func()) {
			reload()
			login(c.t, c.daemon, "debugged")
			c.await(`"level":"debug"`)
		}},
		"max-file-size": {"1000", "10", func(_ *configured, p *peer, reload func()) {
			p.upload("11", make([]byte, 11))
			reload()
			p.upload("10", make([]byte, 10))
			p.refuses(p.File("too large", make([]byte, 11)))
		}},
		"max-uploads-per-connection": {"16", "1", func(_ *configured, p *peer, reload func()) {
			reload()
			p.sendPackets(cut(p.File("first", make([]byte, 100)), 50)[:1])
			p.sendPackets(cut(p.File("second", make([]byte, 100)), 50)[:1])
			p.expect(codec.CodeError)
		}},
		"max-unverified": {"0", "4KiB", func(_ *configured, p *peer, reload func()) {
			reload()
			p.refuses(p.File("first", make([]byte, 10)), p.File("second", make([]byte, 10)))
		}},
		"quota-bytes": {"0", "100", func(_ *configured, p *peer, reload func()) {
			p.upload("before", make([]byte, 90))
			reload()
			p.upload("before", make([]byte, 90))
			p.upload("fits", make([]byte, 10))
			p.refuses(p.File("after", make([]byte, 1)))
		}},
		"quota-files": {"0", "1", func(_ *configured, p *peer, reload func()) {
			p.upload("before", make([]byte, 90))
			reload()
			p.upload("before", make([]byte, 1000))
			p.refuses(p.File("after", nil))
		}},
		"limit-rate": {"1", "0", func(_ *configured, p *peer, reload func()) {
			// Of this much, the most would come after years.
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				p.upload("large", make([]byte, 3<<20))
			}()
			reload()
			<-sent
		}},
		// Looked for every ten minutes: its effect is tested in package server.
		"keep-for": {"0s", "1h0m0s", func(_ *configured, _ *peer, reload func()) { reload() }},
		"min-free": {"64MiB", "3145728TiB", func(_ *configured, p *peer, reload func()) {
			p.upload("before", []byte("content"))
			reload()
			p.refuses(p.File("after", []byte("content")))
		}},
		"key-policy": {"pin", "replace", func(_ *configured, p *peer, reload func()) {
			p.send(p.OtherPublicKey(otherKey()))
			p.expect(codec.CodeError)
			reload()
			p.send(p.OtherPublicKey(otherKey()))
			p.expect(codec.CodeAESKey)
		}},
		"register-rate": {"50", "0.05", func(c *configured, p *peer, reload func()) {
			reload()
			refused := false
			for i := range 3 {
				q := connect(c.t, c.daemon, fmt.Sprint("one more, ", i))
				q.send(q.Register())
				code, _, err := q.Read()
				q.must(err)
				refused = refused || code == codec.CodeError
			}
			if !refused {
				c.t.Error("all of them register")
			}
		}},
		"registration": {"open", "closed", func(c *configured, _ *peer, reload func()) {
			reload()
			q := connect(c.t, c.daemon, "one more")
			q.send(q.Register())
			q.expect(codec.CodeRegisterFailed)
		}},
		"max-connections": {"0", "1", func(c *configured, p *peer, reload func()) {
			q := login(c.t, c.daemon, "second")
			reload()
			turnedAway(c.t, c.daemon)
			p.upload("goes on", []byte("content"))
			q.upload("goes on", []byte("content"))
			p.Close()
			q.Close()
			c.admits()
		}},
		"max-connections-per-ip": {"0", "1", func(c *configured, p *peer, reload func()) {
			reload()
			turnedAway(c.t, c.daemon)
			p.upload("goes on", []byte("content"))
			p.Close()
			c.admits()
		}},
		"proxy-protocol": {"false", "true", func(c *configured, p *peer, reload func()) {
			reload()
			turnedAway(c.t, c.daemon)
			p.upload("goes on", []byte("content"))
			c.servesBehindProxy("203.0.113.7")
		}},
		"trusted-proxies": {"192.0.2.1", "127.0.0.1,192.0.2.1", func(c *configured, p *peer, reload func()) {
			reload()
			turnedAway(c.t, c.daemon)
			p.upload("goes on", []byte("content"))
			c.servesBehindProxy("203.0.113.8")
		}},
		"handshake-timeout": {"1m0s", "1ms", func(c *configured, p *peer, reload func()) {
			silent := connect(c.t, c.daemon, "silent")
			reload()
			silent.ended()
			p.upload("goes on", []byte("content"))
		}},
		"idle-timeout": {"5m0s", "1ms", func(_ *configured, p *peer, reload func()) {
			reload()
			p.ended()
		}},
		"drain-timeout": {"10m0s", "1ms", func(c *configured, p *peer, reload func()) {
			p.sendPackets(cut(p.File("f", make([]byte, 100)), 50)[:1])
			p.settle()
			reload()
			c.stop()
			c.await("drain timeout")
		}},
		// Looked for every ten minutes: its effect is tested in package server.
		"unverified-ttl": {"24h0m0s", "1h0m0s", func(_ *configured, _ *peer, reload func()) { reload() }},
		// So are the effects of these, and in package events.
		"event-ttl":     {"72h0m0s", "1h0m0s", func(_ *configured, _ *peer, reload func()) { reload() }},
		"event-max":     {"100000", "7", func(_ *configured, _ *peer, reload func()) { reload() }},
		"event-retry":   {"1s", "1m0s", func(_ *configured, _ *peer, reload func()) { reload() }},
		"event-timeout": {"30s", "10s", func(_ *configured, _ *peer, reload func()) { reload() }},
		"partial-ttl": {"24h0m0s", "1ms", func(c *configured, p *peer, reload func()) {
			p.half("a")
			p.Close()
			c.kept(1)
			reload()
			c.kept(0)
		}},
		"partial-budget": {"0", "5MiB", func(c *configured, p *peer, reload func()) {
			for i, name := range []string{"a", "b"} {
				p.dial()
				p.rejoin()
				p.half(name)
				p.Close()
				c.kept(i + 1)
			}
			reload()
			c.kept(1)
		}},
	}
	live := []string{"log-level"}
	for flag, may := range server.Settings() {
		if may {
			live = append(live, flag)
		}
	}
	slices.Sort(live)
	if got := slices.Sorted(maps.Keys(cases)); !slices.Equal(got, live) {
		t.Errorf("tested are %v, and %v may change", got, live)
	}
	for setting, tc := range cases {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			beside := map[string]string{"proxy-protocol": "trusted-proxies: 127.0.0.1\n", "trusted-proxies": "proxy-protocol: true\n"}[setting]
			c := serveConfigured(t, beside+setting+": "+tc.from+"\n")
			if setting == "min-free" {
				c.expected = "the disk is full"
			}
			p := login(t, c.daemon, "n")
			tc.effect(c, p, func() {
				t.Helper()
				c.reload(beside + setting + ": " + tc.to + "\n")
				c.await(change(setting, tc.from, tc.to))
			})
		})
	}
}

// What needs a restart is named with what it was and would be, at each SIGHUP, and stays.
// What the command line or the environment sets is not changed by the file.
func TestReloadOfWhatNeedsARestart(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "sealiftd.yaml")
	put(t, config, nil)
	dir := t.TempDir()
	d := launch(t, dir, []string{"SEALIFT_CONFIG=" + config, "SEALIFT_DIR=" + dir, "SEALIFT_IDLE_TIMEOUT=7m"}, "--max-file-size", "1000", "--listen", "127.0.0.1:0")
	d.ready()
	p := login(t, d, "n")
	put(t, config, []byte("dir: /nowhere\nmax-file-size: 1\nidle-timeout: 1ms\nregistry: memory\nloops: 3\nfile-mode: 0644\nlog-format: console\n"))
	for range 2 {
		d.log.mu.Lock()
		d.log.text = d.log.text[:0]
		d.log.mu.Unlock()
		d.signal(syscall.SIGHUP)
		for setting, values := range map[string]string{
			"registry": `"from":"sqlite","to":"memory"`, "loops": `"from":"0","to":"3"`,
			"file-mode": `"from":"0600","to":"0644"`, "log-format": `"from":"auto","to":"console"`,
		} {
			line := d.await(`"setting":"` + setting + `"`)
			if !strings.Contains(line, values) || !strings.Contains(line, `"level":"warn"`) || !strings.Contains(line, "needs a restart") {
				t.Errorf("the log has %s", line)
			}
		}
	}
	p.upload("f", make([]byte, 1000))
	info, err := os.Stat(d.stored(p.ID, "f"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("stored with mode %v, %v", info.Mode(), err)
	}
	if log := d.log.String(); strings.Contains(log, "was changed") || strings.Contains(log, `"setting":"dir"`) {
		t.Errorf("something was changed:\n%s", log)
	}
}

// A file that is wrong changes nothing: there is one error, which names the file and the
// line. The files of TLS are looked at all the same.
func TestReloadOfABrokenFile(t *testing.T) {
	t.Parallel()
	c := serveConfigured(t, "max-file-size: 1000\n")
	c.expected = "the settings cannot be used; those from before stay"
	other := serve(t)
	other.stop()
	p := login(t, c.daemon, "n")
	const first = "max-file-size: 10\nlog-level: debug\n"
	for text, want := range map[string]string{
		first + "max-file-sise: 1GiB\n":   `%s:3: there is no setting`,
		first + "idle-timeout: soon\n":    `%s:3: idle-timeout`,
		first + "unverified-ttl: 1s\n":    `%s:3: --unverified-ttl 1s is too short`,
		first + "tls-cert: cert.pem\n":    `%s:3: --tls-cert without --tls-key`,
		first + "max-connections: -1\n":   `%s:3: --max-connections -1: want 0 or more`,
		"max-file-size: 10\nlog-level: x": `%s:2: --log-level: unrecognized level`,
		first + "{":                       `%s: yaml: line 3`,
		"":                                `open %s: no such file or directory`,
		"a pipe":                          `%s: want a regular file`,
	} {
		if err := os.Remove(c.config); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		switch text {
		case "":
		case "a pipe":
			if err := syscall.Mkfifo(c.config, 0o600); err != nil {
				t.Fatal(err)
			}
		default:
			put(t, c.config, []byte(text))
		}
		c.signal(syscall.SIGHUP)
		want = fmt.Sprintf(want, c.config)
		if line := c.await(`"error":"` + want); !strings.Contains(line, c.expected) {
			t.Errorf("%q: the log has %s", text, line)
		}
		p.upload("f", make([]byte, 1000))
	}
	if err := os.RemoveAll(c.config); err != nil {
		t.Fatal(err)
	}
	put(t, c.config, []byte(first+"rubbish\n"))
	for _, name := range []string{"tls/cert.pem", "tls/key.pem"} {
		put(t, filepath.Join(c.dir, name), get(t, filepath.Join(other.dir, name)))
	}
	if err := os.Chmod(filepath.Join(c.dir, "tls/key.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.signal(syscall.SIGHUP)
	c.logged("the files of TLS were reloaded", other.fingerprint())
	login(t, c.daemon, "on another connection").upload("f", make([]byte, 1000))
	if log := c.log.String(); strings.Contains(log, "was changed") || strings.Contains(log, `"level":"debug"`) {
		t.Errorf("something was changed:\n%s", log)
	}
	if n := strings.Count(c.log.String(), c.expected); n != 10 {
		t.Errorf("%d errors, want one for each signal", n)
	}
}

// One SIGHUP has the server take up settings and a certificate.
func TestReloadOfSettingsAndCertificate(t *testing.T) {
	t.Parallel()
	c := serveConfigured(t, "")
	other := serve(t)
	other.stop()
	p := login(t, c.daemon, "n")
	for _, name := range []string{"tls/cert.pem", "tls/key.pem"} {
		put(t, filepath.Join(c.dir, name), get(t, filepath.Join(other.dir, name)))
	}
	if err := os.Chmod(filepath.Join(c.dir, "tls/key.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.reload("max-file-size: 10\n")
	c.logged("the files of TLS were reloaded", other.fingerprint())
	p.refuses(p.File("f", make([]byte, 11)))
}

// A hundred reloads, of which each changes what counts for uploads, lose none and refuse
// none that is within both limits.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	c := serveConfigured(t, "")
	var peers []*peer
	var uploads [4]int
	var clients sync.WaitGroup
	done := make(chan struct{})
	content := randomBytes(100_000, 1)
	for i := range uploads {
		p := login(t, c.daemon, fmt.Sprint("client ", i))
		peers = append(peers, p)
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				f := p.File(fmt.Sprint("f", uploads[i]), content)
				if err := p.Upload(f, 10_000); err != nil {
					t.Errorf("%s: upload %d: %v", p.Name, uploads[i], err)
					return
				}
				uploads[i]++
			}
		})
	}
	for i := range 100 {
		c.reload([]string{
			"max-file-size: 1MiB\nmax-connections: 4\nidle-timeout: 1m\nlog-level: debug\nmax-uploads-per-connection: 1\n",
			"min-free: 1MiB\nmax-connections-per-ip: 4\nhandshake-timeout: 1h\nkey-policy: replace\nregister-rate: 0\n",
		}[i%2])
	}
	close(done)
	clients.Wait()
	for range 100 {
		c.signal(syscall.SIGHUP)
	}
	c.reload("") // it has not been ended by them
	verified := map[string]int{}
	for _, f := range c.files() {
		if f.Verified {
			verified[f.Client]++
		}
	}
	for i, p := range peers {
		if n := verified[p.ID.String()]; n != uploads[i] || n == 0 {
			t.Errorf("%s has sent %d files, and %d are verified", p.Name, uploads[i], n)
		}
	}
	run(t, c.dir, sealiftd, "verify", "--dir", c.dir).succeeded(t)
}
