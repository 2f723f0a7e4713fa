// What cppclient and cppserver share: codes, little-endian fields, cipher, checksum and sockets of the v3 secure file
// transfer protocol. Names are ASCII, null-terminated in fields of 255 bytes.
#pragma once

#include <cryptopp/aes.h>
#include <cryptopp/filters.h>
#include <cryptopp/modes.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

using Bytes = std::string; // Crypto++ reads and writes std::string most easily

constexpr uint8_t VERSION = 3;
constexpr size_t ID_SIZE = 16;
constexpr size_t NAME_SIZE = 255;
constexpr size_t PUBLIC_KEY_SIZE = 160;
constexpr size_t REQUEST_HEADER_SIZE = ID_SIZE + 1 + 2 + 4;
constexpr size_t REPLY_HEADER_SIZE = 1 + 2 + 4;
constexpr size_t PACKET_FIELDS_SIZE = 4 + 4 + 2 + 2 + NAME_SIZE; // of a 1028, before the body

enum Code : uint16_t {
    REGISTER = 1025, PUBLIC_KEY, RECONNECT, PACKET, CRC_OK, CRC_BAD, ABORT,
    REGISTERED = 1600, REFUSED, AES_KEY, CRC, ACK, RECONNECTED, REJECTED, ERROR,
};

// A later edition of the assignment gives the requests other numbers and changes nothing else.
constexpr std::array<std::pair<uint16_t, uint16_t>, 7> LATER_CODES{{
    {REGISTER, 825}, {PUBLIC_KEY, 826}, {RECONNECT, 827}, {PACKET, 828}, {CRC_OK, 900}, {CRC_BAD, 901}, {ABORT, 902},
}};

// The dialects, each one reading of the documents.
const std::set<std::string> DIALECTS{"spec", "single", "padded", "zero-based", "zero-based-short", "per-packet", "packet-size"};

inline uint32_t first_number(const std::string &dialect) { return dialect.rfind("zero-based", 0) == 0 ? 0 : 1; }

// Fields

inline Bytes number(uint64_t value, size_t size) {
    Bytes field;
    for (size_t i = 0; i < size; i++) field += static_cast<char>(value >> (8 * i));
    return field;
}

inline Bytes name_field(const std::string &name) {
    if (name.size() >= NAME_SIZE) throw std::runtime_error("the name is too long");
    return name + Bytes(NAME_SIZE - name.size(), '\0');
}

// Reads the fields of a message one after the other.
class Reader {
public:
    explicit Reader(Bytes message) : message(std::move(message)) {}

    uint32_t number(size_t size) {
        uint32_t value = 0;
        const Bytes field = bytes(size);
        for (size_t i = 0; i < size; i++) value |= static_cast<uint32_t>(static_cast<uint8_t>(field[i])) << (8 * i);
        return value;
    }

    Bytes bytes(size_t size) {
        if (size > message.size() - at) throw std::runtime_error("the message is too short");
        at += size;
        return message.substr(at - size, size);
    }

    std::string name() { return bytes(NAME_SIZE).c_str(); }

    Bytes rest() { return bytes(message.size() - at); }

private:
    Bytes message;
    size_t at = 0;
};

// The last element of a path, as the name that is sent and stored.
inline std::string file_name(const std::string &path) { return path.substr(path.find_last_of("/\\") + 1); }

// Cipher: AES-256-CBC with the zero IV that the protocol prescribes, and PKCS#7 padding.

inline Bytes encrypt(const Bytes &key, const Bytes &plain) {
    const CryptoPP::byte iv[16] = {};
    CryptoPP::CBC_Mode<CryptoPP::AES>::Encryption cbc(reinterpret_cast<const CryptoPP::byte *>(key.data()), key.size(), iv);
    Bytes cipher;
    CryptoPP::StringSource(plain, true, new CryptoPP::StreamTransformationFilter(cbc, new CryptoPP::StringSink(cipher)));
    return cipher;
}

