// Package eventloop carries sessions over TCP. It is the only package that
// knows gnet. A few event loops, one goroutine each, read what arrives and let
// the sessions decide; what computes or blocks goes to bounded pools of workers,
// and its result comes back to the loop. A connection belongs to one goroutine at
// a time: to its loop, or, while the content of a large file flows, to a worker
// (owner, lend.go). How far it has come is its phase (conn.go). TLS connections come to
// the same port; only their handshakes have goroutines (tls.go).
//
// The package also keeps the promises that concern many connections at once:
//
//   - Memory. Content waits in buffers of one budget for the process, and of one
//     window for each connection. A connection that has to wait is paused: the
//     kernel stops its sender, and the loop goes on with the others.
//   - Descriptors. Connections, open files and the rest stay below RLIMIT_NOFILE.
//     Without a descriptor the server could neither accept nor store.
//   - Time. A timer ends a connection that is silent, does not finish what it began,
//     or does not read its replies, and the log says which.
//   - The end. [Server.Run] lets transfers that are under way finish before it
//     returns.
package eventloop
