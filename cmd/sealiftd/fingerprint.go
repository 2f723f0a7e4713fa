package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sealift/server"
)

func fingerprintCommand() *cobra.Command {
	var dir, cert string
	cmd := &cobra.Command{
		Use:   "fingerprint",
		Short: "Print the fingerprint by which clients know a server",
		Long: `fingerprint prints the fingerprint of the key in the server's directory, or of
the one in the certificate that the server is given. It works beside a running
server. Clients show it at their first contact, and take it on their command
line: sealift send --tls-fingerprint.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			look, at := server.Fingerprint, dir
			if cert != "" {
				look, at = server.FingerprintOfFile, cert
			}
			sum, err := look(at)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), sum)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the server's directory")
	cmd.Flags().StringVar(&cert, "tls-cert", "", "the certificate that the server is given, PEM, in the place of the one in its directory")
	return cmd
}
