package server

import (
	"regexp"
	"strings"
)

// pattern says which paths below a client's folder are meant.
type pattern struct{ is *regexp.Regexp }

// parsePattern reads a pattern: * is any part of a name, ? one character of it, and
// ** any number of folders, or all that is below one. Everything else stands for
// itself, so that a name such as "photo [1].jpg" can be given as it is.
func parsePattern(s string) pattern {
	var re strings.Builder
	re.WriteString(`(?s)\A`)
	for s != "" {
		switch {
		case strings.HasPrefix(s, "**/"):
			re.WriteString(`(?:[^/]+/)*`)
			s = s[3:]
		case strings.HasPrefix(s, "**"):
			re.WriteString(`.*`)
			s = s[2:]
		case s[0] == '*':
			re.WriteString(`[^/]*`)
			s = s[1:]
		case s[0] == '?':
			re.WriteString(`[^/]`)
			s = s[1:]
		default:
			n := strings.IndexAny(s, "*?")
			if n < 0 {
				n = len(s)
			}
			re.WriteString(regexp.QuoteMeta(s[:n]))
			s = s[n:]
		}
	}
	re.WriteString(`\z`)
	return pattern{regexp.MustCompile(re.String())}
}

func (p pattern) match(path string) bool { return p.is.MatchString(path) }
