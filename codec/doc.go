// Package codec turns bytes into messages of the v3 secure file transfer
// protocol and back. It is pure: no sockets, no clock, no goroutines, only the
// standard library, so the server, the client and the load generator share it.
//
// A server feeds what it received to a [RequestDecoder], however the network
// split it, and gets one [Event] at a time:
//
//	for len(p) > 0 {
//		ev, n, err := dec.Next(p)
//		p = p[n:]
//		…
//	}
//
// A client does the same with a [ResponseDecoder]. The content of a 1028 is
// never collected: it is handed on in the pieces in which it arrived.
//
// Every message has a type with a Parse function, which reads the payload that
// an Event carries, and an Append method, which writes header and payload so
// that a message goes out in one write. Parsed messages alias the payload they
// were read from and allocate nothing; copy what must outlive the next call.
//
// All numbers on the wire are little-endian and unsigned. Sizes are in bytes.
// docs/PROTOCOL.md describes the whole format. 1032 and 1608, its section 15, are
// Sealift's own: the documents of version 3 do not have them, and they go only
// between a client and a server that both know them.
package codec
