//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sealift/bench/load"
	"sealift/bench/report"
	"sealift/internal/infofile"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "Fatal error: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// options are the flags of a run.
type options struct {
	peers    []string
	before   string
	kase     string
	rounds   int
	dir      string
	logLevel string
	profile  string
	tiny     bool
	tls      bool
}

func root() *cobra.Command {
	var o options
	var jsonFile, plotDir, from string
	var markdown bool
	cmd := &cobra.Command{
		Use:           "bench [SCENARIO…]",
		Short:         "Measures Sealift beside other servers, on the same bytes",
		Long:          "bench measures sealiftd beside other servers, on the same bytes. Scenarios:\n\n" + listScenarios() + "\nPeers:\n\n" + listPeers(),
		Args:          cobra.ArbitraryArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, names []string) error {
			var run *report.Run
			var err error
			if from != "" {
				run, err = readRun(from)
			} else {
				run, err = measure(cmd.Context(), o, names)
			}
			if err != nil {
				return err
			}
			if markdown {
				report.PrintMarkdown(os.Stdout, run)
			} else {
				report.Print(os.Stdout, run)
			}
			if jsonFile != "" {
				if err := writeRun(jsonFile, run); err != nil {
					return err
				}
			}
			if plotDir != "" {
				return report.Plot(plotDir, run)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSliceVar(&o.peers, "peer", nil, "only these servers (default: all that a scenario names and the machine has)")
	f.StringVar(&o.before, "before", "", "a commit of this checkout to measure beside sealift, as the peer before")
	f.StringVar(&o.kase, "case", "", "only cases whose name has this in it")
	f.StringVar(&jsonFile, "json", "", "keep all figures in this file")
	f.StringVar(&plotDir, "plot", "", "draw the figures into this directory, as SVG and PNG")
	f.StringVar(&from, "from", "", "measure nothing: print, or draw, what --json kept in this file")
	f.BoolVar(&markdown, "markdown", false, "print the short table of the README instead")
	f.IntVar(&o.rounds, "rounds", 2, "turns of each server, but one where that takes very long; the figures are the medians")
	f.StringVar(&o.dir, "dir", "", "where the servers keep their files (default: the system's temporary directory)")
	f.StringVar(&o.logLevel, "log-level", "warn", "of the servers in Go; they log to the null device")
	f.StringVar(&o.profile, "profile", "", "have the servers in Go write profiles of the timed parts into this directory")
	f.BoolVar(&o.tls, "tls", false, "protect the connections of sealift and tusd by TLS in all scenarios")
	f.BoolVar(&o.tiny, "tiny", false, "small and short loads, to see whether everything works")
	cmd.CompletionOptions.HiddenDefaultCmd = true
	cmd.AddCommand(serverCommand(), loadCommand(), putCommand())
	return cmd
}

func loadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "load", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return load.Serve(cmd.Context(), os.Stdin, os.Stdout)
		},
	}
}

// measure runs the named scenarios, or all.
func measure(ctx context.Context, o options, names []string) (*report.Run, error) {
	chosen, err := chooseScenarios(names)
	if err != nil {
		return nil, err
	}
	if err := checkPeers(o.peers); err != nil {
		return nil, err
	}
	h, err := newHarness(o)
	if err != nil {
		return nil, err
	}
	err = h.runAll(ctx, chosen)
	return h.run, errors.Join(err, h.close())
}

func writeRun(path string, run *report.Run) error {
	b, err := json.MarshalIndent(run, "", "\t")
	if err != nil {
		return err
	}
	return infofile.Replace(path, append(b, '\n'), 0o644)
}

func readRun(path string) (*report.Run, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	run := new(report.Run)
	if err := json.Unmarshal(b, run); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return run, nil
}

func chooseScenarios(names []string) ([]scenario, error) {
	if len(names) == 0 {
		return scenarios, nil
	}
	var chosen []scenario
	for _, name := range names {
		found := false
		for _, s := range scenarios {
			if s.name == name || strings.HasPrefix(s.name, name+"-") {
				chosen, found = append(chosen, s), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no scenario %q; there are:\n%s", name, listScenarios())
		}
	}
	return chosen, nil
}

func listScenarios() string {
	var b strings.Builder
	for _, s := range scenarios {
		fmt.Fprintf(&b, "  %-10s %s\n", s.name, s.about)
	}
	return b.String()
}

func checkPeers(names []string) error {
	for _, name := range names {
		if findPeer(name) == nil {
			return fmt.Errorf("there is no peer %q; there are:\n%s", name, listPeers())
		}
	}
	return nil
}

func listPeers() string {
	var b strings.Builder
	for _, p := range peers {
		fmt.Fprintf(&b, "  %-10s %s\n", p.name, p.about)
	}
	return b.String()
}
