package admin

import (
	"encoding/json"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// How many lines of the log are kept, and how many bytes of one.
const (
	keptLines    = 500
	keptRefusals = 100
	maxLine      = 8 << 10
)

// Tail keeps the last lines of a log, each as a JSON object with level, at, message and its fields; and, apart from those, the last warnings and
// errors about a connection: refusals and failures. Its methods may be called from any
// goroutine. A line costs about a microsecond.
type Tail struct {
	mu       sync.Mutex
	lines    ring
	refusals ring
}

// NewTail makes an empty tail.
func NewTail() *Tail {
	return &Tail{lines: ring{most: keptLines}, refusals: ring{most: keptRefusals}}
}

// ring is the last lines of many.
type ring struct {
	most int
	all  [][]byte // line n is at n%most
	next uint64   // how many there were
}

func (r *ring) add(line []byte) {
	if i := int(r.next % uint64(r.most)); i < len(r.all) {
		r.all[i] = append(r.all[i][:0], line...)
	} else {
		r.all = append(r.all, append([]byte(nil), line...))
	}
	r.next++
}

// since returns copies of the lines from the one numbered from on, at most the last
// so many, and the number of the next.
func (r *ring) since(from uint64, most int) (lines []json.RawMessage, next uint64) {
	first := r.next - min(r.next, uint64(len(r.all)), uint64(most))
	for n := max(from, first); n < r.next; n++ {
		lines = append(lines, append(json.RawMessage(nil), r.all[n%uint64(r.most)]...))
	}
	return lines, r.next
}

// Lines returns the lines from the one numbered from on, at most the last so many, and
// the number of the next.
func (t *Tail) Lines(from uint64, most int) ([]json.RawMessage, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lines.since(from, most)
}

// Refusals is Lines for refusals and failures alone.
func (t *Tail) Refusals(from uint64, most int) ([]json.RawMessage, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refusals.since(from, most)
}

// Wrap returns a log that also goes to the tail, from the level info on.
func (t *Tail) Wrap(log *zap.Logger) *zap.Logger {
	enc := zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		LevelKey: "level", TimeKey: "at", NameKey: "part", MessageKey: "message", StacktraceKey: zapcore.OmitKey,
		EncodeLevel: zapcore.LowercaseLevelEncoder, EncodeTime: zapcore.RFC3339NanoTimeEncoder,
		EncodeDuration: zapcore.SecondsDurationEncoder, SkipLineEnding: true,
	})
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewTee(core, &tailCore{tail: t, enc: enc})
	}))
}

// tailCore is a log that goes to a tail.
type tailCore struct {
	tail *Tail
	enc  zapcore.Encoder
}

// Enabled implements [zapcore.Core].
func (c *tailCore) Enabled(level zapcore.Level) bool { return level >= zap.InfoLevel }

// With implements [zapcore.Core].
func (c *tailCore) With(fields []zap.Field) zapcore.Core {
	enc := c.enc.Clone()
	for _, f := range fields {
		f.AddTo(enc)
	}
	return &tailCore{c.tail, enc}
}

// Check implements [zapcore.Core].
func (c *tailCore) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write implements [zapcore.Core].
func (c *tailCore) Write(e zapcore.Entry, fields []zap.Field) error {
	line, err := c.enc.EncodeEntry(e, fields)
	if err != nil {
		return err
	}
	defer func() { line.Free() }()
	if line.Len() > maxLine { // as of a panic
		line.Free()
		if line, err = c.enc.EncodeEntry(e, nil); err != nil {
			return err
		}
	}
	t := c.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines.add(line.Bytes())
	if e.Level >= zap.WarnLevel && aboutConnection(fields) {
		t.refusals.add(line.Bytes())
	}
	return nil
}

// Sync implements [zapcore.Core].
func (c *tailCore) Sync() error { return nil }

func aboutConnection(fields []zap.Field) bool {
	for i := range fields {
		if fields[i].Key == "remote" {
			return true
		}
	}
	return false
}
