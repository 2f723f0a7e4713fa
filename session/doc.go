// Package session is the server's side of the v3 secure file transfer protocol:
// one state machine for each connection, which takes bytes, decides, and answers.
// It has no sockets, no database, no clock, and no goroutines of its own; it gets
// all of that from its [Host], and its stores from a storage.Registry, behind the
// Host, and storage.Files.
//
// The table of transitions (table.go) says what a session does with each request. A
// request that waits is a coroutine (coroutine.go): it reads from top to bottom, and
// runs only while Feed or a done of the host's waits for it. An idle connection has none.
// What a connection has of files under way is in its uploads; one file on its way is
// a transfer.Transfer, which knows no connection.
//
// # The duties of a host
//
//  1. It runs a [Session] on one goroutine at a time, "the session's". Many sessions
//     may share one. None of these goroutines is locked to a thread: sessions take
//     over each other's coroutines, and the runtime cannot switch between such
//     goroutines.
//  2. It gives [Session.Feed] what arrives, in order. What Feed does not take stays
//     with the host, which should then stop reading.
//  3. It runs each work given to Do, as a rule on another goroutine, and each done of Do and Apply
//     exactly once on the session's, also after the connection has gone. A panic in
//     work or in a done must not end the process: after one in work the done still
//     runs, one in a done ends the connection.
//  4. After each done that it ran, and when memory is free after Buffer returned nil,
//     it calls Feed again, even without bytes: a request may be waiting for that call.
//  5. It calls [Session.Tick] about twice a second, and so [Service.Tick]; and
//     [Service.End] when all sessions have ended.
//  6. It ends connections by what [Session.Phase] and [Session.Working] tell, and
//     those for which Hangup was called.
//  7. When the connection is gone, and not while the session is lent, it calls
//     [Session.Closed] exactly once.
//
// As a loop, with everything that happens to one session in one channel:
//
//	s := session.New(service, host, remote)
//	defer s.Closed()
//	var left []byte
//	for event := range events {
//		switch event := event.(type) {
//		case arrived:
//			left = append(left, event.bytes...)
//		case done: // of Do or Apply
//			event.run()
//		case tick:
//			s.Tick()
//		case gone, hungUp:
//			return // the dones that are still to come are run nevertheless
//		}
//		left = left[s.Feed(left):]
//		pauseReading(len(left) > 0)
//	}
//
// # What a host may do
//
// It may spare a copy and read content from the network to where it belongs: see
// [Session.Target].
//
// It may lend the content of large files. It says so with [Session.Lends], and then
// Feed leaves such content. Where [Session.Flowing] reports true after Feed, the host
// calls [Session.Lend] and hands the [Loan] to a worker. The worker reads from the
// client and calls [Loan.Take] until that returns false or nothing more is there.
// Meanwhile nobody else touches the session: the host keeps dones, ticks and all
// else. Back on the session's goroutine it calls [Loan.Return], runs what it kept,
// and calls Feed with what Take left.
//
// # Memory
//
// A session holds no more content in buffers than Config.Window, none of what is
// lent, and nothing else that grows with what a client sends, except what Host.Hold
// granted, and at most 8 KiB for each transfer: the numbers of its packets that wait
// in a file.
//
// Replies do not depend on how the bytes were split. They come in the order of their
// requests, but for the replies to transfers under way (docs/PROTOCOL.md, 8), whose
// order is that in which their work ends.
package session