// Throws CryptoPP::Exception if the padding is wrong.
inline Bytes decrypt(const Bytes &key, const Bytes &cipher) {
    const CryptoPP::byte iv[16] = {};
    CryptoPP::CBC_Mode<CryptoPP::AES>::Decryption cbc(reinterpret_cast<const CryptoPP::byte *>(key.data()), key.size(), iv);
    Bytes plain;
    CryptoPP::StringSource(cipher, true, new CryptoPP::StreamTransformationFilter(cbc, new CryptoPP::StringSink(plain)));
    return plain;
}

inline uint64_t ciphertext_size(uint64_t size) { return (size / 16 + 1) * 16; }

// What POSIX cksum prints: the CRC covers the data, then its length in as few little-endian bytes as hold it.
inline uint32_t cksum(const Bytes &data) {
    static const auto table = [] {
        std::array<uint32_t, 256> t{};
        for (uint32_t i = 0; i < 256; i++) {
            t[i] = i << 24;
            for (int bit = 0; bit < 8; bit++) t[i] = (t[i] << 1) ^ (t[i] & 0x80000000 ? 0x04C11DB7 : 0);
        }
        return t;
    }();
    uint32_t crc = 0;
    for (const char c : data) crc = (crc << 8) ^ table[(crc >> 24) ^ static_cast<uint8_t>(c)];
    for (size_t length = data.size(); length > 0; length >>= 8) crc = (crc << 8) ^ table[(crc >> 24) ^ (length & 0xFF)];
    return ~crc;
}

// Sockets

// The other side has ended the connection, or this side is about to.
struct Disconnected : std::runtime_error {
    Disconnected() : std::runtime_error("the connection was closed") {}
};

inline sockaddr_in parse_address(const std::string &host_port) {
    const size_t colon = host_port.rfind(':');
    sockaddr_in address{};
    address.sin_family = AF_INET;
    if (colon == std::string::npos || inet_pton(AF_INET, host_port.substr(0, colon).c_str(), &address.sin_addr) != 1)
        throw std::runtime_error("not an IP:PORT: " + host_port);
    const int port = std::stoi(host_port.substr(colon + 1));
    if (port < 0 || port > 65535) throw std::runtime_error("not a port: " + host_port);
    address.sin_port = htons(static_cast<uint16_t>(port));
    return address;
}

// A TCP socket that closes itself.
class Socket {
public:
    explicit Socket(int fd = -1) : fd(fd) {}
    Socket(Socket &&other) noexcept : fd(std::exchange(other.fd, -1)) {}
    Socket &operator=(Socket &&other) noexcept {
        std::swap(fd, other.fd);
        return *this;
    }
    ~Socket() {
        if (fd >= 0) ::close(fd);
    }

    static Socket connect(const std::string &host_port) {
        Socket socket(::socket(AF_INET, SOCK_STREAM, 0));
        const sockaddr_in address = parse_address(host_port);
        if (::connect(socket.fd, reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0)
            throw std::runtime_error("cannot connect to " + host_port + ": " + std::strerror(errno));
        const int on = 1; // without it the kernel would gather what we write in pieces
        ::setsockopt(socket.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        return socket;
    }

    void write(const char *data, size_t size) const {
        while (size > 0) {
            const ssize_t n = ::send(fd, data, size, MSG_NOSIGNAL);
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) throw Disconnected();
            data += n;
            size -= static_cast<size_t>(n);
        }
    }
    void write(const Bytes &data) const { write(data.data(), data.size()); }

    // What has come, at most so many bytes; waits for the first one.
    Bytes read_some(size_t size = 65536) const {
        Bytes data(size, '\0');
        const ssize_t n = ::recv(fd, data.data(), data.size(), 0);
        if (n <= 0) throw Disconnected();
        data.resize(static_cast<size_t>(n));
        return data;
    }

    // Exactly so many bytes.
    Bytes read(size_t size) const {
        Bytes data(size, '\0');
        if (size > 0 && ::recv(fd, data.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size)) throw Disconnected();
        return data;
    }

    int fd;
};
