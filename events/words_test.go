package events_test

import (
	"slices"
	"testing"

	"sealift/events"
)

func TestWords(t *testing.T) {
	for _, tt := range []struct {
		line string
		want []string // nil: an error
	}{
		{"/bin/x", []string{"/bin/x"}},
		{" a  b\tc ", []string{"a", "b", "c"}},
		{`a 'b c' "d e"`, []string{"a", "b c", "d e"}},
		{`a 'b"c' "d'e"`, []string{"a", `b"c`, "d'e"}},
		{`a b'c d'e`, []string{"a", "bc de"}},
		{`a '' ""`, []string{"a", "", ""}},
		{`a b\ c \' \\`, []string{"a", "b c", "'", `\`}},
		{`a "\"b\\\c"`, []string{"a", `"b\\c`}},
		{`a '\'`, []string{"a", `\`}},
		{`sh -c 'cat > "$HOME/x" && echo $?; *'`, []string{"sh", "-c", `cat > "$HOME/x" && echo $?; *`}},
		{"größe \u5c65", []string{"größe", "\u5c65"}},
		{"", nil},
		{"  ", nil},
		{"''", nil},
		{"a 'b", nil},
		{`a "b`, nil},
		{`a \`, nil},
	} {
		got, err := events.Words(tt.line)
		if (err == nil) != (tt.want != nil) || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v; want %q", tt.line, got, err, tt.want)
		}
	}
}
