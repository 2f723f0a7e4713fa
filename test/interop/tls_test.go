package interop

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealift/crypto/tlskey"
)

// These tests have TLS at the other end that nobody here wrote: OpenSSL's s_client and s_server, Python's ssl, stunnel.
// They run over TLS whether or not the others do.

// tool is the path of a program that the test needs.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("there is no %s (Debian: %s)", name, debian)
	}
	return path
}

// throughPipes listens, and gives each connection's bytes to a command of its own: a client that speaks plain reaches a
// server through a program that puts TLS around its standard input.
func throughPipes(t *testing.T, command func(ctx context.Context) *exec.Cmd) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			pipe(t, client, command(t.Context()))
		}
	}()
	return listener.Addr().String()
}

// pipe runs the command with a connection as its standard input and output, one after the other.
func pipe(t *testing.T, client net.Conn, command *exec.Cmd) {
	defer client.Close()
	in, err := command.StdinPipe()
	if err != nil {
		t.Error(err)
		return
	}
	var complaints bytes.Buffer
	command.Stdout, command.Stderr = client, &complaints
	if err := command.Start(); err != nil {
		t.Error(err)
		return
	}
	_, _ = io.Copy(in, client)
	_ = in.Close()
	if err := command.Wait(); err != nil && t.Context().Err() == nil {
		t.Errorf("%v: %v: %s", command.Args, err, complaints.String())
	}
}

// pythonTLS puts TLS around standard input and output, by Python's ssl.
const pythonTLS = `
import os, socket, ssl, sys, threading
host, port = sys.argv[1].split(":")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["sealift/3"])
if len(sys.argv) > 2:
    context.maximum_version = ssl.TLSVersion[sys.argv[2]]
connection = context.wrap_socket(socket.create_connection((host, int(port))), server_hostname="sealift")
print(connection.version(), connection.selected_alpn_protocol(), file=sys.stderr)
def down():
    while data := connection.recv(65536):
        os.write(1, data)
thread = threading.Thread(target=down, daemon=True)
thread.start()
while data := os.read(0, 5000):
    connection.sendall(data)
connection.close()
`

// TestPythonClientInsideTLSOfOthers has the Python client register, send files of several packets and come back, inside
// OpenSSL's and Python's TLS.
func TestPythonClientInsideTLSOfOthers(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	openssl := tool(t, "openssl", "openssl")
	for name, command := range map[string]func(ctx context.Context, addr string) *exec.Cmd{
		"openssl s_client": func(ctx context.Context, addr string) *exec.Cmd {
			return exec.CommandContext(ctx, openssl, "s_client", "-quiet", "-no_ign_eof", "-nocommands", "-tls1_3", "-alpn", "sealift/3", "-connect", addr)
		},
		"openssl s_client without ALPN": func(ctx context.Context, addr string) *exec.Cmd {
			return exec.CommandContext(ctx, openssl, "s_client", "-quiet", "-no_ign_eof", "-nocommands", "-connect", addr)
		},
		"Python's ssl": func(ctx context.Context, addr string) *exec.Cmd {
			return exec.CommandContext(ctx, programs.python, "-c", pythonTLS, addr)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, programs, Server{Maker: Sealift}, 100_001)
			addr := throughPipes(t, func(ctx context.Context) *exec.Cmd { return command(ctx, s.server.Addr) })
			client := Client{Maker: Python, Dialect: spec}
			s.want(s.sendTo(addr, client), 0, "1025 1600 1026 1602 1028x98 1603 1029 1604")
			s.wantStored()
			s.want(s.sendTo(addr, client), 0, "1027 1605 1028x98 1603 1029 1604")
			s.wantStored()
			s.server.Stop()
			if log := s.server.stderr.String(); strings.Count(log, "protected") < 2 {
				t.Errorf("the connections were not protected:\n%s", log)
			}
		})
	}
}

// TestOldTLS shows that TLS 1.2 and older are refused with the alert that says so, that no other version is spoken, and
// that the log tells of it once.
func TestOldTLS(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	openssl := tool(t, "openssl", "openssl")
	for name, command := range map[string]func(addr string) *exec.Cmd{
		"openssl s_client": func(addr string) *exec.Cmd {
			return exec.CommandContext(t.Context(), openssl, "s_client", "-tls1_2", "-connect", addr)
		},
		"Python's ssl": func(addr string) *exec.Cmd {
			return exec.CommandContext(t.Context(), programs.python, "-c", pythonTLS, addr, "TLSv1_2")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, programs, Server{Maker: Sealift}, 0)
			output, err := command(s.server.Addr).CombinedOutput()
			if err == nil || !bytes.Contains(bytes.ToLower(output), []byte("protocol version")) && !bytes.Contains(output, []byte("PROTOCOL_VERSION")) {
				t.Errorf("%v: %s", err, output)
			}
			s.server.Stop()
			if log := s.server.stderr.String(); strings.Count(log, "handshake failed") != 1 {
				t.Errorf("the log does not say once that a handshake failed:\n%s", log)
			}
		})
	}
}

