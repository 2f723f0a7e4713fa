package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"sealift/internal/apiclient"
	"sealift/server"
)

// shownRefusals is how many of the last refusals status has.
const shownRefusals = 10

// watchEvery is how often status --watch looks: the server makes a new picture once a second.
const watchEvery = time.Second

// status is what the command of that name prints.
type status struct {
	apiclient.Frame
	Refusals []json.RawMessage `json:"refusals"` // the latest last
}

// refusal is a line of the log.
type refusalLine struct {
	At      time.Time
	Message string
	Client  string
	Name    string
	Remote  string
	File    string
	Reason  string
	Error   string
}

func statusCommand() *cobra.Command {
	var at place
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what a server does: uploads, throughput, refusals",
		Long: `status asks a running server how it is, who is connected, what is on its way
with how much of it and how fast, how much room there is, and whom it refused
last. The server needs --admin and --admin-token-file. That of --dir, on this
machine, is found by itself; one elsewhere is named by --api.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := at.statusOf(cmd.Flags())
			if err != nil {
				return err
			}
			ctx, w := cmd.Context(), cmd.OutOrStdout()
			for {
				s, err := statusOf(ctx, api)
				if watch && ctx.Err() != nil {
					return nil
				}
				if err != nil {
					return hinted(err)
				}
				if err := s.print(w, asJSON, watch); err != nil || !watch {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(watchEvery):
				}
			}
		},
	}
	at.dirFlag(cmd.Flags())
	at.apiFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	cmd.Flags().BoolVar(&watch, "watch", false, "print it again each second, until Ctrl-C")
	return cmd
}

// statusOf returns the API that the flags ask for, or that of the server in the directory.
func (p *place) statusOf(f *pflag.FlagSet) (*apiclient.Client, error) {
	api, err := p.remote(f)
	if api != nil || err != nil {
		return api, err
	}
	found, err := server.FindAddress(p.Dir)
	if err != nil {
		return nil, err
	}
	o := apiclient.Options{URL: found.URL, TokenFile: found.TokenFile}
	if o.TokenFile == "" {
		return nil, fmt.Errorf("the server in %s has no --admin-token-file: nobody is shown names of clients and files without a token", p.Dir)
	}
	if found.Cert != "" {
		key, err := server.FingerprintOfFile(found.Cert)
		if err != nil {
			return nil, err
		}
		o.Fingerprint = key.String()
	}
	return apiclient.New(o)
}

func statusOf(ctx context.Context, api *apiclient.Client) (s *status, err error) {
	s = new(status)
	if s.Frame, err = api.Status(ctx); err != nil {
		return nil, err
	}
	s.Refusals, err = api.Refusals(ctx, shownRefusals)
	return s, err
}

func (s *status) print(w io.Writer, asJSON, watch bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	var out strings.Builder
	if watch && term.IsTerminal(int(os.Stdout.Fd())) {
		out.WriteString("\x1b[H\x1b[J")
	}
	var top table
	for _, row := range s.top() {
		top.add(row[0], row[1])
	}
	_ = top.print(&out) // to memory
	sections := []struct {
		title string
		rows  [][]string
	}{
		{some("Uploads", s.uploads(), s.Transfers), s.uploads()},
		{some("Connections", s.connections(), s.Connections), s.connections()},
		{"Last refusals and failures", s.refusals()},
	}
	for _, section := range sections {
		if len(section.rows) > 1 {
			fmt.Fprintf(&out, "\n%s\n", section.title)
			_ = (&table{section.rows}).print(&out)
		}
	}
	if watch && !term.IsTerminal(int(os.Stdout.Fd())) {
		out.WriteByte('\n')
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// some says how many of how many are shown below, a header aside.
func some(title string, rows [][]string, all int) string {
	if n := len(rows) - 1; n < all {
		return fmt.Sprintf("%s, %d of %d", title, n, all)
	}
	return title
}

func (s *status) top() [][2]string {
	state := "ready"
	if !s.Ready {
		var why []string
		for _, r := range s.Reasons {
			text := strings.ReplaceAll(r.Reason, "_", " ")
			if r.Detail != "" {
				text += ": " + shown(r.Detail)
			}
			why = append(why, text)
		}
		state = "not ready (" + strings.Join(why, "; ") + ")"
	}
	rows := [][2]string{
		{"State", state},
		{"Version", s.Version + ", since " + s.Started.Local().Format(time.DateTime)},
		{"Receiving", perSecond(s.Rate)},
		{"Uploads", strconv.Itoa(s.Transfers)},
		{"Connections", fmt.Sprintf("%d of %d", s.Connections, s.Limit)},
		{"Files", fmt.Sprintf("%d verified", s.Totals.Verified)},
		{"Refused", fmt.Sprintf("%d, and %d failed", s.Totals.Refused, s.Totals.Failed)},
		{"Memory", fmt.Sprintf("%s of %s", sizeOf(s.Memory.Budget-s.Memory.Free), sizeOf(s.Memory.Budget))},
	}
	if s.Disk.Free >= 0 || s.Disk.Reserve >= 0 { // else the files are in a bucket
		rows = append(rows, [2]string{"Disk", fmt.Sprintf("%s free, %s stay free", sizeOf(s.Disk.Free), sizeOf(s.Disk.Reserve))})
	}
	for _, e := range s.Waiting {
		text := count(e.Count, "event")
		if !e.Oldest.IsZero() {
			text += " since " + e.Oldest.Local().Format(time.DateTime)
		}
		if e.Problem != "" {
			text += ": " + shown(e.Problem)
		}
		rows = append(rows, [2]string{"For " + e.Target, text})
	}
	if s.Problem != "" {
		rows = append(rows, [2]string{"Problem", shown(s.Problem)})
	}
	return rows
}

func (s *status) uploads() [][]string {
	rows := [][]string{{"CLIENT", "FILE", "BYTES", "OF", "DONE", "RATE"}}
	for _, c := range s.List {
		for _, t := range c.Transfers {
			total, done := "-", "-"
			if t.Total >= 0 {
				total = strconv.FormatInt(t.Total, 10)
			}
			if t.Total > 0 {
				done = fmt.Sprintf("%d %%", t.Bytes*100/t.Total)
			}
			rows = append(rows, []string{orDash(shown(cmp.Or(c.Name, c.Client))), shown(t.File), strconv.FormatInt(t.Bytes, 10), total, done, perSecond(t.Rate)})
		}
	}
	return rows
}

func (s *status) connections() [][]string {
	rows := [][]string{{"CLIENT", "ID", "ADDRESS", "TLS", "SINCE"}}
	for _, c := range s.List {
		rows = append(rows, []string{orDash(shown(c.Name)), orDash(c.Client), c.Remote, yes(c.TLS), c.Opened.Local().Format(time.DateTime)})
	}
	return rows
}

func (s *status) refusals() [][]string {
	rows := [][]string{{"TIME", "WHAT", "CLIENT", "FILE", "WHY"}}
	for _, line := range s.Refusals {
		var l refusalLine
		if json.Unmarshal(line, &l) != nil {
			continue // a field of another kind: the log is for people
		}
		rows = append(rows, []string{l.At.Local().Format(time.DateTime), shown(l.Message), orDash(shown(cmp.Or(l.Name, l.Client, l.Remote))),
			orDash(shown(l.File)), orDash(shown(cmp.Or(l.Reason, l.Error)))})
	}
	return rows
}

func sizeOf(n int64) string {
	if n < 0 {
		return "unknown"
	}
	return humanize.IBytes(uint64(n))
}

func perSecond(n int64) string { return sizeOf(n) + "/s" }
