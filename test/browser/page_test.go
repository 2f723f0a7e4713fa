package browser

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// throttle is a way to a server that lets through what a test lets through.
type throttle struct {
	addr string
	room chan int // bytes that may pass
}

func (s *server) throttle() *throttle {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	w := &throttle{l.Addr().String(), make(chan int)}
	s.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", s.addr)
			if err != nil {
				in.Close()
				continue
			}
			go func() { defer in.Close(); defer out.Close(); _, _ = io.Copy(in, out) }()
			go func() {
				defer in.Close()
				defer out.Close()
				for n := range w.room {
					if _, err := io.CopyN(out, in, int64(n)); err != nil {
						return
					}
				}
				_, _ = io.Copy(out, in)
			}()
		}
	}()
	return w
}

// hostile is a name that would be markup.
const hostile = `<img src=x onerror=document.title='owned'>"'&`

// What happens is seen while it does, and a person can act on it.
func TestLive(t *testing.T) {
	s := serve(t)
	s.client("anna").send("reports/"+"first.bin", 300_000)
	p := s.enter(1280, false)
	p.has("recent", "first.bin")
	p.has("recent", "anna")

	// An upload, as far as it has come.
	w, c := s.throttle(), s.client("bert")
	const size = 8 << 20
	if err := os.WriteFile(filepath.Join(c.dir, "content"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := c.command("film.mp4")
	cmd.Args[3] = w.addr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.room <- 4 << 20
	p.has("transfers", "film.mp4")
	p.becomes("half of it has come", `document.querySelector("#transfers progress").value > 4000000 && document.querySelector("#transfers progress").max === 8388608`)
	p.shoot("upload-1280-light")

	// Its client is disabled: the upload is cut, and gone from the page.
	p.press("Disable: bert")
	p.confirm()
	p.becomes("the upload is cut", `!(`+has("transfers", "film.mp4")+`)`)
	close(w.room)
	if err := <-ended; err == nil {
		t.Error("the client that was disabled has sent its file")
	}
	p.has("refusals", "bert")
	// What is refused again and again for one reason is one row, whatever the files are called.
	for _, as := range []string{"one.txt", "two.txt", "three.txt"} {
		if out, err := c.command(as).CombinedOutput(); err == nil {
			t.Errorf("a disabled client has sent a file: %s", out)
		}
	}
	p.becomes("the refusals of bert are one row", `document.querySelectorAll("#refusals tbody tr").length <= 2 && `+has("refusals", " more"))
	p.run(`document.querySelector("#clients details").open = true`)
	p.has("clients", "disabled")
	p.press("Enable: bert")
	p.becomes("it is enabled", `!(`+has("clients", "disabled")+`)`)
	c.send("later.txt", 10)
	p.has("recent", "later.txt")

	// A file is deleted, and not without asking.
	p.press("Delete: later.txt")
	p.becomes("it asks first", `document.getElementById("ask").open`)
	p.do(chromedp.KeyEvent("\x1b"))
	p.becomes("it is not asked any more", `!document.getElementById("ask").open`)
	p.press("Delete: later.txt")
	p.confirm()
	stored := func() int {
		found, err := filepath.Glob(filepath.Join(s.dir, "files", "*", "later.txt"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	p.becomes("it is said", `document.getElementById("said").textContent === "Deleted"`)
	p.becomesSo("the file is gone", func() bool { return stored() == 0 })
	p.quiet()
}

// What is left of an upload that was cut, and what waits to be told, are seen, and a person can
// act on both.
func TestLeftOver(t *testing.T) {
	s := serve(t, "--event-url", "http://127.0.0.1:1/", "--event-retry", "1h")
	w, c := s.throttle(), s.client("anna")
	c.send("whole.txt", 10)
	const size = 8 << 20
	if err := os.WriteFile(filepath.Join(c.dir, "content"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := c.command("film.mp4")
	cmd.Args[3] = w.addr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := s.enter(400, false)
	w.room <- 4 << 20
	p.has("transfers", "film.mp4")
	p.becomes("half of it has come", `document.querySelector("#transfers progress").value > 4000000`)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	p.press("End: anna")
	p.confirm()
	p.becomes("the upload is over", `!(`+has("transfers", "film.mp4")+`)`)
	p.run(`document.querySelector("#partials details").open = true`)
	p.becomes("what came of it is listed", `(() => { if (`+has("partials", "of 8 MiB")+`) return true; load("partials", true); return false; })()`)
	p.shoot("left-over-400-light")
	p.accessible("with partial files, and events")
	p.press("Delete: film.mp4")
	p.confirm()
	p.becomes("it is gone", `(() => { if (!(`+has("partials", "film.mp4")+`)) return true; load("partials", true); return false; })()`)

	p.has("waiting", "url")
	p.press("Retry: url")
	p.becomes("it is said", `document.getElementById("said").textContent === "Told again"`)
	p.press("Forget: url")
	p.confirm()
	p.becomes("they are forgotten", `!!document.querySelector("#waiting tbody tr") && !document.querySelector("#waiting button")`)
	p.quiet()
}

// Hostile names do nothing, and look like what they are.
func TestHostileNames(t *testing.T) {
	s := serve(t)
	s.client(hostile).send("a "+`<script>document.title='owned'</script>`+".txt", 100)
	p := s.enter(400, true)
	p.has("recent", "<script>")
	p.has("recent", hostile)
	// The server takes no name that turns text around; the page does not rely on that.
	if shown := get(p, chromedp.Evaluate[string](`name("a\u202Egpj.exe\u0000").textContent`)); shown != `a\u{202e}gpj.exe\u{0}` {
		t.Errorf("%q", shown)
	}
	title, scripts := get(p, chromedp.Title()), get(p, chromedp.Evaluate[int](`document.querySelectorAll("td img, td script").length`))
	if title != "Sealift" || scripts > 0 {
		t.Errorf("%q, %d elements", title, scripts)
	}
	p.quiet()
	p.shoot("hostile-400-dark")
}

// The page says when the server is gone, and when it is back.
func TestServerGone(t *testing.T) {
	s := serve(t)
	s.client("anna").send("before.txt", 100)
	p := s.enter(1280, true)
	p.has("recent", "before.txt")
	p.quiet()
	s.stop()
	p.becomes("it says that the server is gone", `document.getElementById("notice").innerText.includes("has not answered since")`)
	p.shoot("gone-1280-dark")
	s.start()
	p.becomes("it is back", `document.getElementById("notice").innerText === "" && document.getElementById("stage").innerText.startsWith("ready")`)
	p.becomes("that is said", `document.getElementById("said").textContent.includes("back; it was started anew")`)
	p.becomes("what was before it is gone", `!(`+has("recent", "before.txt")+`)`)
	s.client("bert").send("after.txt", 100)
	p.has("recent", "after.txt")
	p.allow("ERR_CONNECTION_REFUSED") // the browser's own lines about it
	p.allow("ERR_INCOMPLETE_CHUNKED_ENCODING")
	p.quiet()
}

// The form refuses what is not the token, and keeps none in the address.
func TestToken(t *testing.T) {
	s := serve(t)
	p := s.open(400, false)
	p.becomes("the form has the focus", `document.activeElement?.id === "token"`)
	p.accessible("the form")
	p.shoot("form-400-light")
	p.do(chromedp.KeyEvent("not the token at all\r"))
	p.becomes("it is refused", `document.getElementById("entry-error").textContent.includes("not the token")`)
	p.do(chromedp.KeyEvent(token + "\r"))
	p.becomes("the server is shown", `document.getElementById("live")?.hidden === false`)
	if at := get(p, chromedp.Location()); at != "http://"+s.admin+"/" {
		t.Errorf("the page is at %s", at)
	}
	p.do(chromedp.Reload())
	p.becomes("the tab knows the token", `document.getElementById("live")?.hidden === false`)
	p.press("Forget the token")
	p.becomes("it is asked for again", `document.getElementById("entry")?.hidden === false`)
	p.allow("401")
	p.quiet()
}

// axe-core finds nothing, in light and dark, wide and narrow, and nothing is wider than a
// narrow window.
func TestAccessible(t *testing.T) {
	s := serve(t)
	for i := range 3 {
		s.client(fmt.Sprint("client ", i)).send(fmt.Sprintf("folder/a file with quite a long name, of the year %d, in several words.txt", 2020+i), 1000<<(3*i))
	}
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, dark := range []bool{false, true} {
		for _, width := range []int64{400, 1280} {
			what := fmt.Sprintf("%d px, dark %v", width, dark)
			p := s.enter(width, dark)
			p.has("recent", "2022")
			p.run(`for (const d of document.querySelectorAll("details")) d.open = true`)
			p.has("clients", "client 2")
			p.has("files", "2022")
			p.accessible(what)
			p.shoot(fmt.Sprintf("all-%d-%v", width, dark))
			if wide := get(p, chromedp.Evaluate[int64](`document.documentElement.scrollWidth`)); wide > width {
				t.Errorf("%s: the page is %d px wide", what, wide)
			}
			p.press("Delete: folder")
			p.accessible(what + ", asked")
			p.quiet()
		}
	}
}
