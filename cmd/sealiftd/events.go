package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sealift/server"
)

// eventsCommand is what there is to do about events that wait.
func eventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "List, retry or drop events that wait to be told",
		Long: `These commands work beside a running server, which does what they say within a
second, and without one. A target is "command" for --on-event, and "url" for
--event-url.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(listEvents(), retryEvents(), dropEvents())
	return cmd
}

// eventRow is an event that waits, as JSON.
type eventRow struct {
	ID       string     `json:"id"`
	Target   string     `json:"target"`
	Kind     string     `json:"kind"`
	Why      string     `json:"why,omitempty"`
	Happened time.Time  `json:"happened"`
	Client   string     `json:"client"`
	Name     string     `json:"client_name"`
	FileName string     `json:"file_name,omitempty"`
	Path     string     `json:"path,omitempty"` // below the client's folder
	Version  string     `json:"version,omitempty"`
	Size     int64      `json:"size_bytes"`
	Cksum    uint32     `json:"cksum"`
	Attempts int        `json:"attempts"` // that failed
	Error    string     `json:"error,omitempty"`
	Due      *time.Time `json:"due,omitempty"` // when it is told next
	Behind   bool       `json:"behind"`        // an earlier event of the client comes first
}

func eventRowOf(e server.Event) eventRow {
	row := eventRow{
		ID: e.ID, Target: e.Target, Kind: string(e.Kind), Why: string(e.Why), Happened: e.Happened,
		Client: e.Client.String(), Name: e.ClientName, FileName: e.FileName, Path: e.Path, Version: e.Version,
		Size: e.Size, Cksum: e.Cksum, Attempts: e.Attempts, Error: e.Failure, Behind: e.Behind,
	}
	if !e.Due.IsZero() {
		row.Due = &e.Due
	}
	return row
}

// waits says in a few words when the event is told.
func (r *eventRow) waits() string {
	switch {
	case r.Behind:
		return "behind"
	case r.Due == nil:
		return "due"
	}
	return r.Due.Local().Format(time.DateTime)
}

func listEvents() *cobra.Command {
	l := new(listing)
	return l.command("list", "List the events that wait, in the order in which they happened", func(ctx context.Context, w io.Writer, dir *server.ReadOnly) error {
		header := []string{"ID", "TARGET", "TIME", "KIND", "WHY", "CLIENT", "PATH", "NEXT", "ATTEMPTS", "ERROR"}
		return l.print(w, header, func(line func(any, ...string) error) error {
			return dir.Events(ctx, func(e server.Event) error {
				row := eventRowOf(e)
				return line(row, row.ID, row.Target, row.Happened.Local().Format(time.DateTime), row.Kind, orDash(row.Why),
					shown(row.Name), orDash(shown(row.Path)), row.waits(), strconv.Itoa(row.Attempts), orDash(shown(row.Error)))
			})
		})
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// choosingEvents is what the commands share that do something to events.
type choosingEvents struct {
	dir, target string
	all         bool
}

func (c *choosingEvents) command(use, short, long, done string, do func(ctx context.Context, dir, target, id string) (int, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && c.target == "" && !c.all {
				return errors.New("which events? Want their ids, --target NAME, or --all")
			}
			if len(args) > 0 && c.all {
				return errors.New("ids and --all: want one of them")
			}
			if c.target != "" && c.target != "command" && c.target != "url" {
				return fmt.Errorf("--target %q: want command or url", c.target)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{""}
			}
			sum := 0
			for _, id := range args {
				n, err := do(cmd.Context(), c.dir, c.target, id)
				if err != nil {
					return err
				}
				sum += n
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", count(sum, "event"), done)
			return err
		},
	}
	cmd.Flags().StringVar(&c.dir, "dir", ".", "the server's directory")
	cmd.Flags().StringVar(&c.target, "target", "", "only events for this `TARGET`, command or url")
	cmd.Flags().BoolVar(&c.all, "all", false, "all events")
	return cmd
}

func retryEvents() *cobra.Command {
	c := new(choosingEvents)
	return c.command("retry [ID...]", "Have events be told at once that were put off",
		`retry has the server tell events at once that were not accepted, and wait for
their next attempt. Their order stays.`, "made due", server.RetryEvents)
}

func dropEvents() *cobra.Command {
	c := new(choosingEvents)
	return c.command("drop [ID...]", "Forget events: nobody is told of them",
		`drop forgets events that wait. What comes after them is told. One that is being
told at this moment may be accepted all the same.`, "dropped", server.DropEvents)
}
