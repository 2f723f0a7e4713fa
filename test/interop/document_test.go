package interop

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// documentPort is the port in docs/CONFORMANCE.md.
const documentPort = "1256"

// TestConformanceDocument runs the commands of docs/CONFORMANCE.md, in their order, and compares what they print with
// what the page says: a block of text holds the output of the commands before it, and without one they print nothing.
func TestConformanceDocument(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	page, err := os.ReadFile("../../docs/CONFORMANCE.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```(sh|text)\n(.*?)^```$").FindAllSubmatch(page, -1)
	port := unusedPort(t)
	script := new(strings.Builder)
	script.WriteString("trap 'kill $(jobs -p) 2>/dev/null' EXIT\n")
	var commands, want []string
	for _, block := range blocks {
		text := string(block[2])
		switch {
		case string(block[1]) == "text":
			if len(want) == 0 || want[len(want)-1] != "" {
				t.Fatalf("output without commands:\n%s", text)
			}
			want[len(want)-1] = text
		case strings.HasPrefix(text, "go build"):
			// done already
		default:
			commands, want = append(commands, text), append(want, "")
			script.WriteString(strings.ReplaceAll(text, documentPort, port))
			if strings.HasSuffix(text, "&\n") { // a server: the next commands are for a listening one
				fmt.Fprintf(script, "until (exec 3<>/dev/tcp/127.0.0.1/%s) 2>/dev/null; do kill -0 $! || exit; sleep 0.02; done\n", port)
			}
			fmt.Fprintf(script, "printf '\\0'\n")
		}
	}
	output := strings.Split(runScript(t, programs, script.String()), "\x00")
	if len(output) != len(commands)+1 {
		t.Fatalf("%d of %d blocks were run, the last one printed\n%s", len(output)-1, len(commands), output[len(output)-1])
	}
	for i, command := range commands {
		got := strings.ReplaceAll(output[i], port, documentPort)
		if !pattern(want[i]).MatchString(got) {
			t.Errorf("the commands\n%sprinted\n%s\nthe page says\n%s", command, got, want[i])
		}
	}
}

// pattern matches what a block of output stands for: a line of … is any number of lines, an … in a line any text.
func pattern(block string) *regexp.Regexp {
	expression := new(strings.Builder)
	expression.WriteString(`\A`)
	for line := range strings.Lines(block) {
		if line == "…\n" {
			expression.WriteString(`(?:.*\n)*`)
			continue
		}
		expression.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".+"))
	}
	expression.WriteString(`\z`)
	return regexp.MustCompile(expression.String())
}

// runScript runs it as one would in the folder of the repository, and returns all that it prints.
func runScript(t *testing.T, programs *Programs, script string) string {
	t.Helper()
	dir := t.TempDir()
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	tools := filepath.Join(dir, "tools") // python3 is to be the one with PyCryptodome
	if err := os.Mkdir(tools, 0o700); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		filepath.Join(dir, "bin"):       filepath.Dir(programs.sealift),
		filepath.Join(dir, "test"):      filepath.Join(top, "test"),
		filepath.Join(tools, "python3"): programs.python,
	} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*sendTimeout)
	defer cancel()
	bash := exec.CommandContext(ctx, "bash", "-c", script)
	bash.WaitDelay = 5 * time.Second
	bash.Dir = dir
	bash.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"), "PYTHONDONTWRITEBYTECODE=1",
		"SEALIFT_KNOWN_SERVERS="+filepath.Join(dir, "known_servers"))
	var output bytes.Buffer
	bash.Stdout, bash.Stderr = &output, &output
	if err := bash.Run(); err != nil {
		t.Errorf("the commands: %v", err)
	}
	return output.String()
}

// unusedPort is one outside of the ranges from which systems give ports to connections, so that it stays unused between
// the servers of the page.
func unusedPort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := 20_000 + rand.IntN(10_000)
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			listener.Close()
			return strconv.Itoa(port)
		}
	}
	t.Fatal("no port is free")
	return ""
}
