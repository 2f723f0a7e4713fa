// Package manpage writes the manual page of a program whose command line is cobra's: one
// page, with all commands in it.
//
// cobra/doc reads help texts as Markdown, which makes one paragraph of a table, and it has
// no place for files, environment and exit status.
package manpage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sealift/internal/version"
)

// Section is a part of the page that follows the commands.
type Section struct {
	Title string
	Text  string // as in a command's help
	Items []Item
}

// Item is a term and what it means.
type Item struct{ Term, Text string }

// Command returns a hidden command, "man", that writes the page of its program. Its date
// is $SOURCE_DATE_EPOCH, or else today.
func Command(sections ...Section) *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:    "man --to DIR",
		Short:  "Write the manual page to a directory, as NAME.1",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return errors.New("--to is not set: want the directory for the page")
			}
			date, err := date()
			if err != nil {
				return err
			}
			root := cmd.Root()
			var page bytes.Buffer
			Write(&page, root, date, sections...)
			return os.WriteFile(filepath.Join(to, root.Name()+".1"), page.Bytes(), 0o644)
		},
	}
	c.Flags().StringVar(&to, "to", "", "the directory, which must exist")
	return c
}

func date() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970", epoch)
	}
	return time.Unix(seconds, 0), nil
}

// Write writes the page of the program root in roff.
func Write(w io.Writer, root *cobra.Command, date time.Time, sections ...Section) {
	p := &page{w: w, listed: make(map[*pflag.Flag]bool)}
	name := root.Name()
	p.request("TH", strings.ToUpper(name), "1", date.UTC().Format(time.DateOnly), "sealift "+version.Number(), "Sealift")
	p.request("SH", "NAME")
	p.line(escape(name + " - " + lowerFirst(root.Short)))
	p.request("SH", "SYNOPSIS")
	all := commands(root)
	for _, c := range append([]*cobra.Command{root}, all...) {
		p.synopsis(c)
	}
	p.request("SH", "DESCRIPTION")
	p.text(root.Long)
	p.request("SH", "OPTIONS")
	p.options(root)
	p.request("SH", "COMMANDS")
	for _, c := range all {
		p.command(c)
	}
	for _, s := range sections {
		p.section(s)
	}
}

// commands are those below root that do something and are not hidden, a command before
// those below it.
func commands(root *cobra.Command) (all []*cobra.Command) {
	for _, c := range root.Commands() {
		switch {
		case !c.IsAvailableCommand() || c.Name() == "help":
		case c.Name() == "completion":
			all = append(all, c) // the shells are its arguments
		default:
			all = append(append(all, c), commands(c)...)
		}
	}
	return all
}

// page is a page that is being written.
type page struct {
	w      io.Writer
	listed map[*pflag.Flag]bool
}

func (p *page) line(s string) { fmt.Fprintln(p.w, s) }

// request writes a request of roff with its arguments.
func (p *page) request(name string, args ...string) {
	line := "." + name
	for _, a := range args {
		line += ` "` + strings.ReplaceAll(escape(a), `"`, `\(dq`) + `"`
	}
	p.line(line)
}

func (p *page) synopsis(c *cobra.Command) {
	if c.HasAvailableSubCommands() && c.HasParent() && c.Name() != "completion" {
		return // its commands have lines of their own
	}
	line := `\fB` + escape(c.CommandPath()) + `\fR`
	if _, args, _ := strings.Cut(c.Use, " "); args != "" {
		if !strings.Contains(args, "[flags]") {
			args = "[flags] " + args
		}
		line += " " + escape(args)
	} else if c.Name() == "completion" {
		line += " bash|zsh|fish|powershell"
	} else if c.HasAvailableFlags() {
		line += " [flags]"
	}
	p.line(line)
	p.line(".br")
}

func (p *page) command(c *cobra.Command) {
	p.request("SS", c.CommandPath())
	if c.Long == "" {
		p.text(c.Short + ".")
	} else {
		p.text(c.Long)
	}
	if c.Example != "" {
		p.text("  " + strings.TrimSpace(c.Example))
	}
	p.options(c)
}

// options lists the flags of c that the page does not have yet.
func (p *page) options(c *cobra.Command) {
	again := false
	c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		switch {
		case f.Hidden || f.Name == "help":
		case p.listed[f]:
			again = true
		default:
			p.listed[f] = true
			p.option(f)
		}
	})
	if again {
		p.text("\nIts options are those of the program, above.")
	}
}

func (p *page) option(f *pflag.Flag) {
	value, usage := pflag.UnquoteUsage(f)
	term := `\fB` + escape("--"+f.Name) + `\fR`
	if f.Shorthand != "" {
		term = `\fB` + escape("-"+f.Shorthand) + `\fR, ` + term
	}
	if value != "" {
		term += ` \fI` + escape(strings.TrimSuffix(strings.ToUpper(value), "ARRAY")) + `\fR`
	}
	nothing := []string{"", "0", "0s", "false", "[]"}
	if !slices.Contains(nothing, f.DefValue) {
		usage += " (default " + f.DefValue + ")"
	}
	p.line(".TP")
	p.line(term)
	p.line(escape(usage))
}

func (p *page) section(s Section) {
	p.request("SH", s.Title)
	p.text(s.Text)
	for _, i := range s.Items {
		p.line(".TP")
		p.line(`\fB` + escape(i.Term) + `\fR`)
		p.text(i.Text)
	}
}

// text writes paragraphs. Lines that begin with a space stay as they are.
func (p *page) text(s string) {
	verbatim := false
	for line := range strings.Lines(strings.TrimRight(s, "\n")) {
		line = strings.TrimRight(line, "\n")
		if indented := strings.HasPrefix(line, " "); indented != verbatim && line != "" {
			verbatim = indented
			if indented {
				p.line(".PP\n.nf")
			} else {
				p.line(".fi")
			}
		}
		switch {
		case line == "" && verbatim:
			p.line("")
		case line == "":
			p.line(".PP")
		default:
			p.line(escape(line))
		}
	}
	if verbatim {
		p.line(".fi")
	}
}

// dashes are those that begin an option or stand alone: they stay dashes, where others may
// become hyphens.
var dashes = regexp.MustCompile(`(^|[\s\["'(=|,])(-[-\w]*)`)

// escape has roff show s as it is. s is one line, or the beginning of one.
func escape(s string) string {
	s = strings.ReplaceAll(s, `\`, `\e`)
	s = dashes.ReplaceAllStringFunc(s, func(m string) string { return strings.ReplaceAll(m, "-", `\-`) })
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
