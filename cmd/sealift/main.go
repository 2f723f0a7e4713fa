// Command sealift sends files to a server of the v3 secure file transfer
// protocol. Without a subcommand it is the batch client of the protocol's
// documents: transfer.info says what to do, me.info who we are.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// version is set by the linker: -ldflags "-X main.version=…".
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		os.Exit(1)
	}
}

// usageError is a mistake on the command line, in the environment or in a file
// that configures us, found before anything was sent.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run is the program. Whatever error it returns has been reported.
func run(ctx context.Context, args []string, stdout io.Writer, stderr *os.File) error {
	a := &app{stdout: stdout, stderr: stderr}
	root := a.command()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	a.bar.Clear()
	var usage usageError
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "Fatal error: interrupted")
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "Fatal error: %v; see sealift --help\n", err)
	default:
		fmt.Fprintf(stderr, "Fatal error: %v\n", err)
	}
	return err
}

// command returns the command line.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "sealift",
		Short: "Send files over the v3 secure file transfer protocol",
		Long: `Send files over the v3 secure file transfer protocol.

Without a command, sealift reads transfer.info in the working directory (three
lines: server IP:port, user name, path of the file) and sends that file. It
registers first and keeps who it is in me.info; with a me.info it reconnects
under the name in there.

Every flag can be given as an environment variable as well: --packet-size is
SEALIFT_PACKET_SIZE. The flag wins.

With --json there is one object for each file, on a line of its own:
  file           its path, as given
  stored         whether the server has it for good; if not, error says why
  name           the name it was sent under
  size           its bytes
  cksum          as cksum(1) prints it, equal on both sides
  seconds        from the first byte to the server's last word
  mb_per_second  millions of bytes of the file a second
  packets        how many it was sent in
  attempts       how often it was sent
  server         host:port
  client_id      ours, in hex

The exit status is 0, or 1 with a line "Fatal error: …" on standard error.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q: to send a file, use sealift send", args[0])}
			}
			return nil
		},
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.setUp(cmd) },
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.batch(cmd.Context()) },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	f := root.PersistentFlags()
	f.StringVar(&a.codes, "codes", "auto", "how the server numbers requests: 1025, 825 (the later edition), or auto, which finds out")
	f.StringVar(&a.dialect, "dialect", "auto", "how the server wants its packets: spec, single, padded, zero-based, zero-based-short, per-packet, packet-size, or auto: what is known of the server, else spec; send finds out if that fails")
	f.IntVar(&a.packetSize, "packet-size", 0, "bytes of content per packet (0: what the dialect usually has)")
	f.StringVar(&a.knownServers, "known-servers", "", "file that keeps what was found out about servers (default sealift/known_servers in the user's configuration directory; without one, beside me.info)")
	f.BoolVar(&a.json, "json", false, "write one JSON object per file to standard output")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "show each message sent and received: short for --log-level debug")
	f.StringVar(&a.logLevel, "log-level", "warn", "what to show on standard error: debug, info, warn or error")
	f.DurationVar(&a.timeout, "timeout", 0, "how long the server may take for a reply (0: 1m, more for large files; with conform 5s)")

	send := &cobra.Command{
		Use:   "send [flags] FILE…",
		Short: "Send files without a transfer.info",
		Long: `Send files over one connection, without a transfer.info. The first time sealift
registers under --name and keeps who it is in me.info, or the file that
--identity names; from then on it reconnects and needs no --name.

A server that wants its messages otherwise than the protocol says is found out
about when a file has failed: with small files of other names that are aborted.
What is found out is kept in known_servers. With --dialect spec, and without
the send command, no dialects are tried.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("there is no file to send")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.send(cmd.Context(), args) },
	}
	send.Flags().StringVar(&a.server, "server", "", "HOST:PORT of the server; without a port: 1256")
	send.Flags().StringVar(&a.name, "name", "", "user name to register under")
	send.Flags().StringVar(&a.identity, "identity", "", "file that keeps who we are (default me.info)")
	send.Flags().IntVar(&a.parallel, "parallel", 1, "files to send at once, each over a connection of its own; for sealiftd and other servers with a key for each connection")

	send.Flags().DurationVar(&a.retryFor, "retry-for", 2*time.Minute, "how long to try to reach a server that is away, restarts, or turns us away (0: three retries)")

	root.AddCommand(send, a.conformCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.stdout, "sealift", version)
			return err
		},
	})
	return root
}
