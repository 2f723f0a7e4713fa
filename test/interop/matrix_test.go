package interop

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestMatrix tries everybody with everybody, with a few sizes; the command in matrix/ does it with all of them.
func TestMatrix(t *testing.T) {
	programs := peers(t)
	if programs == nil {
		return
	}
	tables, err := programs.Matrix(t.Context(), FewSizes, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		for _, row := range table.Rows {
			if len(row.Results) != len(table.Columns) {
				t.Errorf("%s: %s has %d results for %d columns", table.Title, row.Name, len(row.Results), len(table.Columns))
			}
		}
		for _, failure := range table.Failures() {
			t.Error(failure)
		}
	}
}

func TestReport(t *testing.T) {
	failure := errors.New("status 1\nafter 1607")
	tables := []Table{
		{Title: "A", Note: "What it is.", Corner: "client", Columns: []string{"0", "10,001"},
			Rows: []Row{{"C++ spec", []error{nil, failure}}}},
		{Title: "B", Note: "Facts.", Corner: "client", Columns: []string{"x"}, Survey: true,
			Rows: []Row{{"Python spec", []error{failure}}}},
	}
	report := new(bytes.Buffer)
	if err := WriteReport(report, tables); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(report.Bytes(), []byte("**1 of 2 transfers went well**")) {
		t.Errorf("no summary in\n%s", report)
	}
	_, got, _ := bytes.Cut(report.Bytes(), []byte("\n\n## "))
	got, _, _ = bytes.Cut(got, []byte("\n## How"))
	want := `A

What it is.

| client | 0 | 10,001 |
|:---|:---:|:---:|
| C++ spec | ✓ | **✗** |

## B

Facts.

| client | x |
|:---|:---:|
| Python spec | – |

## Failures

- A: C++ spec, 10,001: status 1 after 1607
`
	if string(got) != want {
		t.Errorf("report\n%s\nwant\n%s", got, want)
	}
}

func TestCodes(t *testing.T) {
	log := "sent 1025\nreceived 1600\n# a remark\ncksum 7\nsent 1028\nsent 1028\nsent 1028\nreceived 1603\n"
	if got, want := codes(log), "1025 1600 1028x3 1603"; got != want {
		t.Errorf("codes %q, want %q", got, want)
	}
}

// TestGlossary shows that docs/INTEROP.md explains each word of the tables, and no other.
func TestGlossary(t *testing.T) {
	used := map[string]bool{"--priv-key": true, "--big-endian": true} // of tests of their own
	for _, dialect := range Dialects {
		used[dialect.String()] = true
	}
	for _, client := range HabitualClients(Cpp) {
		used[strings.Join(client.Habits, " ")] = true
	}
	for _, client := range FieldClients(Cpp) {
		for _, habit := range client.Habits {
			used[habit] = true
		}
	}
	for _, style := range MeInfoStyles {
		used["--me-info "+style] = true
	}
	for _, server := range append(QuirkyServers(Cpp), FieldServers(Cpp)...) {
		for _, quirk := range server.Quirks {
			name, value, counted := strings.Cut(quirk, "=")
			switch {
			case name == "busy":
				name += "=MS"
			case counted && strings.Contains(value, ":"):
				name += "=CODE:N"
			case counted:
				name += "=N"
			}
			used[name] = true
		}
	}
	for _, terms := range [][]term{dialectTerms, habitTerms, quirkTerms} {
		for _, term := range terms {
			if !used[term.word] {
				t.Errorf("%s is explained, but not in the tables", term.word)
			}
			delete(used, term.word)
		}
	}
	for word := range used {
		t.Errorf("%s is not explained", word)
	}
}
