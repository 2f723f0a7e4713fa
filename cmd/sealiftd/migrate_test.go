package main

import (
	"strings"
	"testing"

	"sealift/server"
)

func TestTarget(t *testing.T) {
	const db, bucket = "postgres://user:secret@host/db", "s3://bucket/prefix"
	for _, c := range []struct {
		to   []string
		want server.Stores
		err  string
	}{
		{to: []string{bucket, db}, want: server.Stores{Registry: db, Files: bucket}},
		{to: []string{db}, want: server.Stores{Registry: db}},
		{to: nil},
		{to: []string{db, db}, err: "one URL for the records"},
		{to: []string{bucket, bucket}, err: "one for the files"},
		{to: []string{"mysql://user:secret@host"}, err: "want postgres://… or s3://…"},
		{to: []string{"/srv/sealift"}, err: "want postgres://… or s3://…"},
	} {
		at, err := target(c.to)
		if c.err == "" && (err != nil || at != c.want) {
			t.Errorf("%q: %+v, %v", c.to, at, err)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q: %v, want %q", c.to, err, c.err)
		}
	}
}
