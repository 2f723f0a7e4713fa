package sealift_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A link is [text](target); what looks like one in code is none. An anchor is its heading in lower
// case, without the other characters, and with - for each space.
var (
	links    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeSpan = regexp.MustCompile("`[^`]*`")
	notSlug  = regexp.MustCompile(`[^\p{L}\p{N}\p{M} _-]`)
)

// Each relative link in a page leads to a file that is there, and each anchor to a
// heading of its page.
func TestLinksLeadSomewhere(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "dist" || path != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		for _, line := range prose(t, path) {
			for _, m := range links.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, ""), -1) {
				if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
					continue
				}
				seen++
				target, anchor, _ := strings.Cut(m[1], "#")
				page := path
				if target != "" {
					page = filepath.Join(filepath.Dir(path), filepath.FromSlash(target))
				}
				if _, err := os.Stat(page); err != nil {
					t.Errorf("%s links to %s: %v", path, m[1], err)
				} else if anchor != "" && !anchors(t, page)[anchor] {
					t.Errorf("%s links to %s, and there is no such heading", path, m[1])
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 30 {
		t.Errorf("%d links were found: the test does not see them", seen)
	}
}

// prose returns the lines of a page that are in no block of code.
func prose(t *testing.T, page string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	code := false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
		} else if !code {
			all = append(all, line)
		}
	}
	return all
}

// anchors returns the names of the headings of a page, as GitHub makes them.
func anchors(t *testing.T, page string) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	for _, line := range prose(t, page) {
		if hashes, title, ok := strings.Cut(line, " "); ok && hashes != "" && strings.Trim(hashes, "#") == "" {
			slug := notSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			all[strings.ReplaceAll(slug, " ", "-")] = true
		}
	}
	return all
}
