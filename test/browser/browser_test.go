// Package browser tests the page of the admin address in a real browser: Debian's chromium.
package browser

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const (
	token    = "a-token-for-the-browser-tests"
	patience = 30 * time.Second
)

//go:embed testdata/axe.min.js
var axe string

var sealiftd, sealift, chromium string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	chromium, _ = exec.LookPath("chromium")
	dir, err := os.MkdirTemp("", "sealift-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for _, b := range []struct {
		at   *string
		name string
	}{{&sealiftd, "sealiftd"}, {&sealift, "sealift"}} {
		*b.at = filepath.Join(dir, b.name)
		cmd := exec.Command("go", "build", "-o", *b.at, "./cmd/"+b.name)
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// server is a sealiftd with an admin address, on ports that stay the same when it is started
// again.
type server struct {
	t                *testing.T
	dir, addr, admin string
	more             []string // flags
	cmd              *exec.Cmd
	complaint        bytes.Buffer
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func serve(t *testing.T, more ...string) *server {
	t.Helper()
	if chromium == "" {
		if os.Getenv("SEALIFT_INTEROP") == "1" {
			t.Fatal("there is no chromium: apt-get install chromium")
		}
		t.Skip("there is no chromium: apt-get install chromium")
	}
	s := &server{t: t, dir: t.TempDir(), addr: free(t), admin: free(t), more: more}
	if err := os.WriteFile(filepath.Join(s.dir, "token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *server) start() {
	s.t.Helper()
	ready := filepath.Join(s.dir, "addr")
	_ = os.Remove(ready)
	s.cmd = exec.Command(sealiftd, append([]string{"serve", "--dir", s.dir, "--listen", s.addr, "--addr-file", ready, "--tls", "off", "--fsync", "off", "--drain-timeout", "1s",
		"--admin", s.admin, "--admin-token-file", filepath.Join(s.dir, "token")}, s.more...)...)
	s.cmd.Stderr = &s.complaint
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("the server did not start: %s", s.complaint.String())
		}
	}
}

func (s *server) stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// client is a folder with an identity, and what is sent from there.
type client struct {
	s         *server
	dir, name string
}

func (s *server) client(name string) *client { return &client{s, s.t.TempDir(), name} }

// command sends a file under a name, of the content that it is told on standard input.
func (c *client) command(as string) *exec.Cmd {
	cmd := exec.Command(sealift, "send", "--server", c.s.addr, "--name", c.name, "--retry-for", "1s", "--as", as, "content")
	cmd.Dir = c.dir
	return cmd
}

func (c *client) send(as string, size int) {
	c.s.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, "content"), make([]byte, size), 0o600); err != nil {
		c.s.t.Fatal(err)
	}
	if out, err := c.command(as).CombinedOutput(); err != nil {
		c.s.t.Fatalf("%v\n%s", err, out)
	}
}

// page is the page in a browser.
type page struct {
	t   *testing.T
	ctx context.Context

	mu        sync.Mutex
	complaint []string // of the browser's console
}

// open opens the page, gives the token, and waits for the server to be shown.
func (s *server) open(width int64, dark bool) *page {
	s.t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true))
	alloc, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	s.t.Cleanup(cancel)
	p := &page{t: s.t}
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithListener(p.hear))
	s.t.Cleanup(cancel)
	p.ctx = ctx
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as the context of its first use
		s.t.Fatal(err)
	}
	p.do(chromedp.EmulateViewport(width, 900), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, log.Enable, cdp.Empty{})
		return err
	}), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}), chromedp.Navigate("http://"+s.admin+"/"))
	return p
}

// hear keeps what the browser complains of.
func (p *page) hear(ev any) {
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		text, _ := json.Marshal(ev.ExceptionDetails)
		p.complain(string(text))
	case *runtime.EventConsoleAPICalled:
		text, _ := json.Marshal(ev.Args)
		p.complain(string(text))
	case *log.EventEntryAdded:
		p.complain(ev.Entry.Text + " " + ev.Entry.URL)
	}
}

