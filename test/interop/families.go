package interop

import (
	"slices"
	"strconv"
	"strings"
)

// A Dialect is one reading of how a file is cut into 1028s (docs/PROTOCOL.md, Dialects).
type Dialect struct {
	Name string // as the options --dialect of all programs take it
	// Packet is the size of a packet's body in bytes, of its plaintext in per-packet; 0 leaves it to the program.
	Packet int
}

// The dialects that have quirky and habitual variants.
var (
	spec      = Dialect{"spec", 0}
	single    = Dialect{"single", 0}
	padded    = Dialect{"padded", 1024}
	zeroBased = Dialect{"zero-based", 1024}
	perPacket = Dialect{"per-packet", 4096}
)

// Dialects are all of them, in the sizes that the field uses.
var Dialects = []Dialect{
	spec,
	single,
	padded,
	{"padded", 65269}, // with the fields before it a payload of 65,536
	zeroBased,
	{"zero-based-short", 0},
	perPacket,
	{"per-packet", 4000},
	{"packet-size", 0},
}

func (d Dialect) String() string {
	if d.Packet == 0 {
		return d.Name
	}
	return d.Name + " " + strconv.Itoa(d.Packet)
}

// args are the options that choose the dialect in a program whose option for the packet's size is sizeOption.
func (d Dialect) args(sizeOption string) []string {
	if d.Name == "" { // sealift is to find out
		return nil
	}
	args := []string{"--dialect", d.Name}
	if d.Packet != 0 {
		args = append(args, sizeOption, strconv.Itoa(d.Packet))
	}
	return args
}

// A Maker tells whose implementation a client or server is.
type Maker string

// The makers of clients and servers.
const (
	Cpp     Maker = "C++"
	Python  Maker = "Python"
	Sealift Maker = "Sealift"
)

// Peers are the makers that are not Sealift.
var Peers = []Maker{Cpp, Python}

// A Client is a client program together with how it sends.
type Client struct {
	Maker   Maker
	Dialect Dialect
	Habits  []string // options of the peers' clients
	// Batch makes sealift read transfer.info, as the peers always do, where otherwise it is told by its arguments.
	Batch bool
	// OneRun makes sealift send all files with one command, where otherwise it is run for each.
	OneRun bool
	// Unknown has the client reconnect under an id that the server has never heard of.
	Unknown bool
}

func (c Client) String() string {
	words := []string{string(c.Maker), c.Dialect.String()}
	if c.Batch {
		words = append(words, "transfer.info")
	}
	if c.OneRun {
		words = append(words, "one run")
	}
	words = append(words, c.Habits...)
	if c.Unknown && !slices.Contains(c.Habits, underRejectedID) {
		words = append(words, "rejected")
	}
	return strings.Join(words, " ")
}

// A Server is a server program together with what it takes and how it errs.
type Server struct {
	Maker   Maker
	Dialect Dialect  // the only one that a peer takes; ignored by sealiftd, which takes all
	Quirks  []string // --quirk of the peers' servers, --fault of sealiftd
	// Unknown has clients reconnect under an id that the server has never heard of: for quirks of the 1606.
	Unknown bool
	// Fresh asks for a new server for each file: for faults that strike a number of times.
	Fresh bool
	// Keyless has sealiftd ask for no TLS keys of clients, so that several programs can be one client.
	Keyless bool
}

func (s Server) String() string {
	if s.Maker == Sealift {
		return strings.Join(append([]string{string(s.Maker)}, s.Quirks...), " ")
	}
	return strings.Join(append([]string{string(s.Maker), s.Dialect.String()}, s.Quirks...), " ")
}

// HabitualClients are the peers' clients that send a dialect as others do, but for one habit.
func HabitualClients(maker Maker) []Client {
	return []Client{
		{Maker: maker, Dialect: spec, Habits: []string{"--reverse"}},
		{Maker: maker, Dialect: spec, Habits: []string{"--shuffle"}},
		{Maker: maker, Dialect: padded, Habits: []string{"--shuffle"}},
		{Maker: maker, Dialect: perPacket, Habits: []string{"--reverse"}},
		{Maker: maker, Dialect: spec, Habits: []string{"--later-codes"}},
		{Maker: maker, Dialect: spec, Habits: []string{"--extra-packet"}},
		{Maker: maker, Dialect: padded, Habits: []string{"--extra-packet"}},
		{Maker: maker, Dialect: zeroBased, Habits: []string{"--extra-packet"}},
		{Maker: maker, Dialect: spec, Habits: []string{underRejectedID}, Unknown: true},
		{Maker: maker, Dialect: spec, Habits: []string{"--split-writes", "header"}},
		{Maker: maker, Dialect: spec, Habits: []string{"--split-writes", "bytes"}},
		{Maker: maker, Dialect: spec, Habits: []string{"--one-write"}},
		{Maker: maker, Dialect: perPacket, Habits: []string{"--one-write"}},
	}
}

// QuirkyServers are the peers' servers of the first dialect that differ from others in one quirk, or fail and recover.
func QuirkyServers(maker Maker) []Server {
	servers := []Server{
		{Quirks: []string{"header-size-0"}, Unknown: true},
		{Quirks: []string{"header-size-255"}, Unknown: true},
		{Quirks: []string{"empty-1606"}, Unknown: true},
		{Quirks: []string{"new-id-1606"}, Unknown: true},
		{Quirks: []string{"ack-1030", "spoil-crc=1"}, Fresh: true},
		{Quirks: []string{"close-after-1604"}},
		{Quirks: []string{"crc-size-ciphertext"}},
		{Quirks: []string{"crc-size-last-packet"}},
		{Quirks: []string{"needs-one-write"}},
		{Quirks: []string{"spoil-crc=3"}, Fresh: true},
		{Quirks: []string{"error=1025:3"}, Fresh: true},
		{Quirks: []string{"error=1026:3"}, Fresh: true},
		{Quirks: []string{"error=1028:3"}, Fresh: true},
		{Quirks: []string{"error=1029:3"}, Fresh: true},
		{Quirks: []string{"drop=1026:1"}, Fresh: true},
		{Quirks: []string{"drop=1028:1"}, Fresh: true},
		{Quirks: []string{"drop=1029:1"}, Fresh: true},
	}
	for i := range servers {
		servers[i].Maker, servers[i].Dialect = maker, spec
	}
	return servers
}

// MeInfoStyles are the forms of me.info in which the peers' clients write it on demand, their --me-info.
var MeInfoStyles = []string{"nul-padded", "upper-case", "dashed", "crlf", "blank-lines"}

// Sizes are those of the files, in bytes: the empty one, both sides of a block and of a packet, and some large ones.
var Sizes = []int{0, 1, 16, 500, 4000, 10_001, 65_536, 1_000_003}

// FewSizes are for when there is little time: nothing, and several packets in most dialects.
var FewSizes = []int{0, 10_001}
