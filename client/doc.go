// Package client sends files to a server of the v3 secure file transfer
// protocol. docs/PROTOCOL.md describes what goes over the wire.
//
// [Run] does everything: it connects, logs in and sends a list of files.
//
//	results, err := client.Run(ctx, client.Options{
//		Server:   "files.example.org:1256",
//		Name:     "Michael Jackson",
//		Identity: client.IdentityFile("me.info"),
//	}, []client.File{{Path: "specs/New_product_spec.docx"}}, nil)
//
// A [Client] does the same step by step: [Dial], then [Client.Login] (or
// [Client.Register], [Client.ExchangeKey] and [Client.Reconnect] by hand), then
// [Client.Send] as often as there are files.
//
// # Retries
//
// A message that is answered with a general error (1607), or not answered
// because the connection is lost, is sent again, up to 3 times, over a new
// connection where the old one is gone or out of step. With Options.RetryFor the
// client waits for a server that is away, for that time. To send a file again
// means all of its packets; on a new connection a reconnect (1027) goes ahead, for
// a key of its own. A server's checksum that differs gives 1030 and the file
// again, up to 3 times, then 1031 and an [Error] with [ErrChecksum]. [Temporary]
// tells errors that may pass by themselves.
//
// # Files that are cut
//
// A server that continues files (docs/PROTOCOL.md, section 15) is asked how much of a file
// it has, after a connection was lost and before a file of 8 MiB and more is sent. If that
// is the beginning of the file, only the rest goes. Whether a server does so is known from
// TLS, from Options.Known, or from Options.Continue; else it is found out after a cut. Each
// time that the server has 1 MiB more than before, the number of retries begins anew.
// Options.SkipStored keeps a [Run] from sending what the server has verified.
//
// # Identity
//
// A server that does not know the client (1606) has it register again, at the
// login or in the middle of a job. The old identity stays until the new one is
// kept, and afterwards beside it; [Client.Login] has the details. Any number of
// Clients and processes may use one [IdentityFile] at once.
//
// # Protected connections
//
// With Options.TLS, or a server that is tls://host:port, v3 goes inside TLS 1.3. The
// server is known by its key, which [KnownServersFile] keeps from the first contact on,
// and which ends a Run if it changes; or by its certificate. A server that is known with
// TLS is never reached without. An [IdentityFile] has a key of its own for the server to
// know the client by.
//
// # Servers that differ
//
// A server may number requests otherwise, lay out packets otherwise, or be too
// slow for packets that follow at once. With [AutoCodes] and [Auto] the client
// finds that out when a message has failed, and keeps it in Options.Known; a
// server that works gets the same messages as without. docs/PROTOCOL.md, section
// 12, says what is met and what is done about it.
//
// # Memory and goroutines
//
// A file is read once per attempt, or from where that begins, and streams through a few buffers of at most
// 256 KiB, whatever its size. A Client may be used by one goroutine at a time;
// different Clients are independent. All its methods return soon after their
// context ends. Then, and after a failed method, the Client can still be used:
// it makes a new connection where it needs one.
package client