// TestKeyUpdateOfOpenSSL has s_client renew its keys between two halves of a message: by its command k its own, by K
// those of both sides. It takes for a command what it reads at once and begins so; -msg shows when it has read.
func TestKeyUpdateOfOpenSSL(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	openssl := tool(t, "openssl", "openssl")
	s := newScene(t, programs, Server{Maker: Sealift}, 0)
	for _, update := range []string{"k\n", "K\n"} {
		client := exec.CommandContext(t.Context(), openssl, "s_client", "-msg", "-tls1_3", "-connect", s.server.Addr)
		in, err := client.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out := &watched{changed: make(chan struct{}, 1)}
		client.Stdout, client.Stderr = out, out
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		message := append(header(make([]byte, 16), 1025, 255), name("key "+strings.TrimSpace(update))...)
		for _, step := range []struct {
			write []byte
			until string
		}{
			{nil, "Verify return code"},
			{message[:100], "17 03 03 00 75"}, // the record
			{[]byte(update), "KeyUpdate"},
			{message[100:], "\x03\x40\x06\x10"}, // the 1600
		} {
			if _, err := in.Write(step.write); err != nil {
				t.Fatal(err)
			}
			if !out.await(step.until) {
				t.Fatalf("after %q: no %q in %q", step.write, step.until, out.String())
			}
		}
		if theirs := strings.Count(out.String(), "<<< TLS 1.3, Handshake [length 0005], KeyUpdate"); (theirs > 0) != (update == "K\n") {
			t.Errorf("after %q, the server renewed its keys %d times", update, theirs)
		}
		_ = in.Close()
		_ = client.Wait()
	}
}

// TestSealiftReachesTLSOfOthers has sealift send to a plain server of another maker, behind stunnel and behind
// OpenSSL's s_server.
func TestSealiftReachesTLSOfOthers(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	stunnel := tool(t, "stunnel4", "stunnel4")
	openssl := tool(t, "openssl", "openssl")
	dir := t.TempDir()
	key, err := tlskey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tlskey.SelfSigned(key, "localhost", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := tlskey.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	both := filepath.Join(dir, "pair.pem")
	if err := os.WriteFile(both, append(text, tlskey.EncodeCertificate(cert.Certificate[0])...), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, command := range map[string]func(ctx context.Context, addr, port string) *exec.Cmd{
		"stunnel": func(ctx context.Context, addr, port string) *exec.Cmd {
			config := filepath.Join(dir, "stunnel.conf")
			lines := "foreground = yes\npid =\n[v3]\naccept = 127.0.0.1:" + port + "\nconnect = " + addr + "\ncert = " + both + "\n"
			if err := os.WriteFile(config, []byte(lines), 0o600); err != nil {
				t.Error(err)
			}
			return exec.CommandContext(ctx, stunnel, config)
		},
		"openssl s_server": func(ctx context.Context, addr, port string) *exec.Cmd {
			// One connection, whose bytes are those of a socket: exec 3<> is bash's.
			host, to, _ := net.SplitHostPort(addr)
			script := "exec 3<>/dev/tcp/" + host + "/" + to + "; " + openssl + " s_server -quiet -naccept 1 -accept 127.0.0.1:" + port + " -cert " + both + " <&3 >&3"
			return exec.CommandContext(ctx, "bash", "-c", script)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, programs, Server{Maker: Python, Dialect: spec}, 100_001)
			port := unusedPort(t)
			server := command(t.Context(), s.server.Addr, port)
			complaints := new(bytes.Buffer)
			server.Stderr, server.WaitDelay = complaints, 5*time.Second
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
			client := exec.CommandContext(t.Context(), programs.sealift, "send", "--server", "127.0.0.1:"+port, "--name", "Michael Jackson",
				"--tls-fingerprint", tlskey.Of(cert.Leaf).String(), "--codes", "1025", "--dialect", "spec", "--packet-size", "1024", "file.bin")
			client.Dir, client.Env = s.dir, append(clientEnvironment(s.dir), "SEALIFT_TLS_TRUST_FIRST=")
			if output, err := client.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s\n%s", err, output, complaints)
			}
			s.wantStored()
		})
	}
}
