// Package printable makes text that may hold anything safe for a terminal and a
// log.
package printable

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Path returns a path as people are shown it: as it is, or quoted where it has
// characters that would do something to a terminal.
func Path(path string) string {
	if path == "" || strings.ContainsFunc(path, hidden) {
		return strconv.Quote(path)
	}
	return path
}

// Line returns a line with the characters that would do something to a terminal
// as their escapes: the errors of the system have paths as they are.
func Line(line string) string {
	var b strings.Builder
	for i := 0; i < len(line); {
		r, size := utf8.DecodeRuneInString(line[i:])
		c := line[i : i+size]
		if i += size; hidden(r) {
			c = strings.Trim(strconv.Quote(c), `"`)
		}
		b.WriteString(c)
	}
	return b.String()
}

func hidden(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }
