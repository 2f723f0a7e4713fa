//go:build linux && !race

package deploy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// image is what deploy/Containerfile makes, as a root.
type image struct {
	root, uid, gid, dir string
	env                 []string
	health              []string
	entry, command      []string
	port, volume        string
}

// newImage does what the Containerfile says. It fails on an instruction that it does not
// know.
func newImage(t *testing.T) *image {
	t.Helper()
	i := &image{root: t.TempDir()}
	text := strings.ReplaceAll(read(t, filepath.Join(top, "deploy/Containerfile")), "${TARGETARCH}", runtime.GOARCH)
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch args := strings.Fields(rest); word {
		case "", "#", "ARG":
		case "FROM":
			if rest != "scratch" {
				t.Fatal(lines.Text())
			}
		case "COPY":
			uid, gid := 0, 0
			if owner, ok := strings.CutPrefix(args[0], "--chown="); ok {
				u, g, _ := strings.Cut(owner, ":")
				uid, gid, args = number(t, u), number(t, g), args[1:]
			}
			copyTree(t, filepath.Join(dist(t), args[0]), filepath.Join(i.root, args[1]), uid, gid)
		case "USER":
			i.uid, i.gid, _ = strings.Cut(rest, ":")
		case "WORKDIR":
			i.dir = rest
		case "VOLUME":
			i.volume = rest
		case "EXPOSE":
			i.port = rest
		case "ENV":
			i.env = append(i.env, rest)
		case "STOPSIGNAL":
			if rest != "SIGTERM" {
				t.Fatal(lines.Text())
			}
		case "HEALTHCHECK":
			_, list, _ := strings.Cut(rest, " CMD ")
			i.health = words(t, list)
		case "ENTRYPOINT":
			i.entry = words(t, rest)
		case "CMD":
			i.command = words(t, rest)
		default:
			t.Fatalf("%s: what is that?", lines.Text())
		}
	}
	return i
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func words(t *testing.T, list string) (all []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(list), &all); err != nil {
		t.Fatalf("%s: %v", list, err)
	}
	return all
}

// copyTree copies what is in a folder, as COPY does.
func copyTree(t *testing.T, from, to string, uid, gid int) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == from {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(from, path)
		dst := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			return err
		}
		if d.IsDir() {
			err = os.Mkdir(dst, info.Mode().Perm())
		} else {
			copyTo(t, path, dst)
		}
		if err != nil {
			return err
		}
		return os.Chown(dst, uid, gid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// run is a command line in the image.
func (i *image) run(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return &exec.Cmd{
		Path: args[0], Args: args, Dir: i.dir, SysProcAttr: inside(t, i.root, i.uid, i.gid),
		Env: append([]string{"SEALIFT_LISTEN=127.0.0.1:0"}, i.env...),
	}
}

// The image has one program, which is not root's, and no /proc, /dev or /tmp: it serves, its
// health check knows that, and it ends well when it is stopped.
func TestImage(t *testing.T) {
	need(t, "root")
	i := newImage(t)
	if i.uid == "0" || i.gid == "0" || i.port != "1256" || i.volume != i.dir {
		t.Errorf("user %s:%s, port %s, volume %s, and serves %s", i.uid, i.gid, i.port, i.volume, i.dir)
	}
	if st := stat(t, filepath.Join(i.root, i.volume)); strconv.Itoa(int(st.Uid)) != i.uid || st.Mode&0o777 != 0o750 {
		t.Errorf("the volume belongs to %d, with mode %o", st.Uid, st.Mode&0o777)
	}
	server := i.run(t, append(i.entry, i.command...)...)
	var log bytes.Buffer
	server.Stderr = &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	defer func() {
		_ = server.Process.Kill()
		<-ended
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	addrFile := filepath.Join(i.root, i.volume, "addr")
	for tick := time.Tick(5 * time.Millisecond); ; <-tick {
		if _, err := os.Stat(addrFile); err == nil {
			break
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the server ended: %v", err)
		default:
		}
	}
	addr := strings.TrimSpace(read(t, addrFile))
	if said := finish(t, i.run(t, i.health...)); said != "The server at "+addr+" answers.\n" {
		t.Errorf("health: %s", said)
	}

	client := t.TempDir()
	write(t, filepath.Join(client, "small"), "content", 0o600)
	write(t, filepath.Join(client, "large"), strings.Repeat("0123456789abcdef", 1<<18), 0o600)
	send := exec.Command(here(t, "sealift"), "send", "--server", addr, "--name", "alice", "small", "large")
	send.Dir, send.Env = client, environment("SEALIFT_KNOWN_SERVERS="+filepath.Join(client, "known_servers"))
	finish(t, send)
	if said := finish(t, i.run(t, append(i.entry, "verify")...)); !strings.HasPrefix(said, "2 of 2 files are as they were uploaded") {
		t.Errorf("verify: %s", said)
	}

	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		ended <- err
		if err != nil {
			t.Errorf("stopped: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if unwell := i.run(t, i.health...); unwell.Run() == nil {
		t.Error("health finds a server that has been stopped")
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, `"level":"error"`) || strings.Contains(line, `"level":"warn"`) && !strings.Contains(line, "port.info") {
			t.Errorf("the log has: %s", line)
		}
	}
}
