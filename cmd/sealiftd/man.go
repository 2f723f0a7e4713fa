package main

import (
	"github.com/spf13/cobra"

	"sealift/internal/manpage"
)

func manCommand() *cobra.Command {
	return manpage.Command(
		manpage.Section{Title: "SIGNALS", Items: []manpage.Item{
			{Term: "SIGTERM, SIGINT", Text: "serve accepts no more connections, lets transfers under way finish for --drain-timeout, and ends. A second one ends it at once."},
			{Term: "SIGHUP", Text: `serve reads the file of --config again and takes up what may change while it runs; the log says what changed, and
what needs a restart, which stays as it is. A file that is wrong changes nothing. It also takes up changed files of TLS at once, which it does
within a minute by itself.`},
		}},
		manpage.Section{
			Title: "ENVIRONMENT",
			Text: `Each flag can be set by a variable: --max-file-size by SEALIFT_MAX_FILE_SIZE. The
command line counts before the environment, and that before the file of --config.`,
			Items: []manpage.Item{
				{Term: "NOTIFY_SOCKET, WATCHDOG_USEC", Text: "Set by systemd, which is told when the server is ready, that its loops answer, that it reads its settings again and goes by them, and that it stops: sd_notify(3)."},
				{Term: "LISTEN_FDS, LISTEN_PID", Text: "Set by systemd with a socket, which is used in the place of --listen: sd_listen_fds(3)."},
			},
		},
		manpage.Section{Title: "FILES", Items: []manpage.Item{
			{Term: "/etc/sealift/sealiftd.yaml", Text: "Settings of the service that the packages install: see sealiftd config."},
			{Term: "DIR/port.info", Text: "The number of the port, for when there is no --listen. DIR is the directory that --dir names, /var/lib/sealift for the service."},
			{Term: "DIR/admin.info", Text: "Where the server's --admin address is, and the file of its token, for sealiftd status. It is there while the server runs."},
			{Term: "DIR/defensive.db", Text: "The registry of clients and files, in SQLite. By itself it is no copy of anything: see sealiftd backup."},
			{Term: "DIR/files/ID/", Text: "The files of a client. In files/.incoming are those that are not complete and verified."},
			{Term: "DIR/taking", Text: "What sealiftd file take was about to record when it was killed; the next one finishes that."},
			{Term: "DIR/tls/", Text: "The server's key and certificate, unless --tls-cert and --tls-key name others."},
		}},
		manpage.Section{Title: "EXIT STATUS", Items: []manpage.Item{
			{Term: "0", Text: "All is well. A server has been stopped, and its transfers have ended."},
			{Term: "1", Text: `Something is not; a last line "Fatal error: ..." on standard error says what.`},
		}},
		manpage.Section{Title: "SEE ALSO", Text: `sealift(1), systemctl(1), cksum(1).

OPERATING.md, with the documentation of the package, says how a server is run.`},
	)
}
