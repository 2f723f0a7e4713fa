// A file transfer server as it is written with Crypto++: a thread per client, everything but the files in RAM.
//
// Takes one dialect and answers what is not of that dialect with 1607. Prints `listening HOST:PORT` when it is ready;
// logs one line per message, `received CODE` or `sent CODE`, the reply before it goes out. Files are stored as
// DIR/files/CLIENT-ID/NAME. Quirks are habits of servers in the field, faults play a server that fails: see USAGE.
#include "wire.hpp"

#include <cryptopp/hex.h>
#include <cryptopp/osrng.h>
#include <cryptopp/rsa.h>

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace {

constexpr size_t MAX_PAYLOAD = 64 << 20;

constexpr const char *USAGE =
    "usage: cppserver [option...]\n"
    "  --dir DIR           where files/ goes\n"
    "  --listen HOST:PORT  port 0: any free one\n"
    "  --log FILE          instead of standard error\n"
    "  --dialect spec|single|padded|zero-based|zero-based-short|per-packet|packet-size\n"
    "  --packet N          bytes of body in each packet (padded, zero-based)\n"
    "  --quirk QUIRK       may be repeated:\n"
    "    header-size-0, header-size-255  1600 and 1606 announce so many bytes, and 16 follow\n"
    "    ack-1030                        1604 in reply to a 1030\n"
    "    close-after-1604                the connection ends with the first acknowledged file\n"
    "    crc-size-ciphertext             1603's Content Size is that of the whole ciphertext\n"
    "    crc-size-last-packet            1603's Content Size is that of the last packet received\n"
    "    empty-1606                      1606 without a payload\n"
    "    new-id-1606                     1606 with a fresh id, under which the client may send 1026\n"
    "    needs-one-write                 1607 and the end if the first bytes received do not hold more than the header\n"
    "    later-codes                     the requests are numbered 825 to 902, and not otherwise\n"
    "    unknown-silent, unknown-close   a request with an unknown number gets no reply, or ends the connection\n"
    "    registers-at-1606               1606 with a fresh id, under which the name is registered from then on\n"
    "    empty-1604                      1604 without a payload\n"
    "    reads-once                      header and payload are what one recv each gives\n"
    "    one-message-a-read              a message is what one recv of 65,536 bytes gives, no more and no less\n"
    "    busy=MS                         it does something else for so long after each 1028\n"
    "    serial                          one connection after the other\n"
    "    fixed-read                      the body of a 1028 has --packet bytes, whatever its header says\n"
    "    reject=N                        the first N 1027s are rejected and their clients forgotten\n"
    "    error=CODE:N                    the first N requests of this code get 1607 (1028: the first N files)\n"
    "    spoil-crc=N                     the first N checksums are wrong\n"
    "    drop=CODE:N                     the first N requests of this code end the connection\n"
    "                                    (N = -1: all of them)\n";

const std::set<std::string> QUIRKS{"header-size-0", "header-size-255", "ack-1030", "close-after-1604",
                                   "crc-size-ciphertext", "crc-size-last-packet", "empty-1606", "new-id-1606",
                                   "needs-one-write", "later-codes", "unknown-silent", "unknown-close",
                                   "registers-at-1606", "empty-1604", "reads-once", "one-message-a-read",
                                   "serial", "fixed-read"};

// The request gets 1607; the text goes to the log.
struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

std::string hex(const Bytes &data) {
    std::string digits;
    CryptoPP::StringSource(data, true, new CryptoPP::HexEncoder(new CryptoPP::StringSink(digits), false));
    return digits;
}

Bytes random_bytes(size_t size) {
    CryptoPP::AutoSeededRandomPool random;
    Bytes bytes(size, '\0');
    random.GenerateBlock(reinterpret_cast<CryptoPP::byte *>(bytes.data()), size);
    return bytes;
}

Bytes new_id() { // a UUID, version 4
    Bytes id = random_bytes(ID_SIZE);
    id[6] = static_cast<char>((id[6] & 0x0F) | 0x40);
    id[8] = static_cast<char>((id[8] & 0x3F) | 0x80);
    return id;
}

// What the server remembers of a client.
struct Client {
    std::string name;
    Bytes public_key, aes_key;
};

// What all connections share; safe for their threads.
class Server {
public:
    std::string dialect = "spec", directory = ".";
    size_t packet = 1024;
    std::set<std::string> quirks;
    std::chrono::milliseconds busy{0}; // after each 1028

    void add_quirk(const std::string &quirk) {
        const size_t equals = quirk.find('='), colon = quirk.find(':');
        const std::string fault = quirk.substr(0, equals);
        if (QUIRKS.count(quirk))
            quirks.insert(quirk);
        else if (fault == "busy" && equals != std::string::npos)
            busy = std::chrono::milliseconds(std::stoi(quirk.substr(equals + 1)));
        else if ((fault == "reject" || fault == "spoil-crc") && equals != std::string::npos)
            faults[fault] = std::stoi(quirk.substr(equals + 1));
        else if ((fault == "error" || fault == "drop") && equals < colon && colon != std::string::npos)
            faults[fault + " " + quirk.substr(equals + 1, colon - equals - 1)] = std::stoi(quirk.substr(colon + 1));
        else
            throw std::runtime_error("unknown quirk " + quirk);
    }

    // Whether the fault happens this time.
    bool strikes(const std::string &fault) {
        const std::lock_guard lock(mutex);
        int &left = faults[fault];
        if (left > 0) return left-- > 0;
        return left < 0;
    }

    void log_to(const std::string &path) { log_file.open(path, std::ios::app); }

    void log(const std::string &line) {
        const std::lock_guard lock(mutex);
        (log_file.is_open() ? log_file : std::cerr) << line << std::endl;
    }

    // Whether the name was free and now belongs to this id.
    bool add(const Bytes &id, const std::string &name) {
        const std::lock_guard lock(mutex);
        for (const auto &known : clients)
            if (known.second.name == name) return false;
        return !name.empty() && clients.try_emplace(id, Client{name, "", ""}).second;
    }

    void forget(const Bytes &id) {
        const std::lock_guard lock(mutex);
        clients.erase(id);
    }

    bool knows(const Bytes &id) {
        const std::lock_guard lock(mutex);
        return clients.count(id) > 0;
    }

    Client client(const Bytes &id) {
        const std::lock_guard lock(mutex);
        const auto known = clients.find(id);
        if (known == clients.end()) throw Refused("nobody is registered under " + hex(id));
        return known->second;
    }

    void update(const Bytes &id, const Client &client) {
        const std::lock_guard lock(mutex);
        clients[id] = client;
    }

    std::string path(const Bytes &id, const std::string &name) const {
        const std::string file = file_name(name);
        if (file.empty() || file == "." || file == "..") throw Refused("that is no file name");
        const std::string client_directory = directory + "/files/" + hex(id);
        std::filesystem::create_directories(client_directory);
        return client_directory + "/" + file;
    }

private:
    std::mutex mutex;
    std::map<Bytes, Client> clients;
    std::map<std::string, int> faults; // "reject" or "error 1028" -> how many are left
    std::ofstream log_file;
};

// The packets of one file.
class Transfer {
public:
    Transfer(const Server &server, Bytes key, uint32_t orig, uint32_t total)
        : server(server), key(std::move(key)), orig(orig), total(total) {}

    // Takes a packet that is of the server's dialect, and no other.
    void add(uint32_t content, uint32_t packet_orig, uint32_t number, uint32_t packet_total, const Bytes &body) {
        const std::string &dialect = server.dialect;
        const uint32_t first = first_number(dialect);
        if (packet_total != total || number < first || number >= first + total)
            throw Refused("packet " + std::to_string(number) + " of " + std::to_string(packet_total));
        const bool whole = content == ciphertext_size(packet_orig);
        const bool fits = dialect == "spec" || dialect == "zero-based-short" ? whole && body.size() <= content
                          : dialect == "single"     ? whole && body.size() == content && total == 1
                          : dialect == "per-packet" ? whole && body.size() == content
                          : dialect == "packet-size" ? body.size() == content && packet_orig == orig
                                                     : whole && body.size() == server.packet;
        if (!fits)
            throw Refused("not " + dialect + ": content " + std::to_string(content) + ", original " +
                          std::to_string(packet_orig) + ", body " + std::to_string(body.size()));
        bodies[number] = body;
        last_size = body.size();
    }

    bool is_complete() const { return bodies.size() == total; }

    // The file. Throws CryptoPP::Exception if it does not decrypt.
    Bytes plaintext() const {
        Bytes plain, cipher;
        if (server.dialect == "per-packet") {
            for (const auto &packet : bodies) plain += decrypt(key, packet.second);
            return plain;
        }
        for (const auto &packet : bodies) cipher += packet.second;
        const uint64_t size = ciphertext_size(orig);
        if (server.dialect == "padded" || server.dialect == "zero-based") {
            if (total != (size + server.packet - 1) / server.packet)
                throw Refused(std::to_string(total) + " packets for " + std::to_string(size) + " bytes");
            cipher.resize(size);
        }
        if (cipher.size() != size)
            throw Refused(std::to_string(cipher.size()) + " bytes of ciphertext for a file of " + std::to_string(orig));
        return decrypt(key, cipher);
    }

    const Server &server;
    const Bytes key;
    const uint32_t orig, total;
    size_t last_size = 0;

private:
    std::map<uint32_t, Bytes> bodies; // by number
};

// One client's connection, on its own thread.
class Connection {
public:
    Connection(Server &server, Socket socket) : server(server), socket(std::move(socket)) {}

    void run() {
        try {
            for (;;) {
                Bytes payload;
                const uint16_t code = receive(payload);
                try {
                    serve(code, payload);
                } catch (const Disconnected &) {
                    throw;
                } catch (const std::exception &error) {
                    server.log(std::string("# ") + error.what());
                    reply(ERROR, "");
                }
            }
        } catch (const Disconnected &) {
        }
    }

private:
    bool has(const char *quirk) const { return server.quirks.count(quirk) > 0; }

    Bytes take(size_t size) {
        if (has("reads-once")) return size > 0 ? socket.read_some(size) : Bytes();
        if (has("one-message-a-read") && buffer.empty()) {
            buffer = socket.read_some(65536);
            size = std::min(size, buffer.size());
        }
        while (buffer.size() < size) {
            const Bytes part = socket.read_some();
            if (replied && buffer.empty() && part.size() <= REQUEST_HEADER_SIZE && server.quirks.count("needs-one-write")) {
                reply(ERROR, "");
                throw Disconnected();
            }
            replied = false;
            buffer += part;
        }
        const Bytes data = buffer.substr(0, size);
        buffer.erase(0, size);
        return data;
    }

    uint16_t receive(Bytes &payload) {
        const Bytes first = take(REQUEST_HEADER_SIZE);
        if (first.size() < REQUEST_HEADER_SIZE) { // read once
            reply(ERROR, "");
            throw Disconnected();
        }
        Reader header(first);
        client_id = header.bytes(ID_SIZE);
        const uint32_t version = header.number(1);
        auto code = static_cast<uint16_t>(header.number(2));
        uint32_t size = header.number(4);
        server.log("received " + std::to_string(code));
        if (version != VERSION || size > MAX_PAYLOAD) {
            reply(ERROR, "");
            throw Disconnected();
        }
        if (server.quirks.count("later-codes")) {
            const auto later = std::find_if(LATER_CODES.begin(), LATER_CODES.end(), [&](auto pair) { return pair.second == code; });
            code = later == LATER_CODES.end() ? 0 : later->first;
        }
        if (has("fixed-read") && code == PACKET) size = PACKET_FIELDS_SIZE + server.packet;
        if (has("one-message-a-read")) { // what does not belong to it is lost
            payload = buffer.substr(0, size);
            buffer.clear();
        } else {
            payload = take(size);
        }
        return code;
    }

    void reply(uint16_t code, const Bytes &payload) { reply(code, payload, payload.size()); }

    void reply(uint16_t code, const Bytes &payload, size_t announced) {
        server.log("sent " + std::to_string(code));
        replied = true;
        socket.write(number(VERSION, 1) + number(code, 2) + number(announced, 4) + payload);
    }

    // 1600 and 1606, whose sizes are what servers get wrong.
    void reply_with_id(uint16_t code, const Bytes &id) {
        reply(code, id, server.quirks.count("header-size-0") ? 0 : server.quirks.count("header-size-255") ? 255 : id.size());
    }

    void serve(uint16_t code, const Bytes &payload) {
        if (server.strikes("drop " + std::to_string(code))) throw Disconnected();
        if (code != PACKET && server.strikes("error " + std::to_string(code))) throw Refused("as told");
        Reader fields(payload);
        switch (code) {
        case REGISTER: return register_client(fields.name());
        case PUBLIC_KEY: {
            const std::string name = fields.name();
            return public_key(name, fields.bytes(PUBLIC_KEY_SIZE));
        }
        case RECONNECT: return reconnect(fields.name());
        case PACKET: return packet(fields);
        case CRC_OK: return acknowledge();
        case CRC_BAD:
            std::filesystem::remove(server.path(client_id, fields.name()));
            if (server.quirks.count("ack-1030")) acknowledge();
            return;
        case ABORT:
            std::filesystem::remove(server.path(client_id, fields.name()));
            return acknowledge();
        default:
            if (has("unknown-silent")) return;
            if (has("unknown-close")) throw Disconnected();
            throw Refused("unknown code");
        }
    }

    void register_client(const std::string &name) {
        const Bytes id = new_id();
        if (server.add(id, name)) reply_with_id(REGISTERED, id);
        else reply(REFUSED, "");
    }

    void public_key(const std::string &name, const Bytes &key) {
        if (client_id == offered_id && !server.knows(client_id) && !server.add(client_id, name))
            throw Refused("that name is taken");
        Client client = server.client(client_id);
        client.public_key = key;
        send_aes_key(AES_KEY, client);
    }

    void reconnect(const std::string &name) {
        if (server.strikes("reject")) server.forget(client_id);
        if (server.knows(client_id)) {
            Client client = server.client(client_id);
            if (!client.public_key.empty()) return send_aes_key(RECONNECTED, client);
        }
        offered_id = has("new-id-1606") || has("registers-at-1606") ? new_id() : client_id;
        if (has("registers-at-1606")) server.add(offered_id, name);
        reply_with_id(REJECTED, server.quirks.count("empty-1606") ? "" : offered_id);
    }

    void send_aes_key(uint16_t code, Client &client) {
        CryptoPP::StringSource der(client.public_key, true);
        CryptoPP::RSA::PublicKey key;
        key.Load(der);
        client.aes_key = random_bytes(32);
        CryptoPP::AutoSeededRandomPool random;
        CryptoPP::RSAES_OAEP_SHA_Encryptor encryptor(key);
        Bytes wrapped;
        CryptoPP::StringSource(client.aes_key, true,
                               new CryptoPP::PK_EncryptorFilter(random, encryptor, new CryptoPP::StringSink(wrapped)));
        server.update(client_id, client);
        reply(code, client_id + wrapped);
    }

    void packet(Reader &fields) {
        std::this_thread::sleep_for(server.busy);
        const uint32_t content = fields.number(4), orig = fields.number(4);
        const uint32_t packet_number = fields.number(2), total = fields.number(2);
        const std::string name = fields.name();
        const Client client = server.client(client_id);
        const uint32_t last = total - 1 + first_number(server.dialect);
        if (packet_number > last && finished.count(name) && !transfers.count(name))
            return; // the one packet too many that some clients send
        Bytes plain;
        size_t last_size;
        try {
            Transfer &transfer = transfers.try_emplace(name, server, client.aes_key, orig, total).first->second;
            transfer.add(content, orig, packet_number, total, fields.rest());
            if (!transfer.is_complete()) return;
            if (server.strikes("error 1028")) throw Refused("as told");
            plain = transfer.plaintext();
            last_size = transfer.last_size;
        } catch (const std::exception &) {
            transfers.erase(name);
            throw;
        }
        transfers.erase(name);
        std::ofstream file(server.path(client_id, name), std::ios::binary);
        if (!(file << plain << std::flush)) throw Refused("cannot write the file");
        finished.insert(name);
        const uint64_t size = server.quirks.count("crc-size-ciphertext")    ? ciphertext_size(plain.size())
                              : server.quirks.count("crc-size-last-packet") ? last_size
                                                                            : plain.size();
        const uint32_t checksum = cksum(plain) ^ (server.strikes("spoil-crc") ? 1 : 0);
        reply(CRC, client_id + number(size, 4) + name_field(name) + number(checksum, 4));
    }

    void acknowledge() {
        reply(ACK, has("empty-1604") ? Bytes() : client_id);
        if (server.quirks.count("close-after-1604")) throw Disconnected();
    }

    Server &server;
    Socket socket;
    Bytes buffer;
    bool replied = true; // nothing has come since the last reply
    Bytes client_id;     // from the header of the request being served
    Bytes offered_id;    // in a 1606
    std::map<std::string, Transfer> transfers; // by file name
    std::set<std::string> finished;            // file names
};

// For servers that take for a message what one read gives: that is to depend on the pauses of the client, and not on how
// busy the machine is. Not every system allows it, and it is needed on a busy one only. New threads inherit it.
void read_promptly() {
    sched_param priority{};
    priority.sched_priority = 1;
    (void)sched_setscheduler(0, SCHED_RR, &priority);
}

Socket listen(const std::string &host_port) {
    Socket listener(::socket(AF_INET, SOCK_STREAM, 0));
    const int on = 1;
    ::setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address = parse_address(host_port);
    socklen_t size = sizeof address;
    if (::bind(listener.fd, reinterpret_cast<sockaddr *>(&address), size) != 0 || ::listen(listener.fd, 128) != 0)
        throw std::runtime_error("cannot listen on " + host_port + ": " + std::strerror(errno));
    ::getsockname(listener.fd, reinterpret_cast<sockaddr *>(&address), &size);
    char host[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
    std::cout << "listening " << host << ':' << ntohs(address.sin_port) << std::endl;
    return listener;
}

} // namespace

int main(int argc, char **argv) {
    try {
        Server server;
        std::string address = "127.0.0.1:1256";
        for (int i = 1; i < argc; i += 2) {
            const std::string option = argv[i];
            if (i + 1 == argc) throw std::runtime_error(std::string(option + " needs a value\n") + USAGE);
            const std::string value = argv[i + 1];
            if (option == "--dir") server.directory = value;
            else if (option == "--listen") address = value;
            else if (option == "--log") server.log_to(value);
            else if (option == "--dialect" && DIALECTS.count(value)) server.dialect = value;
            else if (option == "--packet") server.packet = std::stoul(value);
            else if (option == "--quirk") server.add_quirk(value);
            else throw std::runtime_error("unknown option " + option + " " + value + "\n" + USAGE);
        }
        if (server.quirks.count("reads-once") || server.quirks.count("one-message-a-read")) read_promptly();
        const Socket listener = listen(address);
        for (;;) {
            Socket socket(::accept(listener.fd, nullptr, nullptr));
            if (socket.fd < 0) continue;
            if (server.quirks.count("serial")) {
                Connection(server, std::move(socket)).run();
                continue;
            }
            std::thread([&server, socket = std::move(socket)]() mutable {
                Connection(server, std::move(socket)).run();
            }).detach();
        }
    } catch (const std::exception &error) {
        std::cerr << "Fatal error: " << error.what() << std::endl;
        return 1;
    }
}
