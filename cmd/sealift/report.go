package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/dustin/go-humanize"

	"sealift/client"
	"sealift/internal/bars"
	"sealift/internal/infofile"
	"sealift/internal/printable"
)

// outcome is what --json writes for each file. The help of the root command
// documents the fields.
type outcome struct {
	File        string  `json:"file"`   // the path as given
	Stored      bool    `json:"stored"` // the server has it for good
	Name        string  `json:"name,omitempty"`
	Size        int64   `json:"size_bytes"`
	Offset      int64   `json:"offset_bytes"`  // so many bytes were on the server already; all of them: nothing was sent
	Cksum       uint32  `json:"cksum"`         // as cksum(1) prints it
	Seconds     float64 `json:"seconds"`       // from the first byte to the server's last word
	MBPerSecond float64 `json:"mb_per_second"` // 10^6 bytes of the file
	Packets     int     `json:"packets"`
	Attempts    int     `json:"attempts"` // how often the file was sent
	Server      string  `json:"server"`
	ClientID    string  `json:"client_id,omitempty"`
	Error       string  `json:"error,omitempty"`
}

func megabytesPerSecond(r client.Result) float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Size-r.Offset) / 1e6 / r.Elapsed.Seconds()
}

// several says how many files there are, and the verb.
func several(n int) string {
	if n == 1 {
		return "1 file is"
	}
	return humanize.Comma(int64(n)) + " files are"
}

// continuations are the files that went on where they were cut.
type continuations struct {
	mu    sync.Mutex
	files map[string]continuation
}

type continuation struct {
	at    int64 // the last one
	times int
}

func (cs *continuations) note(p client.Progress) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.files == nil {
		cs.files = make(map[string]continuation)
	}
	cs.files[p.File] = continuation{p.Offset, cs.files[p.File].times + 1}
}

// of says where the file was continued last, and how often it was.
func (cs *continuations) of(name string) (at int64, times int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.files[name].at, cs.files[name].times
}

// stored writes a line about a file that is stored. For people there is none about a file
// that was on the server already, unless it is the only one: their number is told at the end.
func (a *app) stored(o outcome, only bool) {
	if a.json {
		a.encode(o)
		return
	}
	again := ""
	if at, times := a.continued.of(o.Name); times > 0 {
		again = ", continued at " + humanize.IBytes(uint64(at))
		if o.Offset == 0 { // it had begun before
			o.Attempts -= times
		} else {
			o.Attempts -= times - 1
		}
	}
	if o.Attempts > 1 {
		again += fmt.Sprintf(", sent %d times", o.Attempts)
	}
	file := printable.Path(o.File)
	if o.Name != filepath.ToSlash(o.File) && !strings.HasSuffix(filepath.ToSlash(o.File), "/"+o.Name) {
		file += " as " + printable.Path(o.Name)
	}
	if o.Size > 0 && o.Offset == o.Size && o.Packets == 0 {
		if only {
			a.say("%s is on the server already: %d bytes, cksum %d\n", file, o.Size, o.Cksum)
		}
		return
	}
	a.say("stored %s: %d bytes, cksum %d, %.2f s, %.1f MB/s%s\n", file, o.Size, o.Cksum, o.Seconds, o.MBPerSecond, again)
}

// notStored writes a line about a file that failed: for programs about every
// one; for people not where there is only one, for that is what the last line
// says, and not where it was not tried.
func (a *app) notStored(o outcome, err error, only bool) {
	o.Error = err.Error()
	ended := errors.Is(err, context.Canceled)
	if ended {
		o.Error = "interrupted"
	}
	if a.json {
		a.encode(o)
	}
	if only {
		a.hint = a.advice(o.File, err)
		return
	}
	if !ended && !errors.Is(err, client.ErrNotTried) && !errors.Is(err, client.ErrSameName) {
		fmt.Fprintf(a.screen, "not stored: %s: %s%s\n", printable.Path(o.File), printable.Line(plain(o.File, err)), a.advice(o.File, err))
	}
}

// passedOver writes a line about what is in a folder and is no file to send.
func (a *app) passedOver(path, why string) {
	fmt.Fprintf(a.screen, "passed over %s: %s\n", printable.Path(path), why)
}

func (a *app) encode(o outcome) {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // of plain values
	}
	a.say("%s\n", b)
}

// say writes to standard output. Where that is the terminal with the bars, it
// goes above them.
func (a *app) say(format string, args ...any) {
	if a.terminal && a.screen.Drawing() {
		fmt.Fprintf(a.screen, format, args...)
		return
	}
	fmt.Fprintf(a.out, format, args...)
}

// summary is err in the last line.
func summary(err error) string {
	var e *client.FilesError
	if !errors.As(err, &e) {
		return err.Error()
	}
	s := strings.TrimPrefix(notStored(err), "; ")
	if e.Ended != nil {
		s += ": " + e.Ended.Error()
	}
	return s
}

// notStored says how many files are not stored, where there was more than one.
func notStored(err error) string {
	var e *client.FilesError
	if !errors.As(err, &e) {
		return ""
	}
	verb := "are"
	if e.Failed+e.NotTried == 1 {
		verb = "is"
	}
	return fmt.Sprintf("; %d of %d files %s not stored", e.Failed+e.NotTried, e.Files, verb)
}

