package server

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// What people are told of a store has no password, wherever in the URL it stands.
func TestStoresAreToldWithoutPasswords(t *testing.T) {
	for text, want := range map[string]string{
		"":       "",
		"sqlite": "sqlite",
		"postgres://anna:secret@db:5432/sealift?sslmode=require":       "postgres://anna@db:5432/sealift?sslmode=require",
		"postgres:///sealift?user=anna&password=secret&host=/run":      "postgres:///sealift?host=%2Frun",
		"postgres://anna:secret%zz@db/x":                               "postgres://…",
		"postgres://anna:se/cret@db/x":                                 "postgres://…",
		"postgres:://anna:secret@db/x":                                 "postgres://…",
		"postgres:/anna:secret@db/x":                                   "postgres://…",
		"postgres:anna:secret@db/x":                                    "postgres://…",
		"postgres://anna@db/x?sslpassword=secret&passfile=secret":      "postgres://anna@db/x",
		"host=db user=anna password=secret":                            "…",
		"host=db password='a:secret' user=anna":                        "…",
		"s3://key:secret@bucket/a?secret_key=secret&region=eu":         "s3://key@bucket/a?region=eu",
		"s3://bucket/a?endpoint=http%3A%2F%2Fu%3Asecret%40h%3A1%2F":    "s3://bucket/a?endpoint=http%3A%2F%2Fh%3A1%2F%E2%80%A6",
		"s3://bucket/a?endpoint=http://127.0.0.1:9000&region=us-east1": "s3://bucket/a?endpoint=http%3A%2F%2F127.0.0.1%3A9000&region=us-east1",
		"s3://bucket/a#secret":                                         "s3://bucket/a",
	} {
		if got := storeTold(text); got != want || strings.Contains(got, "secret") {
			t.Errorf("of %q is told %q", text, got)
		}
	}
	for _, o := range []Storage{
		{Registry: "postgres://anna:secret%zz@db/x"}, {Registry: "mysql://anna:secret@db/x"},
		{Registry: "host=db password=secret"}, {Files: "user=anna password=s:secret"},
		{Files: "s3://key:secret%zz@b"}, {Files: "gs://key:secret@bucket"},
	} {
		if err := o.complete(); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("of %+v: %v", o, err)
		}
	}
}

// A start that waits for a store says so, and for which, while it waits.
func TestStartSaysWhatItWaitsFor(t *testing.T) {
	defer func(d time.Duration) { silence = d }(silence)
	silence = 10 * time.Millisecond
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	l, err := net.Listen("tcp", "127.0.0.1:0") // connections come into its backlog, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for want, at := range map[string]Storage{
		"postgres://anna@" + l.Addr().String() + "/x": {Registry: "postgres://anna:secret@" + l.Addr().String() + "/x?connect_timeout=30"},
		"s3://bucket": {Files: "s3://bucket?endpoint=http://" + l.Addr().String()},
	} {
		ctx, said := context.WithCancel(t.Context())
		told := zap.Hooks(func(e zapcore.Entry) error {
			if e.Message == "the start waits for a store" {
				said()
			}
			return nil
		})
		o := options(t.TempDir())
		o.Storage = at
		var lines strings.Builder
		o.Log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"}), zapcore.Lock(zapcore.AddSync(&lines)), zap.WarnLevel), told)
		s, err := Open(ctx, o)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want it to end when the line is there", want, err)
		}
		if s != nil {
			_ = s.Close()
		}
		if !strings.Contains(lines.String(), want) || strings.Contains(lines.String(), "secret") {
			t.Errorf("of %s the log says %s", want, &lines)
		}
	}
}
