package session_test

import (
	"strings"
	"testing"

	"sealift/codec"
	"sealift/session"
)

// TestDeepNames: a file that is sent may have 16 folders in its name and no
// more, however it spells them. What is stored deeper can still be judged.
func TestDeepNames(t *testing.T) {
	content := random(1, 1000)
	for _, tc := range []struct {
		name, path string // no path: refused
	}{
		{strings.Repeat("d/", 16) + "f", strings.Repeat("d/", 16) + "f"},
		{`C:\\` + strings.Repeat(`d\.\\`, 16) + "f", strings.Repeat("d/", 16) + "f"},
		{strings.Repeat("./", 100) + "f", "f"},
		{strings.Repeat("d/", 17) + "f", ""},
		{strings.Repeat(`d\`, 17) + "f", ""},
		{strings.Repeat("d/", 126) + "f", ""},
		{"/" + strings.Repeat("dd//", 17) + "f", ""},
	} {
		for _, d := range dialects {
			w := newWorld(t, session.Config{})
			p, c := w.known("alice"), w.dial()
			got := c.ask(join(p.packets(d, tc.name, content, 300), p.ok(tc.name))...)
			if tc.path == "" {
				if got != "1607, 1607" || len(w.rows()) != 0 {
					t.Errorf("%s %q: got %q, %d rows", d, tc.name, got, len(w.rows()))
				}
			} else if got != received(tc.name, content)+", 1604" {
				t.Errorf("%s %q: got %q", d, tc.name, got)
			} else {
				w.verified(p, tc.path, content)
			}
			w.hangUp()
		}
	}

	deep := strings.Repeat("d/", 100) + "f"
	for code, want := range map[codec.Code]string{codec.CodeCRCOK: "1604", codec.CodeCRCBad: "", codec.CodeAbort: "1604"} {
		w := newWorld(t, session.Config{})
		p, c := w.known("alice"), w.dial()
		w.unverified(p, deep, content)
		if got := c.ask(p.verdict(code, deep)); got != want {
			t.Errorf("%v for a deep file that is there: got %q", code, got)
		}
		if code == codec.CodeCRCOK {
			w.verified(p, deep, content)
		}
		w.hangUp()
	}
}
