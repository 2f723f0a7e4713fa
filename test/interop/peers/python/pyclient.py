#!/usr/bin/env python3
"""A file transfer client as it is written with PyCryptodome: sends the one file that transfer.info names.

transfer.info and me.info are in the working directory. Prints one line per message, `sent CODE` or `received CODE`,
and exits with 0 when the server has acknowledged the file. A dialect is one reading of the documents, an option one
habit, of implementations in the field.
"""
import argparse
import base64
import os
import random
import socket
import sys
import uuid

import wire

ME_INFO_STYLES = ("nul-padded", "upper-case", "dashed", "crlf", "blank-lines")
ATTEMPTS = 4  # a message is sent once and then again up to three times


class Fatal(Exception):
    """Nothing more can be done; the text goes to standard error."""


class Connection:
    """A connection to the server that knows under which id and in which style this client sends."""

    def __init__(self, address, options):
        self.address, self.options = address, options
        self.client_id = bytes(16)
        self.socket = None
        self.connect()

    def connect(self):
        if self.socket:
            self.socket.close()
        self.socket = socket.create_connection(self.address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, code, *payloads):
        """Sends one message per payload."""
        if self.options.later_codes:
            code = wire.LATER_CODES[code]
        messages = []
        for payload in payloads:
            print("sent", code, flush=True)
            layout = wire.BIG_ENDIAN_HEADER if self.options.big_endian else wire.REQUEST_HEADER
            header = layout.pack(self.client_id, wire.VERSION, code, len(payload))
            messages.append((header, payload))
        if self.options.one_write:
            self.socket.sendall(b"".join(header + payload for header, payload in messages))
            return
        for header, payload in messages:
            if self.options.split_writes == "header":
                self.socket.sendall(header)
                self.socket.sendall(payload)
            elif self.options.split_writes == "bytes":
                for byte in header + payload:
                    self.socket.sendall(bytes((byte,)))
            else:
                self.socket.sendall(header + payload)

    def receive(self):
        """The code and the payload of the next reply."""
        _, code, size = wire.REPLY_HEADER.unpack(self.receive_exactly(wire.REPLY_HEADER.size))
        print("received", code, flush=True)
        if code == wire.REGISTERED:
            size = 16  # some servers announce 0 or 255
        if code == wire.REJECTED and size != 16:
            if not self.options.register_under_1606:
                self.connect()  # how much follows is anybody's guess: a new connection is in step again
                return code, b""
            size = 16
        return code, self.receive_exactly(size)

    def receive_exactly(self, size):
        data = bytearray()
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise Fatal("the server closed the connection")
            data += part
        return bytes(data)

    def ask(self, code, *payloads):
        """Sends and waits for the reply; after a 1607 sends again."""
        for _ in range(ATTEMPTS):
            self.send(code, *payloads)
            reply, payload = self.receive()
            while reply == wire.ACK and code == wire.PACKET:  # some servers acknowledge the 1030 before
                reply, payload = self.receive()
            if reply != wire.ERROR:
                return reply, payload
        raise Fatal("the server responded with an error")


def read_me_info(options):
    """Name, client id and private key, as this client or one in another language has written them."""
    with open("me.info", encoding="ascii") as file:
        lines = [line.strip("\0") for line in file.read().splitlines()]
    name, client_id, *key = [line for line in lines if line]
    der = base64.b64decode("".join(key))
    if options.priv_key:
        with open("priv.key", "rb") as file:
            der = file.read()
    return name, bytes.fromhex(client_id.replace("-", "")), wire.RSA.import_key(der)


