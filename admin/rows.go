package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Lists that are sent whole, a JSON object a line, as the command prints them.
const (
	ClientRows = "clients"
	FileRows   = "files"
	EventRows  = "events"
)

const (
	maxRows = 3        // lists that may be sent at once
	rowsBuf = 32 << 10 // bytes that are sent together
)

// Ending is the last line of an answer that has an object a line. Without it, the answer
// was cut off.
type Ending struct {
	End   bool   `json:"end"` // always true
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// Deletion says which files to delete. It is what `sealiftd file delete` is told.
type Deletion struct {
	Pattern    string   `json:"pattern"`
	Names      []string `json:"names,omitempty"` // of clients; none, and no IDs: all
	IDs        []string `json:"ids,omitempty"`
	Unverified bool     `json:"unverified,omitempty"`
	DryRun     bool     `json:"dry_run,omitempty"`
}

// Deleted is a line about a deletion: either what became of a file, or how far it is.
type Deleted struct {
	Client string `json:"client,omitempty"`
	Path   string `json:"path,omitempty"` // below the client's folder
	Size   int64  `json:"bytes,omitempty"`
	Error  string `json:"error,omitempty"` // why the file stays
	// Done of Total bytes are removed. Set where there is no path.
	Done  int64 `json:"removed_bytes,omitempty"`
	Total int64 `json:"total_bytes,omitempty"`
}

// lineWriter sends lines of JSON, and waits for a reader that takes nothing for no longer
// than stallTime.
type lineWriter struct {
	out  *http.ResponseController
	to   http.ResponseWriter
	buf  *bufio.Writer
	json *json.Encoder
	sent bool // some of it
}

func newLineWriter(w http.ResponseWriter) *lineWriter {
	w.Header().Set("Content-Type", "application/x-ndjson")
	l := &lineWriter{out: http.NewResponseController(w), to: w}
	l.buf = bufio.NewWriterSize(l, rowsBuf)
	l.json = json.NewEncoder(l.buf)
	return l
}

// Write implements [io.Writer] for the buffer.
func (l *lineWriter) Write(p []byte) (int, error) {
	l.sent = true
	_ = l.out.SetWriteDeadline(time.Now().Add(stallTime))
	n, err := l.to.Write(p)
	if err == nil {
		err = l.out.Flush()
	}
	return n, err
}

func (l *lineWriter) line(v any) error { return l.json.Encode(v) }

// rows sends a list whole.
func (a *api) rows(list string) http.HandlerFunc {
	return a.lasting(func(r *http.Request, _ json.RawMessage, out *lineWriter) error {
		return a.live.Rows(r.Context(), list, out.line)
	})
}

// deleteMatching deletes files, and tells of each that is gone.
func (a *api) deleteMatching() http.HandlerFunc {
	return a.lasting(func(r *http.Request, body json.RawMessage, out *lineWriter) error {
		var d Deletion
		if err := parse(body, &d); err != nil {
			return err
		}
		// A reader that has gone ends the context, too.
		return a.live.DeleteMatching(r.Context(), d, func(of Deleted) {
			_ = out.line(of)
			if of.Path == "" {
				_ = out.buf.Flush()
			}
		})
	})
}

// lasting is a handler whose answer may take long: lines, and an Ending. What is wrong
// before the first line has a status of its own.
func (a *api) lasting(do func(r *http.Request, body json.RawMessage, out *lineWriter) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := readAction(r)
		if err != nil {
			a.refuse(w, err)
			return
		}
		if !place(a.lists) {
			answer(w, http.StatusServiceUnavailable, Ending{Error: fmt.Sprintf("%d lists are sent already", maxRows)})
			return
		}
		defer func() { <-a.lists }()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go func() {
			select {
			case <-a.quit:
				cancel()
			case <-ctx.Done():
			}
		}()
		out := newLineWriter(w)
		err = do(r.WithContext(ctx), body, out)
		end := Ending{End: true}
		if err != nil && !out.sent && out.buf.Buffered() == 0 {
			a.refuse(w, err)
			return
		}
		if err != nil {
			end.Error, end.Hint = err.Error(), a.hint(err)
		}
		_ = out.line(end)
		_ = out.buf.Flush()
	}
}
