// Package session is the server's side of the v3 secure file transfer protocol:
// one state machine for each connection, which takes bytes, decides, and
// answers. It has no sockets, no database, no clock, and nothing that runs beside
// the session's goroutine; it gets all of that from its [Host], and the stores
// from a [storage.Registry] and [storage.Files]. The table of transitions (table.go) says what it
// does with each request. A request that waits is a coroutine (coroutine.go),
// which runs only while Feed or a done of the host's waits for it. A connection
// that is idle has none.
//
// A transport drives a [Session] like this, always on the one goroutine that is
// the session's:
//
//   - What arrives goes to [Session.Feed]. What Feed does not take stays with the
//     transport, which had better stop reading then.
//   - After each done that it ran for the session (see [Host]), and when there is
//     memory again after a nil from Buffer, it calls Feed once more, with what it
//     has, be it nothing: a request may have waited for just that.
//   - A transport that lends the content of large files says so with
//     [Session.Lends]. Then Feed leaves such content, and where [Session.Flowing]
//     reports true, the transport calls [Session.Lend], and one other goroutine
//     reads from the client and calls [Session.Take], until that says that it is
//     enough, or nothing is there. After that the transport calls
//     [Session.Returned] on the session's goroutine, runs what had to wait
//     meanwhile, and calls Feed with what Take left.
//   - It ends connections by what [Session.Phase] and [Session.Working] tell, and
//     calls [Session.Closed] exactly once when the connection is gone. Work that
//     is under way still has to run to its done.
//
// Replies do not depend on how the bytes were split, nor on the order in which
// workers end. A session holds no more content in buffers than Config.Window,
// nothing at all of what is lent, and nothing else that grows with what a client
// sends, except what Host.Hold has granted and 8 KiB for each transfer, the
// numbers of its packets that wait in a file.
package session
