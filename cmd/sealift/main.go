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

	"golang.org/x/term"

	"sealift/client"
	"sealift/internal/bars"
	"sealift/internal/printable"
	"sealift/internal/stdio"
)

// The exit statuses. Those above 2 have the numbers of sysexits.h and of shells.
const (
	succeeded   = 0
	failed      = 1
	misused     = 2   // on the command line, in the environment, in transfer.info; nothing was sent
	tryLater    = 75  // the same again may succeed
	interrupted = 130 // by a signal
)

func main() {
	// A closed pipe is an error of the write like any other, and no reason to die
	// in the middle of a transfer.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(untilInterrupted(os.Stderr), os.Args[1:], os.Stdout, os.Stderr))
}

// slowEnd is how long the end after an interrupt may take without a word.
const slowEnd = 2 * time.Second

// untilInterrupted returns a context that ends with the first interrupt. The
// second one ends the process at once, whatever it waits for.
func untilInterrupted(stderr io.Writer) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		slow := time.AfterFunc(slowEnd, func() {
			fmt.Fprintln(stderr, "interrupted, but something does not end; interrupt again to end at once")
		})
		<-signals
		slow.Stop()
		os.Exit(interrupted)
	}()
	return ctx
}

// usageError is a mistake on the command line, in the environment or in a file
// that configures us, found before anything was sent.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run is the program. It returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr *os.File) int {
	if stdio.WasClosed(stdout) && !stdio.WasClosed(stderr) {
		fmt.Fprintln(stderr, "Fatal error:", stdio.ErrClosed)
		return failed
	}
	a := &app{
		out:      stdio.NewOutput(stdout),
		screen:   bars.New(stderr),
		terminal: term.IsTerminal(int(stdout.Fd())),

		interactive: term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(stderr.Fd())),
	}
	root := a.command()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	a.screen.Stop()
	lost := a.out.Close()
	if lost != nil {
		fmt.Fprintln(stderr, "Fatal error:", lost)
	}
	var usage usageError
	switch {
	case err == nil && lost == nil:
		return succeeded
	case err == nil:
		return failed
	case errors.Is(err, context.Canceled):
		fmt.Fprintf(stderr, "Fatal error: interrupted%s\n", notStored(err))
		return interrupted
	case errors.As(err, &usage):
		hint := "; see sealift --help"
		if errors.Is(err, client.ErrSameName) {
			hint = ". Send one of them by itself, under another name: --as NAME"
		}
		fmt.Fprintf(stderr, "Fatal error: %s%s\n", printable.Line(err.Error()), hint)
		return misused
	case errors.Is(err, lost):
		return failed // it has been told
	}
	hint := a.hint
	var several *client.FilesError
	switch {
	case hint != "":
	case !errors.As(err, &several):
		hint = a.advice("", err)
	case several.Ended != nil:
		hint = a.advice("", several.Ended)
	}
	fmt.Fprintf(stderr, "Fatal error: %s%s\n", printable.Line(summary(err)), hint)
	if client.Temporary(err) && !a.permanent {
		return tryLater
	}
	return failed
}
