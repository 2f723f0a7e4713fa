"""What a PyCryptodome server makes of the protocol's keys and ciphertexts.

See ../README.md for the lines that it reads and writes.
"""

import hashlib
import subprocess
import sys

try:
    from Cryptodome.Cipher import AES, PKCS1_OAEP
    from Cryptodome.PublicKey import RSA
    from Cryptodome.Random import get_random_bytes
    from Cryptodome.Util.Padding import pad, unpad
except ModuleNotFoundError:  # the same library, as pip installs it
    from Crypto.Cipher import AES, PKCS1_OAEP
    from Crypto.PublicKey import RSA
    from Crypto.Random import get_random_bytes
    from Crypto.Util.Padding import pad, unpad


def plaintext(size):
    return bytes((131 * i + 17 * (i // 256) + 7) % 256 for i in range(size))


def encrypt(key, data):
    return AES.new(key, AES.MODE_CBC, bytes(16)).encrypt(pad(data, 16))


def decrypt(key, data):
    return unpad(AES.new(key, AES.MODE_CBC, bytes(16)).decrypt(data), 16)


def cksum(data):
    out = subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout
    return out.split()[0].decode()


def line(name, *values):
    print(name, *(v.hex() if isinstance(v, bytes) else v for v in values))


def vectors():
    private = RSA.generate(1024, e=17)
    public = private.public_key()
    key = get_random_bytes(32)
    line("private", private.export_key("DER", pkcs=8))
    line("private_pkcs1", private.export_key("DER"))
    line("public", public.export_key("DER"))
    line("key", key)
    line("wrapped", PKCS1_OAEP.new(public).encrypt(key))
    for size in 0, 1, 15, 16, 17:
        line("cbc", size, encrypt(key, plaintext(size)))
    for size in 4096, 100003:
        line("cbc_sha256", size, hashlib.sha256(encrypt(key, plaintext(size))).digest())
    for size in 0, 1, 15, 16, 17, 255, 256, 4096, 65535, 65536, 100003:
        line("cksum", size, cksum(plaintext(size)))


def check():
    given = {}
    for text in sys.stdin:
        name, value = text.split()
        given[name] = bytes.fromhex(value)
    private = RSA.import_key(given["private"])
    public = RSA.import_key(given["public"])
    if private.public_key() != public:
        sys.exit("the two keys are not a pair")
    key = PKCS1_OAEP.new(private).decrypt(given["wrapped"])
    plain = decrypt(key, given["ciphertext"])
    line("private", private.export_key("DER", pkcs=8))
    line("public", public.export_key("DER"))
    line("key", key)
    line("wrapped", PKCS1_OAEP.new(public).encrypt(key))
    line("plaintext", plain)
    line("ciphertext", encrypt(key, plain))


if __name__ == "__main__":
    modes = {"vectors": vectors, "check": check}
    if len(sys.argv) != 2 or sys.argv[1] not in modes:
        sys.exit("usage: pycryptodome.py vectors | check")
    modes[sys.argv[1]]()
