#!/usr/bin/env python3
"""A server as the protocol documents describe it: Python, the selectors module,
PyCryptodome, and SQLite as the documents' extra feature.

It is what Sealift is measured against, so it is written to be fast in the ways
that its language offers: one buffer for all connections, memoryviews, content
decrypted and written as it comes in, the checksum through zlib. It
takes packets in order, which is how the load generator and the clients of the
documents send them.

    server.py --dir DIR [--sqlite] [--fsync]

It prints its address and serves until its standard input ends.
"""

import argparse
import os
import secrets
import selectors
import socket
import sqlite3
import struct
import sys
import time
import uuid
import zlib

try:  # Debian's package
    from Cryptodome.Cipher import AES, PKCS1_OAEP
    from Cryptodome.PublicKey import RSA
except ImportError:  # the package of PyPI
    from Crypto.Cipher import AES, PKCS1_OAEP
    from Crypto.PublicKey import RSA

VERSION = 3
REGISTER, PUBLIC_KEY, RECONNECT, SEND_FILE, CRC_OK, CRC_BAD, ABORT = range(1025, 1032)
REGISTERED, REGISTER_FAILED, AES_KEY, FILE_RECEIVED, ACK, RECONNECTED, REJECTED, ERROR = range(1600, 1608)

REQUEST = struct.Struct("<16sBHI")
REPLY = struct.Struct("<BHI")
SEND_FIELDS = struct.Struct("<IIHH255s")
NAME_SIZE = 255
PAYLOAD = {REGISTER: NAME_SIZE, PUBLIC_KEY: NAME_SIZE + 160, RECONNECT: NAME_SIZE,
           CRC_OK: NAME_SIZE, CRC_BAD: NAME_SIZE, ABORT: NAME_SIZE}
ZERO_IV = bytes(16)
BUFFER = 1 << 20
PLAIN = memoryview(bytearray(BUFFER))  # decrypted content on its way to a file

# POSIX cksum is the CRC-32 of zlib with the bits of each byte, and of the
# result, in the other order.
REVERSED = bytes(int(f"{b:08b}"[::-1], 2) for b in range(256))


class Cksum:
    def __init__(self):
        self.state, self.size = 0xFFFFFFFF, 0

    def update(self, view):
        self.state = zlib.crc32(bytes(view).translate(REVERSED), self.state)
        self.size += len(view)

    def value(self):
        n = self.size
        tail = n.to_bytes((n.bit_length() + 7) // 8, "little").translate(REVERSED)
        return int(f"{zlib.crc32(tail, self.state):032b}"[::-1], 2)


class ProtocolError(Exception):
    """Answered with 1607; the connection ends."""


class Memory:
    """The registry of the documents' basic version."""

    def __init__(self):
        self.clients, self.names = {}, set()

    def add(self, cid, name):
        if name in self.names:
            return False
        self.names.add(name)
        self.clients[cid] = [name, None, None]
        return True

    def get(self, cid):
        return self.clients.get(cid)

    def set_keys(self, cid, public, aes):
        self.clients[cid][1:] = [public, aes]

    def put_file(self, cid, name, path):
        pass

    def verify_file(self, cid, name):
        pass


class SQLite:
    """The registry of the documents' extra feature. Each change is committed."""

    def __init__(self, path, durable):
        self.db = db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        db.execute("CREATE TABLE clients (ID BLOB PRIMARY KEY, Name TEXT UNIQUE, PublicKey BLOB, LastSeen TEXT, AESKey BLOB)")
        db.execute("CREATE TABLE files (ID BLOB, FileName TEXT, PathName TEXT, Verified INTEGER, PRIMARY KEY (ID, FileName))")

    def add(self, cid, name):
        try:
            self.db.execute("INSERT INTO clients (ID, Name, LastSeen) VALUES (?, ?, ?)", (cid, name, time.time()))
        except sqlite3.IntegrityError:
            return False
        return True

    def get(self, cid):
        return self.db.execute("SELECT Name, PublicKey, AESKey FROM clients WHERE ID = ?", (cid,)).fetchone()

    def set_keys(self, cid, public, aes):
        self.db.execute("UPDATE clients SET PublicKey = ?, AESKey = ?, LastSeen = ? WHERE ID = ?", (public, aes, time.time(), cid))

    def put_file(self, cid, name, path):
        self.db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, 0)", (cid, name, path))

    def verify_file(self, cid, name):
        self.db.execute("UPDATE files SET Verified = 1 WHERE ID = ? AND FileName = ?", (cid, name))


