//go:build unix

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sealift/internal/testpeer"
	"sealift/internal/testservices"
)

// balancer runs HAProxy with the configuration that deploy/ has, but for its servers and
// what change replaces. It returns the address.
func balancer(t *testing.T, servers [2]behind, change ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../deploy/cluster/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := testservices.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	all := append(change,
		`"${SEALIFT_BIND-:1256}"`, addr, "${SEALIFT_ADMIN_TOKEN}", adminToken,
		`"${SEALIFT_A-sealiftd-a:1256}"`, servers[0].addr, `"${SEALIFT_A_ADMIN-9256}"`, servers[0].admin,
		`"${SEALIFT_B-sealiftd-b:1256}"`, servers[1].addr, `"${SEALIFT_B_ADMIN-9256}"`, servers[1].admin,
	)
	testservices.NewHAProxy(t, strings.NewReplacer(all...).Replace(string(text)), addr)
	return addr
}

// behind is a server that a balancer is in front of: its addresses. A check of a server
// whose --admin is on the loopback is over plain HTTP.
type behind struct{ addr, admin string }

// nobody is an address where nobody listens.
var nobody = behind{"127.0.0.1:1", "1"}

// serveBehind is serve, with an admin address for the checks of a balancer, beyond the
// loopback.
func serveBehind(t *testing.T, args ...string) (*daemon, behind) {
	t.Helper()
	d := serve(t, append(adminFlags(t, "0.0.0.0"), args...)...)
	_, port, err := net.SplitHostPort(d.admin())
	if err != nil {
		t.Fatal(err)
	}
	return d, behind{d.addr, port}
}

// comeFrom makes a client that comes by addr from an address of its own.
func comeFrom(t *testing.T, addr, ip, name string) *peer {
	t.Helper()
	nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: patience}).Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	p := &peer{t: t, addr: addr, tls: testpeer.Switched()}
	p.Name, p.Pair = name, testpeer.SharedPair(0)
	p.must(p.UseTLS(nc, p.tls))
	p.signUp()
	p.exchange()
	return p
}

// Behind HAProxy, with either version of the header, clients are served, the log has their
// own addresses, and its looks at the server leave nothing there.
func TestBehindHAProxy(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"send-proxy", "send-proxy-v2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			d, server := serveBehind(t, "--proxy-protocol", "--trusted-proxies", "127.0.0.1")
			addr := balancer(t, [2]behind{server, nobody}, "send-proxy-v2", version)
			dir := t.TempDir()
			put(t, filepath.Join(dir, "file"), make([]byte, 3<<20))
			d.introduce(dir, addr)
			run(t, dir, sealift, "send", "--server", addr, "--name", "n", "file").succeeded(t)
			for i := range 3 {
				p := comeFrom(t, addr, fmt.Sprintf("127.0.0.%d", i+2), fmt.Sprint("client ", i))
				p.upload("f", []byte("content"))
				p.Close()
				d.await(fmt.Sprintf(`"remote":"127.0.0.%d:`, i+2))
			}
			d.stop()
			for line := range strings.Lines(served(d)) {
				if strings.Contains(line, `"level":"warn"`) || strings.Contains(line, `"level":"error"`) {
					t.Errorf("the log has %s", line)
				}
				if strings.Contains(line, "connection closed") && !strings.Contains(line, `"client":"`) {
					t.Errorf("the log has a line about a look at the server: %s", line)
				}
			}
		})
	}
}

// served is the log of a server that has ended, up to its drain: that closes what is there, also
// HAProxy's look of the moment, and says so.
func served(d *daemon) string {
	log, _, _ := strings.Cut(d.log.String(), `"msg":"draining"`)
	return log
}

// The number of connections of one address is the client's, and not HAProxy's.
func TestLimitsBehindHAProxy(t *testing.T) {
	t.Parallel()
	d, server := serveBehind(t, "--proxy-protocol", "--trusted-proxies", "127.0.0.0/24", "--max-connections-per-ip", "1")
	addr := balancer(t, [2]behind{server, nobody})
	for i := range 5 {
		p := comeFrom(t, addr, fmt.Sprintf("127.0.0.%d", i+2), fmt.Sprint("client ", i))
		defer p.Close()
	}
	if log := d.log.String(); strings.Contains(log, "connections refused") {
		t.Errorf("one of them was refused:\n%s", log)
	}
}