// enter opens the page and gives the token by the keyboard: the field has the focus.
func (s *server) enter(width int64, dark bool) *page {
	s.t.Helper()
	p := s.open(width, dark)
	p.becomes("the form has the focus", `document.activeElement?.id === "token"`)
	p.allow("401") // the browser tells of the first request, without a token
	p.do(chromedp.KeyEvent(token + "\r"))
	p.becomes("the server is shown", `document.getElementById("live")?.hidden === false`)
	return p
}

func (p *page) complain(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.complaint = append(p.complaint, text)
}

// allow forgets complaints with that text.
func (p *page) allow(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.complaint[:0]
	for _, c := range p.complaint {
		if !strings.Contains(c, text) {
			kept = append(kept, c)
		}
	}
	p.complaint = kept
}

// quiet asserts that the browser had nothing to complain of.
func (p *page) quiet() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.complaint) > 0 {
		p.t.Errorf("the console says: %q", p.complaint)
	}
}

func (p *page) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// run runs a script in the page.
func (p *page) run(script string) {
	p.t.Helper()
	p.do(chromedp.Evaluate[chromedp.Void](script))
}

// get is what an action finds.
func get[T any](p *page, action chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	found, err := chromedp.Run(ctx, action)
	if err != nil {
		p.t.Fatal(err)
	}
	return found
}

// becomes waits until an expression is true in the page.
func (p *page) becomes(what, expression string) {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if get(p, chromedp.Evaluate[bool]("!!("+expression+")")) {
			return
		}
		if time.Now().After(end) {
			p.shoot("in-vain")
			p.t.Fatalf("in vain: %s\n%s", what, get(p, chromedp.Evaluate[string]("document.body.innerText")))
		}
	}
}

// has waits until a table has a row with that text.
func (p *page) has(table, text string) {
	p.t.Helper()
	p.becomes(table+" has "+text, has(table, text))
}

func has(table, text string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#%s tbody tr")].some((tr) => tr.innerText.includes(%s))`, table, quote(text))
}

func quote(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}

// press activates the button whose label begins so, in the way that the keyboard does.
func (p *page) press(label string) {
	p.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll("button")].find((b) => (b.getAttribute("aria-label") || b.innerText).startsWith(%s) && b.offsetParent)`, quote(label))
	p.becomes("there is a button "+label, find)
	p.run(find + ".focus()")
	p.do(chromedp.KeyEvent("\r"))
}

// confirm says yes where the page asks first. What has the focus then is no.
func (p *page) confirm() {
	p.t.Helper()
	p.becomes("it asks first", `document.getElementById("ask").open && document.activeElement.id === "ask-no"`)
	p.do(chromedp.KeyEvent("\t"))
	p.becomes("yes has the focus", `document.activeElement.id === "ask-yes"`)
	p.do(chromedp.KeyEvent("\r"))
}

// shoot keeps a picture of the page in the folder SEALIFT_SHOTS, if that is set.
func (p *page) shoot(name string) {
	p.t.Helper()
	dir := os.Getenv("SEALIFT_SHOTS")
	if dir == "" {
		return
	}
	png := get(p, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// accessible asserts that axe-core finds nothing.
func (p *page) accessible(what string) {
	p.t.Helper()
	type violation struct {
		ID    string
		Help  string
		Nodes []struct{ HTML, Why string }
	}
	p.run(axe + "; 0") // the page's policy has no word in what the debugger evaluates
	found := get(p, chromedp.Evaluate[[]violation](`axe.run().then((r) => r.violations.map((v) => ({ID: v.id, Help: v.help, Nodes: v.nodes.map((n) => ({HTML: n.html, Why: n.failureSummary}))})))`,
		chromedp.EvalAwaitPromise))
	for _, v := range found {
		p.t.Errorf("%s: %s: %s: %+v", what, v.ID, v.Help, v.Nodes)
	}
}

// becomesSo waits until something is so beside the page.
func (p *page) becomesSo(what string, so func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatal("in vain: ", what)
		}
	}
}
