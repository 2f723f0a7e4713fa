// Command sealiftd receives files over the v3 secure file transfer protocol.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sealift/internal/stdio"
)

// stdout is where all commands print.
var stdout = stdio.NewOutput(os.Stdout)

func main() {
	ctx, drain := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		// From here on, which is before anybody sees that the server drains, the
		// second signal ends the process at once.
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		drain()
	}()
	// A reader that has gone is an error of a write, not the end of the process:
	// a backup is not to stop in its middle.
	signal.Ignore(syscall.SIGPIPE)
	cmd := root()
	cmd.SetOut(stdout)
	err := cmd.ExecuteContext(ctx)
	switch lost := stdout.Close(); {
	case lost == nil || errors.Is(err, lost):
	case err == nil:
		err = lost
	default:
		err = fmt.Errorf("%w; %w", err, lost)
	}
	if err != nil {
		complain(err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	serve, settings := serveCommand()
	cmd := &cobra.Command{
		Use:   "sealiftd",
		Short: "Receives files over the v3 secure file transfer protocol",
		Long: `sealiftd receives files over the v3 secure file transfer protocol.

Without a subcommand it serves, see "sealiftd serve --help". Each flag can also
be set by an environment variable: --max-file-size by SEALIFT_MAX_FILE_SIZE.
Those of serve can stand in a file as well, see "sealiftd config --help".`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return settle(cmd.Flags())
		},
		RunE: serve.RunE,
	}
	// The words about a flag are wrapped.
	cmd.SetUsageTemplate(strings.ReplaceAll(cmd.UsageTemplate(), ".FlagUsages ", ".FlagUsagesWrapped 80 "))
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(serve.Flags())
	cmd.AddCommand(serve, configCommand(serve, settings), demoCommand(), statusCommand(), clientCommand(), listClients("clients"), fileCommand(), listFiles("files"), eventsCommand(), verifyCommand(),
		backupCommand(), migrateCommand(), fingerprintCommand(), forgetMissingCommand(), takeStraysCommand(), healthCommand(), versionCommand(), manCommand())
	return cmd
}