class Upload:
    """A file that is being received."""

    def __init__(self, conn, name, ciphertext, orig, total):
        self.name, self.ciphertext, self.orig, self.total = name, ciphertext, orig, total
        self.next, self.left = 1, ciphertext
        self.aes = AES.new(conn.key, AES.MODE_CBC, iv=ZERO_IV)
        self.sum = Cksum()
        self.carry = b""  # of a cipher block that the network split
        self.path = conn.server.incoming(conn.id)
        self.file = open(self.path, "wb", buffering=0)

    def take(self, view):
        """Decrypts view and stores it."""
        self.left -= len(view)
        if self.left < 0:
            raise ProtocolError("more content than was announced")
        if self.carry:
            head = 16 - len(self.carry)
            self.carry += view[:head]
            view = view[head:]
            if len(self.carry) < 16:
                return
            block, self.carry = self.carry, b""
            self.whole(block, self.left == 0 and not view)
        whole = len(view) & ~15
        if whole < len(view):
            self.carry = bytes(view[whole:])
            view = view[:whole]
        if view:
            self.whole(view, self.left == 0)

    def whole(self, blocks, last):
        view = PLAIN[:len(blocks)]  # PyCryptodome does not decrypt in place
        self.aes.decrypt(blocks, output=view)
        if last:
            pad = view[-1]
            if not 1 <= pad <= 16 or view[-pad:] != bytes([pad]) * pad:
                raise ProtocolError("bad padding")
            view = view[:-pad]
        self.sum.update(view)
        while view:
            view = view[self.file.write(view):]


