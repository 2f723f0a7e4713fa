// Command matrix tries Sealift's programs, and clients and servers in C++ and Python, with each other, and writes the
// outcome as a page of Markdown. It exits with status 1 if anything failed.
//
// Run it in the repository: go run ./test/interop/matrix -o docs/INTEROP.md
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"sealift/internal/infofile"
	"sealift/test/interop"
)

func main() {
	output := flag.String("o", "", "write the page to this `file` instead of standard output")
	calm := flag.Bool("calm", false, "try also the servers that need a machine that is not busy with others")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	failed, err := run(ctx, *output, *calm)
	if err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
	}
	if err != nil || failed {
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, output string, calm bool) (failed bool, err error) {
	scratch, err := os.MkdirTemp("", "sealift-matrix-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(scratch)
	programs, err := interop.BuildPeers(ctx)
	if err != nil {
		return false, err
	}
	if err := programs.BuildSealift(ctx, scratch); err != nil {
		return false, err
	}
	programs.Calm = calm
	tables, err := programs.Matrix(ctx, interop.Sizes, scratch)
	if err != nil {
		return false, err
	}
	for _, table := range tables {
		for _, failure := range table.Failures() {
			failed = true
			fmt.Fprintln(os.Stderr, failure)
		}
	}
	page := new(bytes.Buffer)
	if err := interop.WriteReport(page, tables); err != nil {
		return failed, err
	}
	if output == "" {
		_, err = os.Stdout.Write(page.Bytes())
		return failed, err
	}
	return failed, infofile.Replace(output, page.Bytes(), 0o644)
}
