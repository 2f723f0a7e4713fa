package main

import (
	"os"

	"github.com/spf13/cobra"

	"sealift/cmd/internal/demo"
)

func demoCommand() *cobra.Command {
	var dir string
	var stay bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it at work: a server, a client, uploads, what is stored",
		Long: `demo starts a server on a free port, registers a client, uploads a file (this
program), reconnects over TLS, uploads another, stops the server, and reads
what is stored. Everything happens in one directory, which is left for you to
look at. Meanwhile the server has a page, whose address and token are printed;
with --stay it stays up until Ctrl-C.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if dir == "" {
				if dir, err = os.MkdirTemp("", "sealift-demo-"); err != nil {
					return err
				}
			} else if err = os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			return demo.Run(cmd.Context(), cmd.OutOrStdout(), dir, stay)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory for it all (default: a new one under the system's temporary directory)")
	cmd.Flags().BoolVar(&stay, "stay", false, "keep the server and its page up until Ctrl-C")
	return cmd
}