def write_me_info(options, name, client_id, private_key):
    der = private_key.export_key("DER", pkcs=8)
    style = options.me_info
    lines = [name.ljust(255, "\0") if style == "nul-padded" else name,
             str(uuid.UUID(bytes=client_id)) if style == "dashed" else client_id.hex(),
             base64.b64encode(der).decode("ascii")]
    if style == "upper-case":
        lines[1] = lines[1].upper()
    if style == "blank-lines":
        lines = [line + "\n" for line in lines]
    with open("me.info", "w", encoding="ascii", newline="\r\n" if style == "crlf" else "\n",
              opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.writelines(line + "\n" for line in lines)
    if options.priv_key:
        with open("priv.key", "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(der)


def send_public_key(connection, name, private_key):
    """1026; returns the AES key."""
    public_key = private_key.public_key().export_key("DER")
    code, payload = connection.ask(wire.PUBLIC_KEY, wire.NAME_AND_KEY.pack(name.encode("ascii"), public_key))
    if code != wire.AES_KEY:
        raise Fatal(f"1026 was answered with {code}")
    return wire.PKCS1_OAEP.new(private_key).decrypt(payload[16:])


def register(connection, options, name):
    """1025 and 1026; returns the AES key."""
    connection.client_id = bytes(16)
    code, payload = connection.ask(wire.REGISTER, wire.NAME.pack(name.encode("ascii")))
    if code != wire.REGISTERED:
        raise Fatal(f"1025 was answered with {code}")
    connection.client_id = payload
    # The exponent 17 is what Crypto++ uses, and what makes the X.509 form 160 bytes long.
    private_key = wire.RSA.generate(1024, e=17)
    write_me_info(options, name, payload, private_key)
    return send_public_key(connection, name, private_key)


def reconnect(connection, options):
    """1027; returns the AES key, after a new registration if the server does not know this client any more."""
    name, connection.client_id, private_key = read_me_info(options)
    code, payload = connection.ask(wire.RECONNECT, wire.NAME.pack(name.encode("ascii")))
    if code == wire.RECONNECTED:
        return wire.PKCS1_OAEP.new(private_key).decrypt(payload[16:])
    if code != wire.REJECTED:
        raise Fatal(f"1027 was answered with {code}")
    if options.register_under_1606:
        connection.client_id = payload
        write_me_info(options, name, payload, private_key)
        return send_public_key(connection, name, private_key)
    os.remove("me.info")
    return register(connection, options, name)


def split(data, size):
    """Pieces of size bytes, the last one shorter; one empty piece if there is no data."""
    return [data[at:at + size] for at in range(0, len(data), size)] or [b""]


def packets(options, key, name, data):
    """The payloads of the 1028s that carry the file."""
    if options.dialect == "per-packet":
        pieces = split(data, options.packet or 4096)
        bodies = [wire.encrypt(key, piece) for piece in pieces]
        sizes = [(len(body), len(piece)) for body, piece in zip(bodies, pieces)]
    else:
        cipher = wire.encrypt(key, data)
        size = len(cipher) if options.dialect == "single" else options.packet or 1024
        bodies = split(cipher, size)
        sizes = [(len(cipher), len(data))] * len(bodies)
        if options.dialect == "packet-size":
            sizes = [(len(body), len(data)) for body in bodies]
        if options.dialect in ("padded", "zero-based"):
            bodies[-1] = bodies[-1].ljust(size, b"\0")

    total = len(bodies)
    first = wire.first_number(options.dialect)
    numbers = list(range(first, first + total))
    if options.extra_packet:  # a loop that ends one too late reads at the end of the file: nothing, or an old buffer
        numbers.append(first + total)
        bodies.append(bytes(len(bodies[0])) if options.dialect == "padded" else b"")
        sizes.append(sizes[-1])
    if options.no_total:  # the size of the file divided by that of a packet, rounded up: nothing makes no packets
        total = 0 if not data else total
    fields = [(content, orig, total, number) if options.swapped else (content, orig, number, total)
              for (content, orig), number in zip(sizes, numbers)]
    messages = [wire.PACKET_FIELDS.pack(*field, name.encode("ascii")) + body for field, body in zip(fields, bodies)]
    if options.reverse:
        messages.reverse()
    if options.shuffle:
        random.Random(1256).shuffle(messages)
    return messages


def transfer(connection, options, key, path):
    """1028 until the server's checksum is right, then 1029; 1031 after the fourth wrong one."""
    with open(path, "rb") as file:
        data = file.read()
    name = wire.file_name(path)
    if options.windows_path:  # how a project names a file of its own, where it was built
        name = "client.cpp\\..\\..\\x64\\debug\\" + name
    checksum = wire.cksum(data)
    print("cksum", checksum)
    messages = packets(options, key, name, data)
    for attempt in range(ATTEMPTS):
        code, payload = connection.ask(wire.PACKET, *messages)
        if code != wire.CRC:
            raise Fatal(f"1028 was answered with {code}")
        if options.check_size and payload[16:20] != messages[-1][:4]:
            raise Fatal("the Content Size of the 1603 is not that of the last packet")
        if wire.CRC_FIELDS.unpack(payload)[3] == checksum:
            code, _ = connection.ask(wire.CRC_OK, wire.NAME.pack(name.encode("ascii")))
            if code != wire.ACK:
                raise Fatal(f"1029 was answered with {code}")
            return
        if attempt < ATTEMPTS - 1:
            connection.send(wire.CRC_BAD, wire.NAME.pack(name.encode("ascii")))
    connection.ask(wire.ABORT, wire.NAME.pack(name.encode("ascii")))
    raise Fatal("the checksum was wrong four times")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialect", choices=wire.DIALECTS, default="spec")
    parser.add_argument("--packet", type=int, help="bytes of body in a packet (per-packet: of plaintext)")
    parser.add_argument("--reverse", action="store_true", help="send the last packet first")
    parser.add_argument("--shuffle", action="store_true", help="send the packets in a random order")
    parser.add_argument("--later-codes", action="store_true", help="number the requests 825 to 902")
    parser.add_argument("--check-size", action="store_true", help="end if the 1603 has not the Content Size that was sent last")
    parser.add_argument("--no-total", action="store_true", help="count no packets for an empty file")
    parser.add_argument("--swapped", action="store_true", help="put number and total into each other's place")
    parser.add_argument("--windows-path", action="store_true", help="send a name with a path of another system")
    parser.add_argument("--big-endian", action="store_true", help="write the numbers of headers in big-endian")
    parser.add_argument("--extra-packet", action="store_true", help="send one packet more after the last")
    parser.add_argument("--register-under-1606", action="store_true", help="answer a 1606 with 1026 under its id")
    parser.add_argument("--split-writes", choices=("header", "bytes"), help="write headers, or all bytes, one by one")
    parser.add_argument("--one-write", action="store_true", help="write all packets of a transfer at once")
    parser.add_argument("--me-info", choices=ME_INFO_STYLES, help="how me.info is written, if not as the documents say")
    parser.add_argument("--priv-key", action="store_true", help="keep the private key in priv.key, in DER, too")
    options = parser.parse_args()
    try:
        with open("transfer.info", encoding="ascii") as file:
            address, name, path = file.read().splitlines()[:3]
        host, port = address.rsplit(":", 1)
        connection = Connection((host, int(port)), options)
        if os.path.exists("me.info"):
            key = reconnect(connection, options)
        else:
            key = register(connection, options, name)
        transfer(connection, options, key, path)
    except (Fatal, OSError, ValueError) as error:
        sys.exit(f"Fatal error: {error}")


if __name__ == "__main__":
    main()
