package session

import "sealift/codec"

// state is what the server knows of the client at the other end.
type state uint8

const (
	fresh state = iota // nothing: no id is bound to the connection
	named              // registered on this connection, no AES key yet
	ready              // has an AES key: it can send files
	states
)

func (s state) String() string {
	return [...]string{"fresh", "named", "ready"}[s]
}

// action is what a session does with a request. The methods of the same names
// do it.
type action uint8

const (
	refuse   action = iota // 1607
	register               // 1025: 1600 and named, or 1601
	exchange               // 1026: 1602 and ready
	rejoin                 // 1027: 1605 and ready, or 1606 and fresh
	recall                 // read the client's AES key from the registry, become ready, do it again
	receive                // 1028: content; 1603 when the file is complete
	confirm                // 1029: 1604 when the file is durable
	again                  // 1030: no reply; the file comes again
	abort                  // 1031: 1604
	proceed                // 1032: 1608
)

// transitions is the protocol's order of messages: what a session does with a
// request in each state. An action that fails is answered with 1607 and leaves
// the state as it was. A request under another id than the one that is bound
// to the connection is refused before this table is asked.
//
// A fresh connection takes more than 1025 and 1027 because a client whose
// connection dropped sends its last message again, on a new one.
var transitions = [states][8]action{
	//     1025      1026      1027    1028     1029     1030    1031    1032
	fresh: {register, exchange, rejoin, recall, recall, recall, recall, refuse},
	named: {refuse, exchange, rejoin, refuse, refuse, refuse, refuse, refuse},
	ready: {refuse, exchange, rejoin, receive, confirm, again, abort, proceed},
}

// next is the action for a request in state s.
func (s state) next(c codec.Code) action {
	return transitions[s][c-codec.CodeRegister]
}