class Connection:
    def __init__(self, server, sock):
        self.server, self.sock = server, sock
        self.id = self.name = self.key = None
        self.uploads, self.received = {}, {}
        self.inbox = bytearray()  # of a header, or of a payload that is not content
        self.header = None
        self.current, self.content = None, 0  # the upload and what is left of its packet
        self.out = b""

    def feed(self, view):
        while view:
            if self.content:
                piece = view[:self.content]
                view = view[len(piece):]
                self.content -= len(piece)
                self.current.take(piece)
                if not self.content:
                    self.end_packet()
                continue
            if self.header is None:
                need = REQUEST.size
            else:
                need = SEND_FIELDS.size if self.header[2] == SEND_FILE else self.header[3]
            take = need - len(self.inbox)
            self.inbox += view[:take]
            view = view[take:]
            if len(self.inbox) < need:
                return
            field, self.inbox = bytes(self.inbox), bytearray()
            if self.header is None:
                self.header = REQUEST.unpack(field)
                self.check_header()
            else:
                header, self.header = self.header, None
                self.request(header, field)

    def check_header(self):
        _, version, code, size = self.header
        if version != VERSION:
            raise ProtocolError("version")
        if code == SEND_FILE:
            if size <= SEND_FIELDS.size:
                raise ProtocolError("size")
        elif PAYLOAD.get(code) != size:
            raise ProtocolError("code or size")

    def request(self, header, payload):
        cid, _, code, size = header
        if code == REGISTER:
            self.register(text(payload))
            return
        if code == RECONNECT:
            self.reconnect(cid, text(payload))
            return
        if self.id != cid:
            raise ProtocolError("another client id")
        if code == PUBLIC_KEY:
            self.exchange(AES_KEY, payload[NAME_SIZE:])
        elif code == SEND_FILE:
            self.packet(payload, size - SEND_FIELDS.size)
        elif code == CRC_OK:
            self.verified(text(payload))
        elif code == CRC_BAD:
            self.received.pop(text(payload), None)
        else:
            self.received.pop(text(payload), None)
            self.reply(ACK, self.id)

    def register(self, name):
        cid = uuid.uuid4().bytes
        if not self.server.registry.add(cid, name):
            self.reply(REGISTER_FAILED)
            return
        self.id, self.name = cid, name
        self.reply(REGISTERED, cid)

    def reconnect(self, cid, name):
        row = self.server.registry.get(cid)
        if row is None or row[0] != name or row[1] is None:
            self.reply(REJECTED, cid)
            return
        self.id, self.name = cid, name
        self.exchange(RECONNECTED, row[1])

    def exchange(self, code, public):
        self.key = secrets.token_bytes(32)
        try:
            wrapped = PKCS1_OAEP.new(RSA.import_key(public)).encrypt(self.key)
        except (ValueError, TypeError) as e:
            raise ProtocolError("public key") from e
        self.server.registry.set_keys(self.id, public, self.key)
        self.reply(code, self.id + wrapped)

    def packet(self, fields, body):
        ciphertext, orig, number, total, name = SEND_FIELDS.unpack(fields)
        name = text(name)
        if self.key is None or ciphertext != (orig // 16 + 1) * 16:
            raise ProtocolError("sizes")
        if number == 1:
            self.uploads[name] = Upload(self, name, ciphertext, orig, total)
        up = self.uploads.get(name)
        if up is None or up.next != number or number > total:
            raise ProtocolError("order of packets")
        up.next += 1
        self.current, self.content = up, body

    def end_packet(self):
        up, self.current = self.current, None
        if up.next <= up.total:
            return
        del self.uploads[up.name]
        up.file.close()
        if up.left or up.sum.size != up.orig:
            raise ProtocolError("the file is not whole")
        self.server.registry.put_file(self.id, up.name, up.path)
        self.received[up.name] = up.path
        name = up.name.encode("ascii").ljust(NAME_SIZE, b"\0")
        self.reply(FILE_RECEIVED, self.id + struct.pack("<I", up.sum.size) + name + struct.pack("<I", up.sum.value()))

    def verified(self, name):
        path = self.received.pop(name, None)
        if path is None:
            raise ProtocolError("no such file")
        self.server.keep(path, self.id, name)
        self.server.registry.verify_file(self.id, name)
        self.reply(ACK, self.id)

    def reply(self, code, payload=b""):
        self.out += REPLY.pack(VERSION, code, len(payload)) + payload


def text(field):
    """The ASCII before the null of a field."""
    end = field.find(b"\0")
    if end <= 0:
        raise ProtocolError("name")
    try:
        return field[:end].decode("ascii")
    except UnicodeDecodeError as e:
        raise ProtocolError("name") from e


class Server:
    def __init__(self, directory, registry, fsync):
        self.directory, self.registry, self.fsync = directory, registry, fsync
        self.folders = set()
        self.selector = selectors.DefaultSelector()
        self.buffer = memoryview(bytearray(BUFFER))
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.serial = 0

    def folder(self, cid):
        path = os.path.join(self.directory, cid.hex())
        if cid not in self.folders:
            os.makedirs(path, exist_ok=True)
            if self.fsync:
                sync(self.directory)
            self.folders.add(cid)
        return path

    def incoming(self, cid):
        self.serial += 1
        return os.path.join(self.folder(cid), f".{self.serial}")

    def keep(self, path, cid, name):
        if "/" in name or name.startswith("."):
            raise ProtocolError("file name")
        folder = self.folder(cid)
        if self.fsync:
            sync(path)
        os.rename(path, os.path.join(folder, name))
        if self.fsync:
            sync(folder)

    def run(self):
        print(f"{self.listener.getsockname()[0]}:{self.listener.getsockname()[1]}", flush=True)
        self.selector.register(sys.stdin, selectors.EVENT_READ, None)
        while True:
            for key, events in self.selector.select():
                if key.data is not None:
                    self.serve(key.data, events)
                elif key.fileobj is self.listener:
                    self.accept()
                elif not os.read(sys.stdin.fileno(), 4096):
                    return

    def accept(self):
        for _ in range(64):
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(sock, selectors.EVENT_READ, Connection(self, sock))

    def serve(self, conn, events):
        try:
            if events & selectors.EVENT_READ:
                n = conn.sock.recv_into(self.buffer)
                if n == 0:
                    self.close(conn)
                    return
                conn.feed(self.buffer[:n])
            self.flush(conn)
        except BlockingIOError:
            pass
        except ProtocolError as e:
            print(f"refused: {e}", file=sys.stderr)
            conn.reply(ERROR)
            try:
                self.flush(conn)
            except OSError:
                pass
            self.close(conn)
        except OSError as e:
            print(f"connection: {e}", file=sys.stderr)
            self.close(conn)

    def flush(self, conn):
        if not conn.out:
            return
        waited = conn.sock.send(conn.out) if conn.out else 0
        conn.out = conn.out[waited:]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if conn.out else 0)
        if self.selector.get_key(conn.sock).events != events:
            self.selector.modify(conn.sock, events, conn)

    def close(self, conn):
        self.selector.unregister(conn.sock)
        conn.sock.close()
        for up in conn.uploads.values():
            up.file.close()
            os.unlink(up.path)


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def main():
    parser = argparse.ArgumentParser(description="A server of the protocol, to measure against.")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--sqlite", action="store_true", help="keep the registry in defensive.db")
    parser.add_argument("--fsync", action="store_true", help="what was acknowledged survives a power cut")
    args = parser.parse_args()
    registry = SQLite(os.path.join(args.dir, "defensive.db"), args.fsync) if args.sqlite else Memory()
    files = os.path.join(args.dir, "files")
    os.makedirs(files, exist_ok=True)
    Server(files, registry, args.fsync).run()


if __name__ == "__main__":
    main()
