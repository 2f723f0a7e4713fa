package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sealift/client/conform"
	"sealift/internal/fakeserver"
	"sealift/server"
)

func TestConform(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	started, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- server.Serve(ctx, server.Options{
			Dir: t.TempDir(), Log: zap.NewNop(),
			Network: server.Network{Listen: "127.0.0.1:0"}, Storage: server.Storage{Registry: "memory"},
		}, func(_ context.Context, s *server.Server) { started <- s.Addr().String() })
	}()
	var addr string
	select {
	case addr = <-started:
	case err := <-ended:
		t.Fatal(err)
	}
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	dir := t.TempDir()
	got := run(t, dir, "conform", addr).succeeded(t)
	for _, want := range []string{
		"register-taken        5.2      pass    a name that is taken gets 1601, and another may follow\n",
		fmt.Sprintf("\n%d passed, 0 failed, 0 not tried\n", len(conform.Rules())),
		"zero-based        1024         yes\n",
		"\nUse: sealift send --server " + addr + " --dialect spec --name NAME FILE\n",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("%q is missing in\n%s", want, got.stdout)
		}
	}
	got = run(t, dir, "conform", "--json", addr).succeeded(t)
	var r conform.Report
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil {
		t.Fatal(err)
	}
	continued := 0
	for _, rule := range conform.Rules() {
		if strings.HasPrefix(rule.Section, "15.") {
			continued++
		}
	}
	secured, key := fakeserver.Terminate(t, addr)
	got = run(t, dir, "conform", "--tls-fingerprint", key.String(), secured).succeeded(t)
	for _, want := range []string{
		fmt.Sprintf("\n%d passed, 0 failed, 0 not tried, %d not offered: over TLS it chose the protocol \"sealift/3\"\n", len(conform.Rules())-continued, continued),
		"\nUse: sealift send --server " + secured + " --tls --dialect spec --name NAME FILE\n",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("%q is missing in\n%s", want, got.stdout)
		}
	}
	if r.Server != addr || r.Use != "spec" || r.Codes != "1025" || len(r.Results) != len(conform.Rules()) || r.Results[0].Status != conform.Pass || len(r.Dialects) != 10 {
		t.Errorf("%+v", r)
	}
}

func TestConformFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			// No reply of the protocol, then the end.
			_, _ = nc.Write([]byte("220 hello\r\n"))
			nc.Close()
		}
	}()
	dir := t.TempDir()
	got := run(t, dir, "conform", ln.Addr().String()).failed(t, "rules")
	if !strings.Contains(got.stdout, "register              5.1      fail") || !strings.Contains(got.stdout, "takes none of the dialects") {
		t.Errorf("stdout %s", got.stdout)
	}
	ln.Close()
	<-done
	run(t, dir, "conform", ln.Addr().String()).ended(t, 75, "cannot connect to "+ln.Addr().String()+": connection refused. Is the server running, and is the port right?")
	run(t, dir, "conform").misused(t, "want one server address")
}
