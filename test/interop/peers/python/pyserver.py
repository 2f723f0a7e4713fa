#!/usr/bin/env python3
"""A file transfer server as it is written with PyCryptodome: a thread per client, everything but the files in RAM.

Takes one dialect and answers what is not of that dialect with 1607. Prints `listening HOST:PORT` when it is ready;
logs one line per message, `received CODE` or `sent CODE`, the reply before it goes out. Files are stored as
DIR/files/CLIENT-ID/NAME. Quirks are habits of servers in the field, faults play a server that fails:

  header-size-0, header-size-255  1600 and 1606 announce so many bytes, and 16 follow
  ack-1030                        1604 in reply to a 1030
  close-after-1604                the connection ends with the first acknowledged file
  crc-size-ciphertext             1603's Content Size is that of the whole ciphertext
  crc-size-last-packet            1603's Content Size is that of the last packet received
  empty-1606                      1606 without a payload
  new-id-1606                     1606 with a fresh id, under which the client may send 1026
  needs-one-write                 1607 and the end if the first bytes received do not hold more than the header
  later-codes                     the requests are numbered 825 to 902, and not otherwise
  unknown-silent, unknown-close   a request with an unknown number gets no reply, or ends the connection
  registers-at-1606               1606 with a fresh id, under which the name is registered from then on
  empty-1604                      1604 without a payload
  reads-once                      header and payload are what one recv each gives
  one-message-a-read              a message is what one recv of 65,536 bytes gives, no more and no less
  busy=MS                         it does something else for so long after each 1028
  serial                          one connection after the other
  fixed-read                      the body of a 1028 has --packet bytes, whatever its header says
  reject=N                        the first N 1027s are rejected and their clients forgotten
  error=CODE:N                    the first N requests of this code get 1607 (1028: the first N files)
  spoil-crc=N                     the first N checksums are wrong
  drop=CODE:N                     the first N requests of this code end the connection
                                  (N = -1: all of them)
"""
import argparse
import os
import socket
import struct
import sys
import threading
import time
import uuid

import wire

QUIRKS = ("header-size-0", "header-size-255", "ack-1030", "close-after-1604", "crc-size-ciphertext",
          "crc-size-last-packet", "empty-1606", "new-id-1606", "needs-one-write", "later-codes", "unknown-silent",
          "unknown-close", "registers-at-1606", "empty-1604", "reads-once", "one-message-a-read", "serial", "fixed-read")
FAULTS = ("reject", "error", "spoil-crc", "drop")
MAX_PAYLOAD = 64 << 20


class Disconnected(Exception):
    """This connection is over."""


class Ignored(Exception):
    """The request gets no reply."""


class Refused(Exception):
    """The request gets 1607; the text goes to the log."""


class Client:
    """What the server remembers of a client."""

    def __init__(self, name):
        self.name = name
        self.public_key = None
        self.aes_key = None


class Server:
    """What all connections share."""

    def __init__(self, options):
        self.dialect, self.packet, self.directory = options.dialect, options.packet, options.dir
        self.lock = threading.Lock()
        self.clients = {}  # by id
        self.log_file = open(options.log, "a", encoding="ascii") if options.log else sys.stderr
        self.quirks = set()
        self.busy = 0  # seconds after each 1028
        self.faults = {}  # "reject" or "error 1028" -> how many are left
        for quirk in options.quirk:
            self.add_quirk(quirk)

    def add_quirk(self, quirk):
        name, _, value = quirk.partition("=")
        if quirk in QUIRKS:
            self.quirks.add(quirk)
        elif name == "busy" and value:
            self.busy = int(value) / 1000
        elif name in ("reject", "spoil-crc") and value:
            self.faults[name] = int(value)
        elif name in ("error", "drop") and ":" in value:
            code, times = value.split(":")
            self.faults[f"{name} {int(code)}"] = int(times)
        else:
            raise ValueError(f"unknown quirk {quirk!r}")

    def strikes(self, fault):
        """Whether the fault happens this time."""
        with self.lock:
            left = self.faults.get(fault, 0)
            self.faults[fault] = max(left - 1, -1) if left > 0 else left
            return left != 0

    def log(self, *words):
        with self.lock:
            print(*words, file=self.log_file, flush=True)

    def register(self, client_id, name):
        """Whether the name was free and now belongs to this id."""
        with self.lock:
            if not name or any(client.name == name for client in self.clients.values()):
                return False
            self.clients[client_id] = Client(name)
            return True

    def path(self, client_id, name):
        directory = os.path.join(self.directory, "files", client_id.hex())
        os.makedirs(directory, exist_ok=True)
        name = wire.file_name(name)
        if name in ("", ".", ".."):
            raise Refused("that is no file name")
        return os.path.join(directory, name)


