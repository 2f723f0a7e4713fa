//go:build unix

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/internal/testservices"
)

// shared starts servers that share a database and a bucket, which is empty, and returns them
// with what commands about them are told.
func shared(t *testing.T, n int) (d *depot, servers []*daemon, flags []string) {
	t.Helper()
	d = &depot{t: t, dir: t.TempDir(), postgres: testservices.NewPostgres(t, testservices.PostgresOptions{}), bucket: testservices.S3(t)}
	registry, files := d.stores("shared")
	flags = []string{"--registry", registry, "--files", files}
	for range n {
		s := launch(t, t.TempDir(), d.bucket.Env(), append([]string{"serve", "--listen", "127.0.0.1:0"}, flags...)...)
		s.ready()
		servers = append(servers, s)
	}
	return d, servers, flags
}

// Commands work beside servers that share their stores as beside one with a directory: what
// they say reaches all servers, and what is to go is gone when they end.
func TestCommandsOnSharedStores(t *testing.T) {
	t.Parallel()
	d, servers, flags := shared(t, 2)
	command := func(args ...string) result { return d.run(append(args, flags...)...) }
	p := login(t, servers[0], "Ada Lovelace")
	for i := range 3 {
		p.upload(fmt.Sprint("docs/", i), randomBytes(100_000, byte(i)))
	}
	waiting := p.File("waiting", randomBytes(1000, 9))
	p.sendPackets(cut(waiting, 0))
	p.expectReceived(waiting)
	q := login(t, servers[1], "Bob")
	q.upload("a", []byte("of Bob"))

	inbox := t.TempDir()
	line := fmt.Sprintf("files/%s/docs/0 -> %s\n1 file taken (100 kB)\n", p.ID, filepath.Join(inbox, p.ID.String(), "docs", "0"))
	if got := command("file", "take", "docs/0", "--to", inbox).succeeded(t).stdout; got != line {
		t.Errorf("%q", got)
	}
	checkFile(t, filepath.Join(inbox, p.ID.String(), "docs", "0"), strings.NewReader(string(randomBytes(100_000, 0))))
	p.confirm("docs/0")
	eventually(t, "a server removes the object of the file that was taken", func() bool { return len(d.objects("shared")) == 4 })
	if got := command("file", "delete", "docs/1").succeeded(t).stdout; got != fmt.Sprintf("files/%s/docs/1\n1 file deleted (100 kB)\n", p.ID) {
		t.Errorf("%q", got)
	}
	if n := len(d.objects("shared")); n != 3 {
		t.Errorf("%d objects after the file was deleted", n)
	}
	if got := command("verify").succeeded(t).stdout; !strings.HasPrefix(got, "2 of 2 files are as they were uploaded") {
		t.Errorf("%q", got)
	}
	if got := command("file", "delete", "**", "--unverified").succeeded(t).stdout; !strings.HasSuffix(got, "\n1 file deleted (1.0 kB)\n") {
		t.Errorf("%q", got)
	}

	command("client", "disable", "Bob").succeeded(t)
	q.expectEnd()
	q.shutOut(codec.CodeError)
	command("client", "enable", "Bob").succeeded(t)
	q.dial()
	q.rejoin()
	d.run("client", "quota", "Bob", "--files", "1", flags[0], flags[1]).succeeded(t)
	if got := command("client", "delete", "Bob", "--with-files").succeeded(t).stdout; got != "Bob is deleted, with 1 file\n" {
		t.Errorf("%q", got)
	}
	q.expectEnd()
	if got := command("file", "list", "--json").succeeded(t).stdout; strings.Count(got, "\n") != 2 {
		t.Errorf("%s", got)
	}

	for _, c := range []struct{ command, why, hint string }{
		{"backup --to copy", "backup copies a directory", "pg_dump"},
		{"take-strays", "not from a bucket", "sweep"},
	} {
		command(strings.Fields(c.command)...).failed(t, c.why).hinted(t, c.hint)
	}
	d.run("client", "list", "--registry", "memory").failed(t, "--registry memory").hinted(t, "--api")
	d.run("verify", "--files", flags[3], "--registry", strings.Replace(flags[1], "/test", "/none", 1)).failed(t, "none")
	if got := d.run("client", "list", "--registry", strings.Replace(flags[1], ":", "::", 1)); got.status != 1 || strings.Contains(got.stderr, "word") {
		t.Errorf("a URL that is none: %+v", got)
	}
}
