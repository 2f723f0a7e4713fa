package flagfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"sealift/internal/flagfile"
)

func flags(words *string, n *int, yes *bool, d *time.Duration) *pflag.FlagSet {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	fs.StringVar(words, "words", "default", "")
	fs.IntVar(n, "number", 1, "")
	fs.BoolVar(yes, "yes", false, "")
	fs.DurationVar(d, "time", time.Second, "")
	fs.String("config", "", "")
	return fs
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestApply(t *testing.T) {
	var words string
	var n int
	var yes bool
	var d time.Duration
	fs := flags(&words, &n, &yes, &d)
	if err := fs.Parse([]string{"--number", "7"}); err != nil {
		t.Fatal(err)
	}
	path := file(t, "# what is set here\nwords: \"a: b # c\"\nnumber: 8\nyes: true\ntime: 1m30s # long\n")
	if _, err := flagfile.Apply(fs, path, "config"); err != nil {
		t.Fatal(err)
	}
	if words != "a: b # c" || n != 7 || !yes || d != 90*time.Second {
		t.Errorf("%q %d %v %v", words, n, yes, d)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n"} {
		if _, err := flagfile.Apply(fs, file(t, empty), "config"); err != nil {
			t.Errorf("%q: %v", empty, err)
		}
	}
}

// What is wrong with a file is said with its line.
func TestWrongFiles(t *testing.T) {
	for text, want := range map[string]string{
		"words: a\nnumbre: 3\n":            `:2: there is no setting "numbre"`,
		"config: other.yaml\n":             `:1: there is no setting "config"`,
		"\n\nnumber: many\n":               `:3: number "many": `,
		"number: 1\nwords: b\nnumber: 2\n": ":3: number is set in line 1 already",
		"words:\n":                         ":1: words: want one plain value",
		"words: [a, b]\n":                  ":1: words: want one plain value",
		"- words\n":                        ":1: want lines of NAME: VALUE",
		"words\n":                          ":1: want lines of NAME: VALUE",
		"words: \"a\n":                     ": yaml: ",
		"words: a\n---\nnumber: 2\n":       ":2: want one document",
	} {
		var words string
		var n int
		var yes bool
		var d time.Duration
		path := file(t, text)
		_, err := flagfile.Apply(flags(&words, &n, &yes, &d), path, "config")
		if err == nil || !strings.HasPrefix(err.Error(), path+want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	var s string
	if _, err := flagfile.Apply(flags(&s, new(int), new(bool), new(time.Duration)), file(t, strings.Repeat("#", 2<<20))); err == nil {
		t.Error("a file of 2 MiB is read")
	}
}
