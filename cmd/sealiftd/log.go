package main

import (
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"sealift/internal/logqueue"
	"sealift/server"
)

// newLog makes the log of a server, which goes to standard error. Whatever
// becomes of that, the server goes on: see [logqueue.Writer]. The level may be changed.
func newLog(level, format string) (*zap.Logger, zap.AtomicLevel, error) {
	lv, err := zap.ParseAtomicLevel(level)
	if err != nil {
		return nil, lv, fmt.Errorf("--log-level: %w", err)
	}
	var enc zapcore.Encoder
	switch {
	case format == "json" || format == "auto" && !term.IsTerminal(int(os.Stderr.Fd())):
		cfg := zap.NewProductionEncoderConfig()
		cfg.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		enc = zapcore.NewJSONEncoder(cfg)
	case format == "console" || format == "auto":
		cfg := zap.NewDevelopmentEncoderConfig()
		cfg.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		cfg.EncodeDuration = zapcore.SecondsDurationEncoder // as the names say
		enc = zapcore.NewConsoleEncoder(cfg)
	default:
		return nil, lv, fmt.Errorf("--log-format is %q: console, json or auto", format)
	}
	out := logqueue.New(os.Stderr, logqueue.DefaultBytes, func(lost int) []byte {
		line, err := enc.EncodeEntry(zapcore.Entry{Level: zapcore.WarnLevel, Time: time.Now(), Message: "lines of the log were lost"},
			[]zapcore.Field{zap.Int("count", lost)})
		if err != nil {
			return nil
		}
		defer line.Free()
		return append([]byte(nil), line.Bytes()...)
	})
	return zap.New(zapcore.NewCore(enc, out, lv), zap.ErrorOutput(out)), lv, nil
}

// complain writes why the program failed to standard error, if anybody takes it.
func complain(err error) {
	out := logqueue.New(os.Stderr, logqueue.DefaultBytes, func(int) []byte { return nil })
	fmt.Fprintf(out, "Fatal error: %v\n", err)
	if hint := server.Hint(err); hint != "" {
		fmt.Fprintln(out, "Hint:", hint)
	}
	_ = out.Sync()
}
