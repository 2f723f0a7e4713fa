package interop

import (
	"fmt"
	"io"
)

// A term is a word of the tables, and whom it stands for.
type term struct{ word, means string }

// The terms of each kind, in the order of docs/INTEROP.md. TestGlossary makes sure that none is missing.
var (
	dialectTerms = []term{
		{"spec", "those who read the documents as [PROTOCOL.md](PROTOCOL.md), 9.1, does: the file is encrypted as a whole and cut, the last packet is short. The peers cut at 1,024 bytes, `sealift` at 65,536"},
		{"single", "those who have no packets: everything in one message, 1 of 1"},
		{"padded 1024", "those who send a struct with a buffer of 1,024 bytes: the last packet is filled up with zeros"},
		{"padded 65269", "the same, where the whole payload of a packet has 65,536 bytes"},
		{"zero-based 1024", "`padded`, by those who number the packets as they count in a loop: from 0"},
		{"zero-based-short", "`spec` numbered from 0: the last packet is short"},
		{"per-packet 4096", "those who read, encrypt and send piece by piece: each packet of 4,096 bytes and its padding is decrypted on its own"},
		{"per-packet 4000", "the same with 4,000 bytes"},
		{"packet-size", "those for whom Content Size is the size of the content of this packet"},
	}
	habitTerms = []term{
		{"--reverse", "packets that come in the opposite order"},
		{"--shuffle", "packets that come in any order"},
		{"--later-codes", "clients of the later edition of the assignment: 825 to 828 and 900 to 902 for 1025 to 1031"},
		{"--extra-packet", "loops that end one too late: a packet past the last, empty or with a buffer of zeros"},
		{"--register-under-1606", "clients that answer a 1606 with a 1026 under its id, and not with a 1025"},
		{"--split-writes header", "clients that write header and payload one after the other"},
		{"--split-writes bytes", "the worst that a network may make of any client: every byte comes alone"},
		{"--one-write", "all packets of a file in one write"},
		{"--check-size", "clients that end when the Content Size of the 1603 is not the one that they sent last"},
		{"--no-total", "clients that divide the size of the file by that of a packet: an empty file has Total Packets 0"},
		{"--swapped", "clients that have Packet Number and Total Packets in each other's place"},
		{"--windows-path", "clients that name a file by a path of the system that they were built on: `client.cpp\\..\\..\\x64\\debug\\file`"},
		{"--big-endian", "clients that do not look at the byte order of their headers (a test of its own: they are refused, and the log says why)"},
		{"--me-info nul-padded", "clients that write the name as the field of 255 bytes that it is in the messages"},
		{"--me-info upper-case", "the hex digits of Crypto++'s HexEncoder, unless told otherwise"},
		{"--me-info dashed", "ids as Python's `str(uuid)` writes them"},
		{"--me-info crlf", "text files from Windows"},
		{"--me-info blank-lines", "lines that end with one line end too many"},
		{"--priv-key", "clients that keep the key in `priv.key` too, and read it from there (a test of its own: `sealift` keeps it in step)"},
	}
	quirkTerms = []term{
		{"header-size-0", "1600 and 1606 announce a payload of 0 bytes, and 16 follow"},
		{"header-size-255", "the same with 255 bytes, the size of a name"},
		{"empty-1606", "1606 has no payload"},
		{"new-id-1606", "1606 has a new id, under which the client may send a 1026"},
		{"ack-1030", "1604 in reply to a 1030, which has no reply"},
		{"close-after-1604", "the connection ends with the first file"},
		{"crc-size-ciphertext", "Content Size in the 1603 is that of the ciphertext"},
		{"crc-size-last-packet", "Content Size in the 1603 is that of the last packet"},
		{"needs-one-write", "servers that take what one read gives for a whole message: a header without its payload is an error"},
		{"later-codes", "servers of the later edition: 825 to 828 and 900 to 902, and 1607 for what has another number"},
		{"unknown-close", "a request with an unknown number ends the connection"},
		{"unknown-silent", "a request with an unknown number gets no reply"},
		{"registers-at-1606", "1606 has a new id, under which the name is registered: a 1025 finds it taken"},
		{"empty-1604", "1604 has no payload"},
		{"reads-once", "servers that call `recv` once for a header and once for a payload, and take what comes"},
		{"one-message-a-read", "servers for which a message is what one `recv` of 65,536 bytes gives: what comes too fast is lost"},
		{"busy=MS", "the server does something else for so many milliseconds after each packet"},
		{"serial", "one connection after the other"},
		{"fixed-read", "servers that read packets of one size, whatever the header says, and wait for the rest"},
		{"spoil-crc=N", "the first N checksums are wrong"},
		{"error=CODE:N", "the first N requests of that code get 1607"},
		{"drop=CODE:N", "the first N requests of that code end the connection"},
	}
)

// writeGlossary writes what stands below the tables.
func writeGlossary(w io.Writer) {
	fmt.Fprint(w, `## How to run it

With g++, Crypto++ and PyCryptodome (Debian: g++ libcrypto++-dev python3-pycryptodome):

`+"```sh"+`
go run ./test/interop/matrix -o docs/INTEROP.md
SEALIFT_INTEROP=1 go test ./test/interop
`+"```"+`

The first line makes this page, and ends with status 1 if anything fails. The second does the same with two sizes of
file, and runs the tests of the peers themselves, which show byte by byte that they are what the next section says.

## What each peer stands for

The clients read `+"`transfer.info` and `me.info`"+` and send one file; one in C++ breaks the Base64 of its key into lines
of 72, one in Python does not break it. The servers keep a thread for each client and everything but the files in memory,
take one dialect, and answer what is of another with 1607.

`)
	for _, table := range []struct {
		title string
		terms []term
	}{
		{"dialect", dialectTerms}, {"client's habit", habitTerms}, {"server's quirk", quirkTerms},
	} {
		fmt.Fprintf(w, "| %s | stands for |\n|:---|:---|\n", table.title)
		for _, t := range table.terms {
			fmt.Fprintf(w, "| `%s` | %s |\n", t.word, t.means)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "`one run`: all files with one command. `transfer.info`: `sealift` without arguments, as the peers' clients always run.\n"+
		"`rejected`: each file but the first begins with a 1606 and a new registration.\n")
}
