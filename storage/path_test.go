package storage_test

import (
	"testing"

	"sealift/storage"
)

// TestCleanPath: a client may send names with a path of another system; none
// leads out of its folder, and what is left nothing of is refused.
func TestCleanPath(t *testing.T) {
	for name, want := range map[string]string{
		`client.cpp\..\..\x64\debug\a.txt`: "x64/debug/a.txt",
		"../../x":                          "x",
		`..\..\x`:                          "x",
		`C:\..\x`:                          "x",
		"C:/../x":                          "x",
		"c:/x":                             "x",
		"C:/":                              "",
		"C:../x":                           "C:../x", // no slash behind the colon: a name
		"C:x":                              "C:x",
		"b:x":                              "b:x",
		"C:":                               "C:",
		"CC:/x":                            "CC:/x",
		"1:/x":                             "1:/x",
		"\u00e9:/x":                        "\u00e9:/x",
		"./C:/x":                           "x",
		"a/../C:/x":                        "x",
		`C:\D:\x`:                          "x",
		"a/C:/x":                           "a/C:/x",
		"r\u00e9sum\u00e9.pdf":             "r\u00e9sum\u00e9.pdf",
		"\u00e9/../\u00e8":                 "\u00e8",
		"a/../b":                           "b",
		"a/../../b":                        "b",
		"a/b/../../../c":                   "c",
		"a/b/..":                           "a",
		"a/b/../":                          "a",
		"x/":                               "x",
		"a/...":                            "a/...",
		"..a/b..":                          "..a/b..",
		"..":                               "",
		"../..":                            "",
		"a/..":                             "",
		"a/../":                            "",
		"a/b/../../..":                     "",
		".":                                "",
		"./..":                             "",
		"C:..":                             "C:..",
		"../\n":                            "",
		"a/\u0085":                         "",
		"a/\u202eb":                        "",
		"caf\xe9":                          "",
	} {
		got, err := storage.CleanPath(name)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q becomes %q (%v), want %q", name, got, err, want)
		}
		if again, err := storage.CleanPath(got); want != "" && (err != nil || again != got) {
			t.Errorf("%q is not a clean path: it becomes %q (%v)", got, again, err)
		}
	}
}
