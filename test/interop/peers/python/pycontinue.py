#!/usr/bin/env python3
"""A client that knows 1032 and 1608, written from docs/PROTOCOL.md, above all its section 15.

    pycontinue.py HOST:PORT NAME PATH [--segment BYTES] [--cut BYTES]

It keeps who it is in me.json, in the working directory. It asks how much of the file the server has,
compares, and sends the rest in segments. Prints one line per message, `sent CODE` or `received CODE`, and `offset N`
for each 1608, and exits with 0 when the server has acknowledged the file. With --cut it drops the connection after
so many bytes of content, and exits with 3.
"""
import argparse
import json
import os
import socket
import struct
import sys

import wire

CONTINUE, CONTINUED = 1032, 1608
CONTINUE_FIELDS = struct.Struct("<255sQ")  # file name, total size
CONTINUED_FIELDS = struct.Struct("<16s255sQI")  # client id, file name, offset, cksum
PACKET = 65536  # bytes of content


class Server:
    """A connection, and the id under which the client sends."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.id = bytes(16)

    def send(self, code, payload):
        print("sent", code, flush=True)
        self.socket.sendall(wire.REQUEST_HEADER.pack(self.id, wire.VERSION, code, len(payload)) + payload)

    def read(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                sys.exit("Fatal error: the server closed the connection")
            data += part
        return data

    def expect(self, *codes):
        _, code, size = wire.REPLY_HEADER.unpack(self.read(wire.REPLY_HEADER.size))
        print("received", code, flush=True)
        payload = self.read(size)
        if code not in codes:
            sys.exit(f"Fatal error: a {code} came where one of {codes} was due")
        return payload


def enter(server, name):
    """Registers, or comes back, and returns the AES key."""
    if os.path.exists("me.json"):
        with open("me.json", encoding="ascii") as file:
            me = json.load(file)
        private = wire.RSA.import_key(bytes.fromhex(me["key"]))
        server.id = bytes.fromhex(me["id"])
        server.send(wire.RECONNECT, wire.NAME.pack(me["name"].encode()))
        reply = server.expect(wire.RECONNECTED)
    else:
        private = wire.RSA.generate(1024, e=17)
        server.send(wire.REGISTER, wire.NAME.pack(name.encode()))
        server.id = server.expect(wire.REGISTERED)
        with open("me.json", "w", encoding="ascii") as file:
            json.dump({"name": name, "id": server.id.hex(), "key": private.export_key("DER").hex()}, file)
        server.send(wire.PUBLIC_KEY, wire.NAME_AND_KEY.pack(name.encode(), private.public_key().export_key("DER")))
        reply = server.expect(wire.AES_KEY)
    return wire.PKCS1_OAEP.new(private).decrypt(reply[16:])


def ask(server, name, data):
    """How many of the first bytes of data the server has. Where it has others, they are dropped first."""
    for _ in range(2):
        server.send(CONTINUE, CONTINUE_FIELDS.pack(name, len(data)))
        client_id, named, offset, checksum = CONTINUED_FIELDS.unpack(server.expect(CONTINUED))
        print("offset", offset, flush=True)
        if client_id != server.id or named.split(b"\0")[0] != name:
            sys.exit("Fatal error: the 1608 is about something else")
        if offset <= len(data) and wire.cksum(data[:offset]) == checksum:
            return offset
        server.send(wire.ABORT, wire.NAME.pack(name))
        server.expect(wire.ACK)
    sys.exit("Fatal error: the server has something else, and does not drop it")


def send_segment(server, key, name, segment, cut):
    """Sends a segment, as a transfer of its own: or the beginning of it, if cut is less than what it has."""
    cipher = wire.encrypt(key, segment)
    total = (len(cipher) + PACKET - 1) // PACKET
    for number in range(total):
        body = cipher[number * PACKET:(number + 1) * PACKET]
        if cut is not None and (number + 1) * PACKET > cut:
            sys.exit(3)
        server.send(wire.PACKET, wire.PACKET_FIELDS.pack(len(cipher), len(segment), number + 1, total, name) + body)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server")
    parser.add_argument("name")
    parser.add_argument("path")
    parser.add_argument("--segment", type=int, default=1 << 30, help="bytes of the file in a transfer")
    parser.add_argument("--cut", type=int, help="drop the connection after so many bytes of content")
    options = parser.parse_args()
    with open(options.path, "rb") as file:
        data = file.read()
    name = wire.file_name(options.path).encode("ascii")
    server = Server(options.server)
    key = enter(server, options.name)
    wrong = 0
    offset = ask(server, name, data)
    while offset < len(data) or not data:
        end = min(len(data), offset + options.segment)
        send_segment(server, key, name, data[offset:end], options.cut)
        size, _, checksum = wire.CRC_FIELDS.unpack(server.expect(wire.CRC))[1:]
        if size != end - offset:
            sys.exit(f"Fatal error: the 1603 has the size {size}, the segment {end - offset}")
        if checksum != wire.cksum(data[:end]):
            wrong += 1
            if wrong == 4:
                server.send(wire.ABORT, wire.NAME.pack(name))
                server.expect(wire.ACK)
                sys.exit("Fatal error: the checksum was wrong four times")
            server.send(wire.CRC_BAD, wire.NAME.pack(name))
            continue
        wrong = 0
        offset = end
        if offset < len(data):
            offset = ask(server, name, data)
        elif not data:
            break
    server.send(wire.CRC_OK, wire.NAME.pack(name))
    server.expect(wire.ACK)


if __name__ == "__main__":
    main()
