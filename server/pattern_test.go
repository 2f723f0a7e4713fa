package server

import "testing"

func TestPattern(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		is, not []string
	}{
		{"**", []string{"a", "a/b", "a/b/c", ".hidden", "a\nb"}, nil},
		{"*", []string{"a", ".hidden", "photo [1].jpg"}, []string{"a/b"}},
		{"*.csv", []string{"a.csv", ".csv"}, []string{"a/b.csv", "a.csv.gz", "acsv"}},
		{"**/*.csv", []string{"a.csv", "a/b.csv", "a/b/c.csv"}, []string{"a.txt", "a.csv/b"}},
		{"docs/**", []string{"docs/a", "docs/a/b"}, []string{"docs", "docs2/a", "a/docs/b"}},
		{"docs/*", []string{"docs/a"}, []string{"docs/a/b", "docs"}},
		{"a/**/z", []string{"a/z", "a/b/z", "a/b/c/z"}, []string{"az", "a/bz", "a/b/z/c"}},
		{"a?c", []string{"abc", "a\u00e9c", "a*c"}, []string{"ac", "a/c", "abbc"}},
		{"photo [1].jpg", []string{"photo [1].jpg"}, []string{"photo 1.jpg"}},
		{"{a,b}", []string{"{a,b}"}, []string{"a", "b"}},
		{"a.b+c", []string{"a.b+c"}, []string{"axb+c", "a.bbc"}},
		{"", nil, []string{"a"}},
	} {
		p := parsePattern(tt.pattern)
		for _, path := range tt.is {
			if !p.match(path) {
				t.Errorf("%q does not mean %q", tt.pattern, path)
			}
		}
		for _, path := range tt.not {
			if p.match(path) {
				t.Errorf("%q means %q", tt.pattern, path)
			}
		}
	}
}
