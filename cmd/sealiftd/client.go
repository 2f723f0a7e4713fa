package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sealift/server"
)

// clientCommand is what there is to do about one client, and the list of all.
func clientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client",
		Short: "Pin clients to TLS keys, or list them",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(pinCommand(), unpinCommand(), listClients("list"))
	return cmd
}

func pinCommand() *cobra.Command {
	return pinning("pin NAME FINGERPRINT", "Serve a client over one TLS key only",
		`pin has the server serve the client with that user name over TLS with that key
only, whatever the client was pinned to before. FINGERPRINT is that of the client's
key, SHA256: and 43 characters. It works beside a running server, which ends the
client's other connections within a second or two.`,
		func(ctx context.Context, w io.Writer, dir string, args []string) error {
			if err := server.Pin(ctx, dir, args[0], args[1]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(w, "%s is pinned to %s\n", shown(args[0]), args[1])
			return err
		}, 2)
}

func unpinCommand() *cobra.Command {
	return pinning("unpin NAME", "Serve a client over any connection again",
		`unpin releases the client with that user name, for example because its TLS key is
lost: it is served over any connection again, until it is pinned the next time. It
works beside a running server.`,
		func(ctx context.Context, w io.Writer, dir string, args []string) error {
			if err := server.Unpin(ctx, dir, args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(w, "%s is not pinned\n", shown(args[0]))
			return err
		}, 1)
}

// pinning makes a command of run, which gets so many arguments.
func pinning(use, short, long string, run func(ctx context.Context, w io.Writer, dir string, args []string) error, args int) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.ExactArgs(args),
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd.Context(), cmd.OutOrStdout(), dir, args)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the server's directory")
	return cmd
}