class Transfer:
    """The packets of one file."""

    def __init__(self, server, key, orig, total):
        self.server, self.key, self.orig, self.total = server, key, orig, total
        self.cipher_size = wire.ciphertext_size(orig)
        self.bodies = {}  # by number
        self.last_size = 0

    def add(self, content, orig, number, total, body):
        """Takes a packet that is of the server's dialect, and no other."""
        dialect = self.server.dialect
        first = wire.first_number(dialect)
        if total != self.total or not first <= number < first + total:
            raise Refused(f"packet {number} of {total}")
        cipher_size = wire.ciphertext_size(orig)
        fits = {
            "spec": content == cipher_size and len(body) <= content,
            "single": content == cipher_size == len(body) and total == 1,
            "padded": content == cipher_size and len(body) == self.server.packet,
            "zero-based": content == cipher_size and len(body) == self.server.packet,
            "zero-based-short": content == cipher_size and len(body) <= content,
            "per-packet": content == cipher_size == len(body),
            "packet-size": content == len(body) and orig == self.orig,
        }
        if not fits[dialect]:
            raise Refused(f"not {dialect}: content {content}, original {orig}, body {len(body)}")
        self.bodies[number] = body
        self.last_size = content if dialect == "packet-size" else len(body)

    def is_complete(self):
        return len(self.bodies) == self.total

    def plaintext(self):
        """The file; ValueError if it does not decrypt."""
        bodies = [self.bodies[number] for number in sorted(self.bodies)]
        if self.server.dialect == "per-packet":
            return b"".join(wire.decrypt(self.key, body) for body in bodies)
        cipher = b"".join(bodies)
        if self.server.dialect in ("padded", "zero-based"):
            if self.total != -(-self.cipher_size // self.server.packet):
                raise Refused(f"{self.total} packets for {self.cipher_size} bytes")
            cipher = cipher[:self.cipher_size]
        if len(cipher) != self.cipher_size:
            raise Refused(f"{len(cipher)} bytes of ciphertext for a file of {self.orig}")
        return wire.decrypt(self.key, cipher)


class Connection:
    """One client's connection, on its own thread."""

    def __init__(self, server, sock):
        self.server, self.socket = server, sock
        self.buffer = bytearray()
        self.replied = True  # nothing has come since the last reply
        self.client_id = bytes(16)  # from the header of the request being served
        self.offered_id = None  # the id in a 1606
        self.transfers = {}  # by file name
        self.finished = set()  # file names

    def run(self):
        try:
            while True:
                code, payload = self.receive()
                try:
                    self.serve(code, payload)
                except Ignored:
                    pass
                except (Refused, ValueError, KeyError, OSError, struct.error) as error:
                    self.server.log("#", error)
                    self.reply(wire.ERROR)
        except (Disconnected, OSError):
            pass
        finally:
            self.socket.close()

    # Messages

    def fill(self, size):
        while len(self.buffer) < size:
            part = self.socket.recv(65536)
            if not part:
                raise Disconnected
            if self.replied and not self.buffer and len(part) <= wire.REQUEST_HEADER.size:
                if "needs-one-write" in self.server.quirks:
                    self.reply(wire.ERROR)
                    raise Disconnected
            self.replied = False
            self.buffer += part

    def take(self, size):
        if "reads-once" in self.server.quirks:
            return self.read_once(size)
        if "one-message-a-read" in self.server.quirks and not self.buffer:
            self.buffer += self.read_once(65536)
        else:
            self.fill(size)
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def read_once(self, size):
        """What comes next, at most so many bytes."""
        data = self.socket.recv(size) if size else b""
        if size and not data:
            raise Disconnected
        return data

    def receive(self):
        header = self.take(wire.REQUEST_HEADER.size)
        if len(header) < wire.REQUEST_HEADER.size:  # read once
            self.reply(wire.ERROR)
            raise Disconnected
        self.client_id, version, code, size = wire.REQUEST_HEADER.unpack(header)
        self.server.log("received", code)
        if version != wire.VERSION or size > MAX_PAYLOAD:
            self.reply(wire.ERROR)
            raise Disconnected
        if "later-codes" in self.server.quirks:
            code = {later: code for code, later in wire.LATER_CODES.items()}.get(code)
        if "fixed-read" in self.server.quirks and code == wire.PACKET:
            size = wire.PACKET_FIELDS.size + self.server.packet
        if "one-message-a-read" in self.server.quirks:  # what does not belong to it is lost
            payload, self.buffer = bytes(self.buffer[:size]), bytearray()
            return code, payload
        return code, self.take(size)

    def reply(self, code, payload=b"", announced=None):
        self.server.log("sent", code)
        size = len(payload) if announced is None else announced
        self.replied = True
        self.socket.sendall(wire.REPLY_HEADER.pack(wire.VERSION, code, size) + payload)

    def reply_with_id(self, code, client_id):
        """1600 and 1606, whose sizes are what servers get wrong."""
        announced = next((size for size in (0, 255) if f"header-size-{size}" in self.server.quirks), None)
        self.reply(code, client_id, announced)

    def serve(self, code, payload):
        if self.server.strikes(f"drop {code}"):
            raise Disconnected
        if code != wire.PACKET and self.server.strikes(f"error {code}"):
            raise Refused("as told")
        handlers = {wire.REGISTER: self.register, wire.PUBLIC_KEY: self.public_key, wire.RECONNECT: self.reconnect,
                    wire.PACKET: self.packet, wire.CRC_OK: self.crc_ok, wire.CRC_BAD: self.crc_bad,
                    wire.ABORT: self.abort}
        if code not in handlers and "unknown-silent" in self.server.quirks:
            raise Ignored
        if code not in handlers and "unknown-close" in self.server.quirks:
            raise Disconnected
        handlers[code](payload)

    # Requests

    def register(self, payload):
        name = wire.text(wire.NAME.unpack(payload.ljust(255, b"\0"))[0])
        client_id = uuid.uuid4().bytes
        if self.server.register(client_id, name):
            self.reply_with_id(wire.REGISTERED, client_id)
        else:
            self.reply(wire.REFUSED)

    def public_key(self, payload):
        name, public_key = wire.NAME_AND_KEY.unpack(payload)
        if self.client_id == self.offered_id and self.client_id not in self.server.clients:
            if not self.server.register(self.client_id, wire.text(name)):
                raise Refused("that name is taken")
        client = self.server.clients[self.client_id]
        client.public_key = public_key
        self.send_aes_key(wire.AES_KEY, client)

    def reconnect(self, payload):
        name = wire.text(wire.NAME.unpack(payload)[0])
        if self.server.strikes("reject"):
            with self.server.lock:
                self.server.clients.pop(self.client_id, None)
        client = self.server.clients.get(self.client_id)
        if client and client.public_key:
            self.send_aes_key(wire.RECONNECTED, client)
            return
        new_id = "new-id-1606" in self.server.quirks or "registers-at-1606" in self.server.quirks
        self.offered_id = uuid.uuid4().bytes if new_id else self.client_id
        if "registers-at-1606" in self.server.quirks:
            self.server.register(self.offered_id, name)
        self.reply_with_id(wire.REJECTED, b"" if "empty-1606" in self.server.quirks else self.offered_id)

    def send_aes_key(self, code, client):
        client.aes_key = os.urandom(32)
        public_key = wire.RSA.import_key(client.public_key)
        self.reply(code, self.client_id + wire.PKCS1_OAEP.new(public_key).encrypt(client.aes_key))

    def packet(self, payload):
        time.sleep(self.server.busy)
        content, orig, number, total, field = wire.PACKET_FIELDS.unpack_from(payload)
        name = wire.text(field)
        client = self.server.clients[self.client_id]
        if not client.aes_key:
            raise Refused("no AES key yet")
        last = total - 1 + wire.first_number(self.server.dialect)
        if number > last and name in self.finished and name not in self.transfers:
            return  # the one packet too many that some clients send
        transfer = self.transfers.setdefault(name, Transfer(self.server, client.aes_key, orig, total))
        try:
            transfer.add(content, orig, number, total, payload[wire.PACKET_FIELDS.size:])
            if not transfer.is_complete():
                return
            del self.transfers[name]
            if self.server.strikes("error 1028"):
                raise Refused("as told")
            plain = transfer.plaintext()
        except (Refused, ValueError):
            self.transfers.pop(name, None)
            raise
        with open(self.server.path(self.client_id, name), "wb") as file:
            file.write(plain)
        self.finished.add(name)
        size = len(plain)
        if "crc-size-ciphertext" in self.server.quirks:
            size = transfer.cipher_size
        if "crc-size-last-packet" in self.server.quirks:
            size = transfer.last_size
        checksum = wire.cksum(plain) ^ (1 if self.server.strikes("spoil-crc") else 0)
        self.reply(wire.CRC, wire.CRC_FIELDS.pack(self.client_id, size, field, checksum))

    def crc_ok(self, payload):
        wire.NAME.unpack(payload)
        self.acknowledge()

    def crc_bad(self, payload):
        self.remove(payload)
        if "ack-1030" in self.server.quirks:
            self.acknowledge()

    def abort(self, payload):
        self.remove(payload)
        self.acknowledge()

    def remove(self, payload):
        path = self.server.path(self.client_id, wire.text(wire.NAME.unpack(payload)[0]))
        if os.path.exists(path):
            os.remove(path)

    def acknowledge(self):
        self.reply(wire.ACK, b"" if "empty-1604" in self.server.quirks else self.client_id)
        if "close-after-1604" in self.server.quirks:
            raise Disconnected


def read_promptly():
    """For servers that take for a message what one read gives: that is to depend on the pauses of the client, and not on
    how busy the machine is. Not every system allows it, and it is needed on a busy one only. New threads inherit it."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", default=".", help="where files/ goes")
    parser.add_argument("--listen", default="127.0.0.1:1256", metavar="HOST:PORT", help="port 0: any free one")
    parser.add_argument("--log", metavar="FILE", help="instead of standard error")
    parser.add_argument("--dialect", choices=wire.DIALECTS, default="spec")
    parser.add_argument("--packet", type=int, default=1024, help="bytes of body in each packet (padded, zero-based)")
    parser.add_argument("--quirk", action="append", default=[], metavar="QUIRK", help="see above; may be repeated")
    options = parser.parse_args()
    try:
        server = Server(options)
        if server.quirks & {"reads-once", "one-message-a-read"}:
            read_promptly()
        host, port = options.listen.rsplit(":", 1)
        listener = socket.create_server((host, int(port)), backlog=128)
    except (ValueError, OSError) as error:
        sys.exit(f"Fatal error: {error}")
    print("listening %s:%d" % listener.getsockname(), flush=True)
    while True:
        sock, _ = listener.accept()
        if "serial" in server.quirks:
            Connection(server, sock).run()
        else:
            threading.Thread(target=Connection(server, sock).run, daemon=True).start()


if __name__ == "__main__":
    main()
