// Package eventloop carries sessions over TCP. It is the only package that
// knows gnet: a few event loops, one goroutine each, frame what arrives and let
// the sessions decide; everything that computes or blocks goes to bounded pools
// of workers, and its result comes back to the loop.
//
// The package also keeps the promises that concern many connections at once:
//
//   - Memory. Content waits in buffers of one budget for the process, and of one
//     window for each connection. A connection that has to wait is paused: the
//     kernel stops its sender, and the loop goes on with the others.
//   - Descriptors. Connections, open files and the rest stay below
//     RLIMIT_NOFILE, because an accept that fails for want of one would end all
//     of gnet.
//   - Time. A connection that is silent, unfinished or deaf for too long is
//     ended by a timer, which the log names.
//   - The end. [Server.Run] lets transfers that are under way finish before it
//     returns.
package eventloop
