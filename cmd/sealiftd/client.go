package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sealift/internal/apiclient"
	"sealift/internal/bars"
	"sealift/server"
)

// clientCommand is what there is to do about one client, and the list of all.
func clientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client",
		Short: "Add, disable, delete, pin or bound clients, or list them",
		Long: `These commands work beside a running server, which does what they say within a
second, and without one. A client is named by its user name, byte by byte, or
where that is hard to type by its id: --id ID in the place of the name.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(listClients("list"), addCommand(), disableCommand(), enableCommand(), deleteClientCommand(), pinCommand(), unpinCommand(),
		quotaCommand(), keepForCommand(), expireClientCommand())
	return cmd
}

// exactly takes n arguments, and otherwise says what the command wants.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		err := fmt.Errorf("%s: want %s", count(len(args), "argument"), cmd.UseLine())
		switch {
		case len(args) == n:
			return nil
		case len(args) > n:
			return &server.Hinted{Err: err, Hint: "Quote a name with spaces, and a pattern: the shell splits the one and replaces the other."}
		}
		return err
	}
}

// steering is what the commands share that change one client.
type steering struct {
	stores
	id string
	at *place // where the server may also be; nil: in the stores alone
	// onlyRecords: the command has another use for a flag --files, and none for the files.
	onlyRecords bool
}

// command makes a command of run, which gets the client, and the arguments after its name.
func (s *steering) command(use, short, long string, more int, run func(ctx context.Context, w io.Writer, who server.Who, args []string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case s.id == "":
				return exactly(more+1)(cmd, args)
			case len(args) > more:
				return fmt.Errorf("%q and --id %s: want a name or an id, not both", args[0], s.id)
			}
			return exactly(more)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			who := server.Who{ID: s.id}
			if s.id == "" {
				who.Name, args = args[0], args[1:]
			}
			return run(cmd.Context(), cmd.OutOrStdout(), who, args)
		},
	}
	switch {
	case s.at != nil:
		s.at.flags(cmd.Flags())
	case s.onlyRecords:
		s.recordFlags(cmd.Flags())
	default:
		s.stores.flags(cmd.Flags())
	}
	cmd.Flags().StringVar(&s.id, "id", "", "the client's `ID`, 32 hex digits, in the place of its name")
	return cmd
}

func addCommand() *cobra.Command {
	var at stores
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Let a client register where registration is closed",
		Long: `add lets a client with that user name register at a server with --registration
closed. The name stays added, so the client may register again when the server
has forgotten it. "client delete" takes it back.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := server.Add(cmd.Context(), at.Stores, args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is added and may register\n", shown(args[0]))
			return err
		},
	}
	at.flags(cmd.Flags())
	return cmd
}

func disableCommand() *cobra.Command {
	return servedCommand("disable NAME", "Refuse everything to a client",
		`disable has the server answer everything that the client sends with 1607, and
ends its open connections within a second. Its name, its id and its files stay.`, true, server.Disable)
}

func enableCommand() *cobra.Command {
	return servedCommand("enable NAME", "Serve a disabled client again",
		`enable has the server serve a client again that was disabled.`, false, server.Enable)
}

// servedCommand has a client be served or not: by beside, or through the API.
func servedCommand(use, short, long string, disabled bool, beside func(context.Context, server.Stores, server.Who) (server.Client, error)) *cobra.Command {
	s := &steering{at: new(place)}
	var cmd *cobra.Command
	cmd = s.command(use, short, long, 0,
		func(ctx context.Context, w io.Writer, who server.Who, _ []string) error {
			api, err := s.at.remote(cmd.Flags())
			if err != nil {
				return err
			}
			name := ""
			if api != nil {
				var c apiclient.Who
				c, err = api.Disable(ctx, apiclient.Who{Client: who.ID, Name: who.Name}, disabled)
				name = c.Name
			} else {
				var c server.Client
				c, err = beside(ctx, s.at.Stores, who)
				name = c.Name
			}
			if err != nil {
				return hinted(err)
			}
			word := "enabled"
			if disabled {
				word = "disabled"
			}
			_, err = fmt.Fprintf(w, "%s is %s\n", shown(name), word)
			return err
		})
	return cmd
}

func deleteClientCommand() *cobra.Command {
	s := new(steering)
	var withFiles bool
	cmd := s.command("delete NAME", "Forget a client, and free its name",
		`delete removes a client from the records, and ends its open connections within
a second. When it comes back it gets 1606, and registers anew where
registration is open; to keep it out, disable it instead. A client that has
lost its 1600 or its key gets its name back so. A name that was added and has
not registered is taken back.

A client with files is left as it is, unless --with-files has them deleted
first. Then the client is disabled, and delete waits until the server has
removed the files. It may be stopped and run again at any time.`, 0,
		func(ctx context.Context, w io.Writer, who server.Who, _ []string) error {
			screen := bars.New(os.Stderr)
			defer screen.Stop()
			bar := screen.Add("deleting", false)
			d, err := server.DeleteClient(ctx, s.Stores, who, server.DeleteClientOptions{
				WithFiles: withFiles,
				Removed:   bar.Set,
			})
			screen.Stop()
			switch {
			case err != nil:
				return err
			case d.OnlyAdded:
				_, err = fmt.Fprintf(w, "%s is not added any more\n", shown(d.Name))
			case d.Files > 0:
				_, err = fmt.Fprintf(w, "%s is deleted, with %s\n", shown(d.Name), count(d.Files, "file"))
			default:
				_, err = fmt.Fprintf(w, "%s is deleted\n", shown(d.Name))
			}
			return err
		})
	cmd.Flags().BoolVar(&withFiles, "with-files", false, "delete the client's files too, also those that were not taken away")
	return cmd
}

func pinCommand() *cobra.Command {
	s := new(steering)
	return s.command("pin NAME FINGERPRINT", "Serve a client over one TLS key only",
		`pin has the server serve the client with that user name over TLS with that key
only, whatever the client was pinned to before. FINGERPRINT is that of the
client's key, SHA256: and 43 characters. It works beside a running server,
which ends the client's other connections within a second or two.`, 1,
		func(ctx context.Context, w io.Writer, who server.Who, args []string) error {
			c, err := server.Pin(ctx, s.Stores, who, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(w, "%s is pinned to %s\n", shown(c.Name), args[0])
			return err
		})
}

func unpinCommand() *cobra.Command {
	s := new(steering)
	return s.command("unpin NAME", "Serve a client over any connection again",
		`unpin releases the client with that user name, for example because its TLS key
is lost: it is served over any connection again, until it is pinned the next
time. It works beside a running server.`, 0,
		func(ctx context.Context, w io.Writer, who server.Who, _ []string) error {
			c, err := server.Unpin(ctx, s.Stores, who)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(w, "%s is not pinned\n", shown(c.Name))
			return err
		})
}