// plain says why something failed to a reader who knows with which file.
func plain(path string, err error) string {
	var p *fs.PathError
	if errors.As(err, &p) && err == error(p) {
		return p.Err.Error()
	}
	text := err.Error()
	for _, prefix := range []string{printable.Path(path) + ": ", printable.Path(path) + " "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

// advice says what may help against err, the error of the file at path.
func (a *app) advice(path string, err error) string {
	info, statErr := os.Stat(path)
	var reply *client.ReplyError
	var key *client.KeyError
	switch {
	case errors.As(err, &key):
		return a.aboutKey(key)
	case errors.Is(err, client.ErrKeyNotKept) && a.knownServers == "":
		return ". --known-servers FILE names another place for it"
	case errors.Is(err, syscall.ECONNREFUSED):
		return ". Is the server running, and is the port right?"
	case errors.Is(err, client.ErrNameTaken):
		return a.whoElse(err)
	case errors.As(err, &reply) && reply.OutOfStep:
		return ". Is that a server of this protocol, and is the port right?"
	case errors.Is(err, client.ErrServer) && client.Temporary(err):
		return ". The server's log says why" + a.aboutRefusal(err)
	case !a.sending:
	case errors.Is(err, client.ErrName):
		return ". --as NAME sends a file under another name"
	case statErr != nil:
	case errors.Is(err, client.ErrTooLarge) && info.Size() > client.MaxFileSize && !a.resume:
		return ". To a server that continues files, such as sealiftd, it can be sent with --resume, or over TLS"
	case errors.Is(err, client.ErrSize):
		return fmt.Sprintf(". To send what can be read of it: sealift send --as NAME - <%s", printable.Path(path))
	case info.IsDir() && !errors.Is(err, fs.ErrPermission):
		return ". -r sends what is in a folder"
	case info.Mode()&fs.ModeNamedPipe != 0:
		return fmt.Sprintf(". To send what comes out of it: sealift send --as NAME - <%s", printable.Path(path))
	}
	return ""
}

// whoElse says who to be at a server where the name is taken.
func (a *app) whoElse(err error) string {
	me := cmp.Or(a.identity, infofile.MeName)
	if to, err := infofile.Follow(me); err == nil {
		me = to
	}
	var kept []string
	for _, path := range infofile.Replaced(me) {
		kept = append(kept, printable.Path(path))
	}
	switch {
	case len(kept) > 0 && a.sending:
		return ". Who it was before is kept: --identity " + strings.Join(kept, ", or ")
	case len(kept) > 0:
		return ". Who it was before is kept in " + strings.Join(kept, ", ")
	case errors.Is(err, client.ErrRejected):
		return "" // it says so itself
	}
	return ". Use another name, or the identity file of whoever has this one"
}

// meter turns the progress of files into bars: one for each that is under way,
// and, where there are several, one for all of them. Its methods are called
// by one goroutine at a time.
type meter struct {
	screen *bars.Screen
	files  int // to send
	done   int
	sum    client.Progress // of all files
	total  *bars.Bar       // nil where there is one file
	under  map[string]*underway
}

type underway struct {
	bar  *bars.Bar
	last client.Progress
}

func newMeter(screen *bars.Screen, files int, bytes int64) *meter {
	m := &meter{screen: screen, files: files, sum: client.Progress{Size: bytes}, under: make(map[string]*underway)}
	if files > 1 {
		m.total = screen.AddLast(m.label(), true)
		m.total.Set(0, bytes)
	}
	return m
}

func (m *meter) label() string { return fmt.Sprintf("%d of %d files", m.done, m.files) }

// again shows anew what stands below all files, after the screen was cleared.
func (m *meter) again() {
	if m != nil && m.total != nil {
		m.total = m.screen.AddLast(m.label(), true)
		m.total.Set(m.sum.Sent, m.sum.Size)
	}
}

// update shows how far a file is.
func (m *meter) update(p client.Progress) {
	u := m.under[p.File]
	if u == nil {
		u = &underway{bar: m.screen.Add(p.File, m.total == nil), last: client.Progress{Size: p.Size}}
		m.under[p.File] = u
		if p.Sent == p.Offset { // an earlier call has sent that
			u.bar.Skip(p.Offset)
			m.total.Skip(p.Offset)
		}
	}
	m.sum.Sent += p.Sent - u.last.Sent
	m.sum.Size += p.Size - u.last.Size
	u.last = p
	u.bar.Set(p.Sent, p.Size)
	m.total.Set(m.sum.Sent, m.sum.Size)
}

// stored takes the bar of a file off that is stored.
func (m *meter) stored(f client.File, r client.Result) {
	if r.Packets == 0 && r.Offset == r.Size && m.under[sentAs(f)] == nil { // it was asked about with others
		m.sum.Sent += r.Size
		m.total.Skip(r.Size)
	}
	m.end(f)
}

// end takes the bar of a file off: it is stored, or has failed.
func (m *meter) end(f client.File) {
	name := sentAs(f)
	if u := m.under[name]; u != nil {
		m.sum.Sent += u.last.Size - u.last.Sent
		u.bar.Remove()
		delete(m.under, name)
	}
	m.done++
	m.total.Label(m.label())
	m.total.Set(m.sum.Sent, m.sum.Size)
}

// sentAs is the name that a file is sent under.
func sentAs(f client.File) string {
	if f.Name == "" {
		return filepath.Base(f.Path)
	}
	return f.Name
}