// HAProxy looks at servers without the PROXY protocol, too, and by nothing but
// connections, with and without a header: that leaves nothing in the log.
func TestHAProxyWithoutHeaders(t *testing.T) {
	t.Parallel()
	by := []string{
		"\toption httpchk\n", "", "\thttp-check connect ssl\n", "", "\thttp-check expect status 200\n", "",
		"\thttp-check send meth GET uri /healthz ver HTTP/1.1 hdr Host localhost hdr Authorization \"Bearer ${SEALIFT_ADMIN_TOKEN}\"\n", "",
		` port "${SEALIFT_A_ADMIN-9256}"`, "", ` port "${SEALIFT_B_ADMIN-9256}"`, "",
	}
	for _, tc := range []struct {
		flags  []string
		header string
	}{
		{nil, "check "},
		{[]string{"--proxy-protocol", "--trusted-proxies", "127.0.0.1"}, "send-proxy check "},
		{[]string{"--proxy-protocol", "--trusted-proxies", "127.0.0.1"}, "send-proxy-v2 check check-send-proxy "},
	} {
		d := serve(t, tc.flags...)
		addr := balancer(t, [2]behind{{addr: d.addr}, nobody}, append(by, "send-proxy-v2 check ", tc.header, "inter 1s", "inter 20ms")...)
		p := comeFrom(t, addr, "127.0.0.1", "n")
		p.upload("f", []byte("content"))
		p.Close()
		d.await("connection closed")
		d.stop()
		log := served(d)
		if n := strings.Count(log, "connection closed"); n != 1 || strings.Contains(log, "PROXY") {
			t.Errorf("%s: %d connections were closed:\n%s", tc.header, n, log)
		}
	}
}

// A HAProxy that sends headers to a server that does not expect them, or none to one that
// does, does not serve its clients, and the server says why.
func TestHAProxySetUpWrong(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		trusted string
		change  []string
		says    string
	}{
		{"127.0.0.1", []string{"send-proxy-v2 ", ""}, "the connection does not begin with one"},
		{"192.0.2.1", nil, "its sender is not one of --trusted-proxies"},
	} {
		d, server := serveBehind(t, "--proxy-protocol", "--trusted-proxies", tc.trusted)
		addr := balancer(t, [2]behind{server, nobody}, tc.change...)
		nc, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = nc.Write(make([]byte, 100))
		d.await(tc.says)
		_ = nc.Close()
	}
}

// A server that hangs, or dies: clients go on at the other one meanwhile.
func TestHAProxyLeavesOutServers(t *testing.T) {
	t.Parallel()
	first, a := serveBehind(t, "--proxy-protocol", "--trusted-proxies", "127.0.0.1")
	second, b := serveBehind(t, "--proxy-protocol", "--trusted-proxies", "127.0.0.1")
	addr := balancer(t, [2]behind{a, b})
	ended := make(chan string, 2)
	for _, name := range []string{"one", "other"} { // one at each server
		p := comeFrom(t, addr, "127.0.0.1", name)
		go func() {
			_, _, _ = p.Read()
			ended <- name
		}()
	}
	first.signal(syscall.SIGSTOP)
	<-ended // the one at the server that hangs is cut
	select {
	case <-ended:
		t.Error("the connection at the other server has ended, too")
	default:
	}
	first.signal(syscall.SIGCONT)
	for i, stop := range []func(){func() { first.signal(syscall.SIGSTOP) }, func() { first.signal(syscall.SIGCONT); second.kill() }} {
		stop()
		eventually(t, "a client is served", func() bool {
			var conn testpeer.Conn
			conn.Name, conn.Pair = fmt.Sprint("client ", i), testpeer.SharedPair(0)
			nc, err := net.DialTimeout("tcp", addr, patience)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			return conn.UseTLS(nc, testpeer.Switched()) == nil && conn.SignUp() == nil
		})
	}
}
