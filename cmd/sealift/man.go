package main

import (
	"github.com/spf13/cobra"

	"sealift/internal/manpage"
)

func manCommand() *cobra.Command {
	return manpage.Command(
		manpage.Section{Title: "ENVIRONMENT", Text: `Each flag can be set by a variable: --packet-size by SEALIFT_PACKET_SIZE. The command
line counts before the environment.`},
		manpage.Section{Title: "FILES", Items: []manpage.Item{
			{Term: "transfer.info", Text: "What the batch client does: three lines with server IP:port, user name, path of the file."},
			{Term: "me.info", Text: "Who we are: name, id and private key. --identity names another file. Keep it as safe as a password."},
			{Term: "me.key", Text: "Our key for TLS, to which a server may have tied us. It goes with me.info, and is named after it."},
			{Term: "~/.config/sealift/known_servers", Text: "What was found out about servers, and their TLS keys. --known-servers names another file."},
		}},
		manpage.Section{Title: "EXIT STATUS", Text: "See DESCRIPTION: 0, 1, 2, 75 or 130."},
		manpage.Section{Title: "SEE ALSO", Text: "sealiftd(1), cksum(1)."},
	)
}
