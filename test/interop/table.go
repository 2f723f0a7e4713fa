package interop

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// A Table holds the results of trials, one row each.
type Table struct {
	Title, Note string
	Corner      string   // heads the names of the rows
	Columns     []string // heads the results
	Rows        []Row
	// Survey says that a failure is a fact about others, not a fault.
	Survey bool
}

// A Row is one line of a Table.
type Row struct {
	Name    string
	Results []error // one per column, nil where it went well
}

// Failures lists what went wrong, one line each; none in a Survey.
func (t Table) Failures() []string {
	var failures []string
	for _, row := range t.Rows {
		for i, result := range row.Results {
			if result != nil && !t.Survey {
				failures = append(failures, fmt.Sprintf("%s: %s, %s: %s", t.Title, row.Name, t.Columns[i],
					strings.Join(strings.Fields(result.Error()), " ")))
			}
		}
	}
	return failures
}

// transfers is how many there are that ought to go well.
func (t Table) transfers() (n int) {
	if t.Survey {
		return 0
	}
	for _, row := range t.Rows {
		n += len(row.Results)
	}
	return n
}

// WriteMarkdown writes the table under a heading of the second level.
func (t Table) WriteMarkdown(w io.Writer) error {
	text := new(strings.Builder)
	fmt.Fprintf(text, "## %s\n\n%s\n\n", t.Title, t.Note)
	fmt.Fprintf(text, "| %s | %s |\n", t.Corner, strings.Join(t.Columns, " | "))
	fmt.Fprintf(text, "|:---%s|\n", strings.Repeat("|:---:", len(t.Columns)))
	for _, row := range t.Rows {
		fmt.Fprintf(text, "| %s |", row.Name)
		for _, result := range row.Results {
			switch {
			case result == nil:
				text.WriteString(" ✓ |")
			case t.Survey:
				text.WriteString(" – |")
			default:
				text.WriteString(" **✗** |")
			}
		}
		text.WriteString("\n")
	}
	text.WriteString("\n")
	_, err := io.WriteString(w, text.String())
	return err
}

// WriteReport writes the tables as one Markdown page, and after them what failed.
func WriteReport(w io.Writer, tables []Table) error {
	text := new(bytes.Buffer)
	text.WriteString("# Interoperability\n\n" +
		"Written by `go run ./test/interop/matrix -o docs/INTEROP.md`. ✓: the server has stored the same bytes and the\n" +
		"client has ended with status 0. The clients and servers in C++ (Crypto++) and Python (PyCryptodome) are those of\n" +
		"`test/interop/peers`, each a stand-in for a family of implementations; the columns are file sizes in bytes.\n" +
		"Below the tables: [how to run it](#how-to-run-it), and [what each peer stands for](#what-each-peer-stands-for).\n\n")
	var failures []string
	transfers := 0
	for _, table := range tables {
		transfers += table.transfers()
		failures = append(failures, table.Failures()...)
	}
	fmt.Fprintf(text, "**%s of %s transfers went well**, those not counted that try what nobody has to take: the last table.\n\n",
		withCommas(transfers-len(failures)), withCommas(transfers))
	for _, table := range tables {
		if err := table.WriteMarkdown(text); err != nil {
			return err
		}
	}
	if len(failures) > 0 {
		text.WriteString("## Failures\n\n")
		for _, failure := range failures {
			fmt.Fprintf(text, "- %s\n", failure)
		}
		text.WriteString("\n")
	}
	writeGlossary(text)
	_, err := w.Write(text.Bytes())
	return err
}

func withCommas(n int) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
