package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"sealift/client"
	"sealift/client/conform"

	"github.com/spf13/cobra"
)

// conformCommand returns the command that tries the protocol's rules on a
// server.
func (a *app) conformCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "conform [flags] [tls://]HOST:PORT",
		Short: "Try the protocol's rules on a server",
		Long: `Try the rules of docs/PROTOCOL.md on a server, and print which ones it follows,
and which dialects it takes. Where a rule fails, what was sent and what came
back is shown in hex. The exit status is 1 if a rule fails.

It begins with what every client does, tries the dialects, and then goes on to
messages that are wrong. A server that one of those ends is named so, and the
rest is not tried. At the end stands the sealift send that works for the server.

It leaves clients named "conform…" and some small files with the server.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("want one server address, got %d", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.conform(cmd.Context(), args[0]) },
	}
	return c
}

func (a *app) conform(ctx context.Context, server string) error {
	report, err := conform.Run(ctx, conform.Options{
		Server: server, Codes: a.options.Codes, Timeout: a.timeout,
		TLS: a.options.TLS, Known: client.KnownServersFile(a.knownPath("")),
	})
	if err != nil {
		return err
	}
	if a.json {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(report); err != nil {
			return err
		}
	} else {
		fmt.Fprint(a.out, table(report))
	}
	if report.GoneSince != "" {
		return fmt.Errorf("%s is gone since rule %s", report.Server, report.GoneSince)
	}
	if n := report.Count(conform.Fail); n > 0 {
		return fmt.Errorf("%s breaks %d of %d rules", report.Server, n, report.Tried())
	}
	if n := report.Count(conform.NotTried); n > 0 {
		return fmt.Errorf("%d of %d rules could not be tried on %s", n, report.Tried(), report.Server)
	}
	return nil
}

// table writes a report for people.
func table(r *conform.Report) string {
	var b strings.Builder
	rows := columns(func(w io.Writer) {
		fmt.Fprintln(w, "rule\tsection\tresult\tthe server should do this (docs/PROTOCOL.md)")
		for _, res := range r.Results {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", res.Rule, res.Section, res.Status, res.Text)
		}
	})
	b.WriteString(rows[0])
	for i, res := range r.Results {
		b.WriteString(rows[1+i])
		writeProblem(&b, &res)
	}
	fmt.Fprintf(&b, "\n%d passed, %d failed, %d not tried", r.Count(conform.Pass), r.Count(conform.Fail), r.Count(conform.NotTried))
	if i := slices.IndexFunc(r.Results, func(res conform.Result) bool { return res.Status == conform.NotOffered }); i >= 0 {
		fmt.Fprintf(&b, ", %d not offered: %s", r.Count(conform.NotOffered), r.Results[i].Problem)
	}
	b.WriteString("\n\n")

	rows = columns(func(w io.Writer) {
		fmt.Fprintln(w, "dialect\tpacket size\ttaken")
		for _, d := range r.Dialects {
			size, taken := "default", "yes"
			if d.PacketSize > 0 {
				size = fmt.Sprint(d.PacketSize)
			}
			if !d.Taken {
				taken = "no: " + d.Problem
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", d.Dialect, size, taken)
		}
	})
	b.WriteString(strings.Join(rows, "") + "\n" + usage(r) + "\n")
	return b.String()
}

// columns returns the lines that write writes, cells with tabs between them, in
// columns.
func columns(write func(w io.Writer)) []string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	write(w)
	w.Flush() // to a Builder, which takes all
	return strings.SplitAfter(b.String(), "\n")
}

// writeProblem writes what went wrong with a rule, if something did.
func writeProblem(b *strings.Builder, r *conform.Result) {
	if r.Status == conform.Pass || r.Status == conform.NotOffered {
		return
	}
	fmt.Fprintf(b, "    %s\n", r.Problem)
	if r.Status != conform.Fail {
		return
	}
	for _, e := range r.Log {
		fmt.Fprintf(b, "    [%d] %s %s", e.Connection, e.Direction, e.What)
		if e.Hex != "" {
			fmt.Fprintf(b, ": %s", e.Hex)
		}
		b.WriteByte('\n')
	}
}

// usage says how to send files to the server.
func usage(r *conform.Report) string {
	var b strings.Builder
	if r.GoneSince != "" {
		fmt.Fprintf(&b, "The server is gone since rule %s: it cannot be reached, or does not answer any more.\n", r.GoneSince)
	}
	if r.Use == "" {
		return b.String() + "This server takes none of the dialects."
	}
	if r.Slowly {
		b.WriteString("This server takes files only slowly, with a pause after each packet: sealift pauses after a failure.\n")
	}
	fmt.Fprintf(&b, "Use: sealift send --server %s", r.Server)
	if r.TLS {
		b.WriteString(" --tls")
	}
	if r.Codes != client.Codes1025.String() {
		fmt.Fprintf(&b, " --codes %s", r.Codes)
	}
	fmt.Fprintf(&b, " --dialect %s", r.Use)
	if r.UsePacketSize > 0 {
		fmt.Fprintf(&b, " --packet-size %d", r.UsePacketSize)
	}
	b.WriteString(" --name NAME FILE")
	return b.String()
}
