package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sealift/internal/apiclient"
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

// waits says in a few words when the event is told.
func waits(r *server.EventRow) string {
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
	return l.records("list", "List the events that wait, in the order in which they happened", func(ctx context.Context, w io.Writer, from records) error {
		header := []string{"ID", "TARGET", "TIME", "KIND", "WHY", "CLIENT", "PATH", "NEXT", "ATTEMPTS", "ERROR"}
		return l.print(w, header, func(line func(any, ...string) error) error {
			return from.EventRows(ctx, func(row server.EventRow) error {
				return line(row, row.ID, row.Target, row.Happened.Local().Format(time.DateTime), row.Kind, orDash(row.Why),
					shown(row.Name), orDash(shown(row.Path)), waits(&row), strconv.Itoa(row.Attempts), orDash(shown(row.Error)))
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
	at     place
	target string
	all    bool
}

// command makes a command that does something to events by beside, or by over through the
// API.
func (c *choosingEvents) command(use, short, long, done string, beside func(ctx context.Context, at server.Stores, target, id string) (int, error),
	over func(*apiclient.Client, context.Context, apiclient.EventChoice) (int, error)) *cobra.Command {
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
			api, err := c.at.remote(cmd.Flags())
			if err != nil {
				return err
			}
			do := func(id string) (int, error) { return beside(cmd.Context(), c.at.Stores, c.target, id) }
			if api != nil {
				do = func(id string) (int, error) {
					return over(api, cmd.Context(), apiclient.EventChoice{ID: id, Target: c.target, All: id == "" && c.target == ""})
				}
			}
			sum := 0
			for _, id := range args {
				n, err := do(id)
				if err != nil {
					return hinted(err)
				}
				sum += n
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", count(sum, "event"), done)
			return err
		},
	}
	c.at.flags(cmd.Flags())
	cmd.Flags().StringVar(&c.target, "target", "", "only events for this `TARGET`, command or url")
	cmd.Flags().BoolVar(&c.all, "all", false, "all events")
	return cmd
}

func retryEvents() *cobra.Command {
	c := new(choosingEvents)
	return c.command("retry [ID...]", "Have events be told at once that were put off",
		`retry has the server tell events at once that were not accepted, and wait for
their next attempt. Their order stays.`, "made due", server.RetryEvents, (*apiclient.Client).RetryEvents)
}

func dropEvents() *cobra.Command {
	c := new(choosingEvents)
	return c.command("drop [ID...]", "Forget events: nobody is told of them",
		`drop forgets events that wait. What comes after them is told. One that is being
told at this moment may be accepted all the same.`, "dropped", server.DropEvents, (*apiclient.Client).DropEvents)
}
