//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"

	"sealift/bench/load"
)

// The peer sftp is OpenSSH on a port of its own, with keys of its own, for the
// user who runs the benchmark.

func findSSHD() (string, error) {
	if path, err := exec.LookPath("sshd"); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/sshd")
}

// separationDir is where sshd of Debian confines itself; systemd makes it when
// it starts the service.
const separationDir = "/run/sshd"

func sshNeeds() error {
	if _, err := findSSHD(); err != nil {
		return errors.New("there is no sshd (Debian: openssh-server)")
	}
	for _, program := range []string{"sftp", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("there is no %s (Debian: openssh-client)", program)
		}
	}
	if _, err := os.Stat(separationDir); err != nil && os.Getuid() == 0 {
		return os.Mkdir(separationDir, 0o755)
	} else {
		return err
	}
}

func startSSH(ctx context.Context, h *harness, o serverOptions, env []string) (*server, error) {
	dir := filepath.Join(h.dir, "ssh")
	if err := makeSSHKeys(dir); err != nil {
		return nil, err
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`ListenAddress 127.0.0.1
Port %d
HostKey %[2]s/host
AuthorizedKeysFile %[2]s/user.pub
StrictModes no
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 1000
LogLevel ERROR
Subsystem sftp internal-sftp
`, addr.Port, dir)
	file := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	sshd, err := findSSHD()
	if err != nil {
		return nil, err
	}
	p, err := startApart(ctx, env, sshd, "-D", "-e", "-f", file)
	if err != nil {
		return nil, err
	}
	s := &server{process: p, addr: addr.String(), opts: o, signal: syscall.SIGTERM}
	return s, whenConnectable(s, s.addr)
}

func makeSSHKeys(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"host", "user"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ssh-keygen: %w\n%s", err, out)
		}
	}
	return nil
}

// sftpClient is an sftp that takes commands as they come, so that the time of
// the log-in is not counted.
type sftpClient struct {
	ctx    context.Context // of the turn
	h      *harness
	server *server
	from   string
	to     string
	p      *process
}

func sftpClients(ctx context.Context, h *harness, s *server, spec load.Spec) ([]fileClient, error) {
	from, err := h.sourceFile(spec.FileSize)
	if err != nil {
		return nil, err
	}
	var all []fileClient
	for i := range spec.Connections {
		all = append(all, &sftpClient{ctx: ctx, h: h, server: s, from: from, to: filepath.Join(s.opts.dir, fmt.Sprint("up-", i))})
	}
	return all, nil
}

func (c *sftpClient) connect() error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	_, port, _ := strings.Cut(c.server.addr, ":")
	c.p, err = start(c.ctx, nil, "sftp", "-q", "-b", "-", "-P", port, "-c", "aes256-gcm@openssh.com",
		"-i", filepath.Join(c.h.dir, "ssh", "user"), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		me.Username+"@127.0.0.1")
	if err != nil {
		return err
	}
	return c.do("")
}

// do runs a command and waits until it is done.
func (c *sftpClient) do(command string) error {
	const done = "the command is done"
	if _, err := fmt.Fprintf(c.p.in, "%s\n!echo %s\n", command, done); err != nil {
		return c.p.explain(err)
	}
	for {
		switch line, err := c.p.line(); { // sftp repeats each command behind a prompt
		case err != nil:
			return err
		case line == done:
			return nil
		}
	}
}

func (c *sftpClient) send() error { return c.do(fmt.Sprintf("put %q %q", c.from, c.to)) }

func (c *sftpClient) cpu() float64 { return cpuOf(c.p) }

func (c *sftpClient) close() error {
	if c.p == nil {
		return nil
	}
	return c.p.stop(nil)
}
