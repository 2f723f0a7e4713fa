package postgres

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"sealift/internal/testservices"
)

// A database that cannot be opened is an error in one line, with what can be done about it, and
// without the password.
func TestErrorsOfConnections(t *testing.T) {
	right, err := url.Parse(testservices.SharedPostgres(t))
	if err != nil {
		t.Fatal(err)
	}
	right.RawQuery = "" // and so sslmode=prefer, with which each address is tried twice
	stranger, absent, away := *right, *right, *right
	stranger.User = url.UserPassword("nobody", "sekrit")
	absent.Path = "/absent"
	away.Host, away.User = "127.0.0.1:1", url.UserPassword("anna", "sekrit")
	for _, c := range []struct {
		url          url.URL
		says, advice string
	}{
		{stranger, "password authentication failed", "PGPASSWORD"},
		{absent, `database "absent" does not exist`, "createdb"},
		{away, "tried for 1s: ", ""},
	} {
		r, err := Open(t.Context(), c.url.String(), Options{Patience: time.Second})
		if err == nil {
			_ = r.Close()
			t.Errorf("%s is opened", c.url.Redacted())
			continue
		}
		if s := err.Error(); strings.ContainsAny(s, "\n\t") || strings.Contains(s, "sekrit") || !strings.Contains(s, c.says) || strings.Count(s, c.url.Host+" (") != 1 {
			t.Errorf("the error is %q: want %s", s, c.says)
		}
		if got := Advice(err); !strings.Contains(got, c.advice) || (got == "") != (c.advice == "") {
			t.Errorf("the advice about %v is %q", err, got)
		}
	}
}
