package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func healthCommand() *cobra.Command {
	var addr, addrFile string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Say whether a server answers",
		Long: `health connects to a server and ends the connection without a request. A server
that is well ends it, too. The status is 0 if it did, and also if it answers
that it has no room for another connection; 1 if not. A server that still reads
what a crash has left does not answer. Nothing is registered or stored. It
works with plain servers and with those that require TLS.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if addrFile != "" {
				text, err := os.ReadFile(addrFile)
				if err != nil {
					return err
				}
				addr = strings.TrimSpace(string(text))
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			word, err := ask(ctx, addr)
			if err != nil {
				return fmt.Errorf("the server at %s does not answer: %w", addr, err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "The server at %s %s.\n", addr, word)
			return err
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "127.0.0.1:1256", "host:port of the server")
	cmd.Flags().StringVar(&addrFile, "addr-file", "", "the file that serve --addr-file wrote, in the place of --addr")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long the server may take")
	return cmd
}

// refusal is the whole reply that a connection gets that is one too many: version 3, code
// 1607, no payload.
var refusal = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16([]byte{3}, 1607), 0)

// ask says how the server at addr takes a connection that ends without a request: its
// acceptor and a loop have to do something about it. ctx must have a deadline.
func ask(ctx context.Context, addr string) (word string, err error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return "", err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	reply, err := io.ReadAll(io.LimitReader(c, 64))
	switch {
	case err != nil:
		return "", err
	case len(reply) == 0:
		return "answers", nil
	case string(reply) == string(refusal):
		return "answers that it is full", nil
	}
	return "", errors.New("what it says is not the protocol's")
}
