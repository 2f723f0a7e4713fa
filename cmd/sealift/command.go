package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealift/internal/version"
)

// command returns the command line.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "sealift",
		Short: "Send files over the v3 secure file transfer protocol",
		Long: `Send files over the v3 secure file transfer protocol.

Without a command, sealift reads transfer.info in the working directory (three
lines: server IP:port, user name, path of the file) and sends that file. It
registers first and keeps who it is in me.info; with a me.info it reconnects
under the name in there. A server that is tls://IP:PORT, or
tls://IP:PORT#SHA256:… with the fingerprint of its key, is reached over TLS 1.3.

The TLS key of a server is kept in known_servers after the first contact, and
another one is not trusted from then on; send and conform use TLS for such a
server without a flag. At the first contact sealift asks on a terminal whether
the key is right; elsewhere it needs --tls-fingerprint or --tls-trust-first. On
the server, sealiftd fingerprint prints the fingerprint. The client's own TLS key
is kept in me.key, beside me.info.

Every flag can be given as an environment variable as well: --packet-size is
SEALIFT_PACKET_SIZE. The flag wins.

With --json there is one object for each file, on a line of its own:
  file           its path, as given
  stored         whether the server has it for good; if not, error says why
  name           the name it was sent under
  size_bytes     its size
  offset_bytes   so many of them were on the server already; all of them: nothing
                 was sent
  cksum          as cksum(1) prints it, equal on both sides
  seconds        from the first byte to the server's last word
  mb_per_second  millions of bytes a second, of what was sent of the file
  packets        how many it was sent in
  attempts       how often it, or a part of it, was sent
  server         host:port
  client_id      ours, in hex

A file that cannot be sent has a line "not stored: …" on standard error, and the
others are sent. The last line is "Fatal error: …" unless all is well.

The exit status is
  0    every file is stored
  1    a file is not stored, or standard output cannot be written
  2    a mistake on the command line, in the environment or in transfer.info;
       nothing was sent
  75   nothing but time is needed: the server is out of reach, or answers 1607
  130  interrupted. The first interrupt ends what is under way, the second one
       ends sealift at once`,
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
	// The words about a flag are wrapped.
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", ".FlagUsagesWrapped 80 "))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVar(&a.codes, "codes", "auto", "how the server numbers requests: 1025, 825 (the later edition), or auto, which finds out")
	f.StringVar(&a.dialect, "dialect", "auto", "how the server wants its packets: spec, single, padded, zero-based, zero-based-short, per-packet, packet-size, or auto: what is known of the server, else spec; send finds out if that fails")
	f.IntVar(&a.packetSize, "packet-size", 0, "bytes of content per packet (0: what the dialect usually has)")
	f.StringVar(&a.knownServers, "known-servers", "", "file that keeps the TLS keys of servers, and what was found out about them (default sealift/known_servers in the user's configuration directory; without one, beside me.info)")
	f.BoolVar(&a.tls.on, "tls", false, "use TLS 1.3; the other --tls flags do that as well")
	f.StringSliceVar(&a.tls.fingerprints, "tls-fingerprint", nil, "SHA256:… of the server's TLS key; several where it has one of them. It takes the place of the key in known_servers")
	f.BoolVar(&a.tls.trustFirst, "tls-trust-first", false, "trust the TLS key of a server of which none is known")
	f.StringVar(&a.tls.ca, "tls-ca", "", "PEM `file` with authorities, or system: trust a server with a certificate of theirs for its host name, and keep no key")
	f.StringVar(&a.tls.cert, "tls-cert", "", "PEM `file` with a certificate to show to the server in the place of me.key, for one with --tls-clients ca; the user name stands in it")
	f.StringVar(&a.tls.key, "tls-key", "", "PEM `file` with its private key")
	f.BoolVar(&a.json, "json", false, "write one JSON object per file to standard output")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "show each message sent and received: short for --log-level debug")
	f.StringVar(&a.logLevel, "log-level", "warn", "what to show on standard error: debug, info, warn or error")
	f.DurationVar(&a.timeout, "timeout", 0, "how long the server may take for a reply (0: 1m, more for large files; with conform 5s)")

	root.AddCommand(a.sendCommand(), a.conformCommand(), manCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("version takes no arguments: %q", args)}
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.out, version.Line("sealift"))
			return err
		},
	})
	return root
}

// sendCommand returns the command that sends files without a transfer.info.
func (a *app) sendCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "send [flags] FILE…",
		Short: "Send files without a transfer.info",
		Long: `Send files over one connection, without a transfer.info. The first time sealift
registers under --name and keeps who it is in me.info, or the file that
--identity names; from then on it reconnects and needs no --name.

A file is sent under the last element of its path, or under --as NAME. NAME may
have folders: docs/a.txt. FILE - is standard input, and needs --as; it is copied
to a temporary file first. Two files that the server would store as one are a
mistake, and nothing is sent. Names that the server would store otherwise (b:x,
a\b) are not sent.

With -r, a FILE that is a folder stands for the files in it and in its folders,
sent under their paths below it: send -r docs sends docs/a/b.txt as a/b.txt.
Links, pipes, sockets and devices in it are passed over, each with a line; with
-L links are followed. Empty folders are not sent. --exclude has a pattern of the
shell (*, ?, [a-z]; * does not go past a slash): without a slash it is compared
with the last element of a path, as in '*.tmp', with one with the whole path
below the folder, as in build/out or /out; with a slash at its end, as in .git/,
it is for folders. With a folder goes all that is in it.

me.info, me.key, priv.key and known_servers are never sent.

A file that is written to while it is sent is sent again, up to 3 times, and then
fails.

Where the connection is lost, a file goes on where it was cut, if the server keeps
what it has: sealiftd does. So it is within one call, and at the next one for files
of 8 MiB and more, where the server is known to do that: over TLS it says so, and
over a plain connection it is remembered in known_servers once it has shown, or
--resume says so. What the server has is compared with the file first. Such a
server takes files of more than 4 GiB. With -r over TLS, files that it has verified
with the same content are not sent again; --force sends them.

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
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range []string{"as", "identity"} { // a script's variable that is not set
				if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
					return usageError{fmt.Errorf("--%s is empty", name)}
				}
			}
			return a.send(cmd.Context(), args)
		},
	}
	f := c.Flags()
	f.StringVar(&a.server, "server", "", "HOST:PORT of the server, or tls://HOST:PORT[#SHA256:…]; without a port: 1256")
	f.StringVar(&a.name, "name", "", "user name to register under")
	f.StringVar(&a.identity, "identity", "", "file that keeps who we are (default me.info)")
	f.IntVar(&a.parallel, "parallel", 1, "files to send at once, each over a connection of its own; for sealiftd and other servers with a key for each connection")
	f.DurationVar(&a.retryFor, "retry-for", 2*time.Minute, "how long to try to reach a server that is away, restarts, or turns us away (0: three retries)")
	f.BoolVar(&a.resume, "resume", false, "the server continues files that were cut: ask it about those of 8 MiB and more before they are sent")
	f.BoolVar(&a.force, "force", false, "send files also where the server has them already")
	f.StringVar(&a.as, "as", "", "name to send the file under")
	f.BoolVar(&a.failFast, "fail-fast", false, "end at the first file that fails; if that can be told before, send nothing")
	f.BoolVarP(&a.recursive, "recursive", "r", false, "send what is in folders")
	f.BoolVarP(&a.follow, "dereference", "L", false, "with -r, follow symbolic links")
	f.StringArrayVar(&a.exclude, "exclude", nil, "with -r, leave out what this pattern matches; may be given several times")
	return c
}
