package manpage

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

func program() *cobra.Command {
	nothing := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "prog", Short: "Does it", Run: nothing, Long: `prog does it, with --force if it must.

The status is
  0   it is done
  1   it is not:
      a\b
.profile is read.`}
	root.Flags().Bool("force", false, "do it")
	sub := &cobra.Command{Use: "again FILE…", Short: "Do it again", Run: nothing}
	sub.Flags().AddFlagSet(root.Flags())
	sub.Flags().StringArrayP("times", "t", []string{"2"}, "how often")
	hidden := &cobra.Command{Use: "secret", Short: "Not shown", Run: nothing, Hidden: true}
	root.AddCommand(sub, hidden, Command(Section{Title: "FILES", Items: []Item{{"~/.prog", "What it keeps."}}}))
	return root
}

const want = `.TH "PROG" "1" "2026-09-21" "sealift VERSION" "Sealift"
.SH "NAME"
prog \- does it
.SH "SYNOPSIS"
\fBprog\fR [flags]
.br
\fBprog again\fR [flags] FILE…
.br
.SH "DESCRIPTION"
prog does it, with \-\-force if it must.
.PP
The status is
.PP
.nf
  0   it is done
  1   it is not:
      a\eb
.fi
\&.profile is read.
.SH "OPTIONS"
.TP
\fB\-\-force\fR
do it
.SH "COMMANDS"
.SS "prog again"
Do it again.
.TP
\fB\-t\fR, \fB\-\-times\fR \fISTRING\fR
how often (default [2])
.PP
Its options are those of the program, above.
.SH "FILES"
.TP
\fB~/.prog\fR
What it keeps.
`

func TestPage(t *testing.T) {
	var got bytes.Buffer
	Write(&got, program(), time.Unix(1790000000, 0), Section{Title: "FILES", Items: []Item{{"~/.prog", "What it keeps."}}})
	lines := strings.SplitN(got.String(), "\n", 2)
	if !strings.HasPrefix(lines[0], `.TH "PROG" "1" "2026-09-21" "sealift `) {
		t.Errorf("head %q", lines[0])
	}
	if _, rest, _ := strings.Cut(want, "\n"); lines[1] != rest {
		t.Errorf("got:\n%s", got.String())
	}
}

// The page is the same each time that it is written for one SOURCE_DATE_EPOCH.
func TestCommandWritesThePage(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1790000000")
	dir := t.TempDir()
	run := func(args ...string) error {
		c := program()
		c.SilenceErrors, c.SilenceUsage = true, true
		c.SetArgs(append([]string{"man"}, args...))
		return c.Execute()
	}
	if err := run("--to", dir); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "prog.1"))
	if err != nil || !bytes.Contains(page, []byte(`"2026-09-21"`)) || bytes.Contains(page, []byte("secret")) {
		t.Errorf("%v:\n%s", err, page)
	}
	if err := run(); err == nil || err.Error() != "--to is not set: want the directory for the page" {
		t.Errorf("without a directory: %v", err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "today")
	if err := run("--to", dir); err == nil {
		t.Error("a date that is none was taken")
	}
}
