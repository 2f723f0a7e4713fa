"""What pyclient.py and pyserver.py share: codes, layouts, cipher and checksum of the v3 secure file transfer protocol.

All numbers on the wire are little-endian and unsigned; names are ASCII, null-terminated in fields of 255 bytes.
"""
import os
import struct

try:
    from Crypto.Cipher import AES, PKCS1_OAEP
    from Crypto.PublicKey import RSA
    from Crypto.Util.Padding import pad, unpad
except ImportError:  # Debian's package python3-pycryptodome
    from Cryptodome.Cipher import AES, PKCS1_OAEP
    from Cryptodome.PublicKey import RSA
    from Cryptodome.Util.Padding import pad, unpad

VERSION = 3

REGISTER, PUBLIC_KEY, RECONNECT, PACKET, CRC_OK, CRC_BAD, ABORT = 1025, 1026, 1027, 1028, 1029, 1030, 1031
REGISTERED, REFUSED, AES_KEY, CRC, ACK, RECONNECTED, REJECTED, ERROR = 1600, 1601, 1602, 1603, 1604, 1605, 1606, 1607

# A later edition of the assignment gives the requests other numbers and changes nothing else.
LATER_CODES = {REGISTER: 825, PUBLIC_KEY: 826, RECONNECT: 827, PACKET: 828, CRC_OK: 900, CRC_BAD: 901, ABORT: 902}

REQUEST_HEADER = struct.Struct("<16sBHI")  # client id, version, code, payload size
BIG_ENDIAN_HEADER = struct.Struct(">16sBHI")  # the same, of those who do not look at the byte order
REPLY_HEADER = struct.Struct("<BHI")  # version, code, payload size
NAME = struct.Struct("<255s")  # 1025, 1027, 1029, 1030, 1031
NAME_AND_KEY = struct.Struct("<255s160s")  # 1026
PACKET_FIELDS = struct.Struct("<IIHH255s")  # 1028: content size, original size, number, total, file name; the body follows
CRC_FIELDS = struct.Struct("<16sI255sI")  # 1603: client id, content size, file name, cksum

DIALECTS = ("spec", "single", "padded", "zero-based", "zero-based-short", "per-packet", "packet-size")


def first_number(dialect):
    """The number of the first packet."""
    return 0 if dialect.startswith("zero-based") else 1


def text(field):
    """The name in a null-terminated field."""
    return field.split(b"\0", 1)[0].decode("ascii")


def encrypt(key, plain):
    """AES-256-CBC with the zero IV that the protocol prescribes, and PKCS#7 padding."""
    return AES.new(key, AES.MODE_CBC, bytes(16)).encrypt(pad(plain, 16))


def decrypt(key, cipher):
    """The inverse of encrypt; ValueError if the padding is wrong."""
    return unpad(AES.new(key, AES.MODE_CBC, bytes(16)).decrypt(cipher), 16)


def ciphertext_size(size):
    """How long encrypt makes `size` bytes."""
    return (size // 16 + 1) * 16


def _table():
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        yield crc & 0xFFFFFFFF


_TABLE = tuple(_table())


def cksum(data):
    """What POSIX cksum prints: the CRC covers the data, then its length in as few little-endian bytes as hold it."""
    length = len(data).to_bytes((len(data).bit_length() + 7) // 8, "little")
    crc = 0
    for part in (data, length):
        for byte in part:
            crc = ((crc << 8) & 0xFFFFFFFF) ^ _TABLE[(crc >> 24) ^ byte]
    return crc ^ 0xFFFFFFFF


def file_name(path):
    """The last element of a path, as the name that is sent and stored."""
    return os.path.basename(path.replace("\\", "/"))
