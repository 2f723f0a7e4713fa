// A file transfer client as it is written with Crypto++: sends the one file that transfer.info names.
//
// transfer.info and me.info are in the working directory. Prints one line per message, `sent CODE` or `received CODE`,
// and exits with 0 when the server has acknowledged the file. A dialect is one reading of the documents, an option one
// habit, of implementations in the field.
#include "wire.hpp"

#include <cryptopp/base64.h>
#include <cryptopp/files.h>
#include <cryptopp/hex.h>
#include <cryptopp/osrng.h>
#include <cryptopp/rsa.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <vector>

namespace {

constexpr int ATTEMPTS = 4; // a message is sent once and then again up to three times

constexpr const char *USAGE =
    "usage: cppclient [option...]\n"
    "  --dialect spec|single|padded|zero-based|zero-based-short|per-packet|packet-size\n"
    "  --packet N             bytes of body in a packet (per-packet: of plaintext)\n"
    "  --reverse              send the last packet first\n"
    "  --shuffle              send the packets in a random order\n"
    "  --later-codes          number the requests 825 to 902\n"
    "  --check-size           end if the 1603 has not the Content Size that was sent last\n"
    "  --no-total             count no packets for an empty file\n"
    "  --swapped              put number and total into each other's place\n"
    "  --windows-path         send a name with a path of another system\n"
    "  --big-endian           write the numbers of headers in big-endian\n"
    "  --extra-packet         send one packet more after the last\n"
    "  --register-under-1606  answer a 1606 with 1026 under its id\n"
    "  --split-writes header  write each header on its own\n"
    "  --split-writes bytes   write each byte on its own\n"
    "  --one-write            write all packets of a transfer at once\n"
    "  --me-info nul-padded|upper-case|dashed|crlf|blank-lines\n"
    "                         how me.info is written, if not as the documents say\n"
    "  --priv-key             keep the private key in priv.key, in Base64, too\n";

const std::set<std::string> ME_INFO_STYLES{"nul-padded", "upper-case", "dashed", "crlf", "blank-lines"};

struct Options {
    std::string dialect = "spec", split_writes, me_info;
    size_t packet = 0;
    bool reverse = false, shuffle = false, later_codes = false, extra_packet = false, register_under_1606 = false,
         one_write = false, priv_key = false, check_size = false, no_total = false, swapped = false, windows_path = false,
         big_endian = false;
};

Options parse_options(const std::vector<std::string> &args) {
    Options options;
    for (size_t i = 0; i < args.size(); i++) {
        const auto value = [&] {
            if (i + 1 == args.size()) throw std::runtime_error(args[i] + " needs a value");
            return args[++i];
        };
        if (args[i] == "--dialect") options.dialect = value();
        else if (args[i] == "--packet") options.packet = std::stoul(value());
        else if (args[i] == "--reverse") options.reverse = true;
        else if (args[i] == "--shuffle") options.shuffle = true;
        else if (args[i] == "--later-codes") options.later_codes = true;
        else if (args[i] == "--check-size") options.check_size = true;
        else if (args[i] == "--no-total") options.no_total = true;
        else if (args[i] == "--swapped") options.swapped = true;
        else if (args[i] == "--windows-path") options.windows_path = true;
        else if (args[i] == "--big-endian") options.big_endian = true;
        else if (args[i] == "--extra-packet") options.extra_packet = true;
        else if (args[i] == "--register-under-1606") options.register_under_1606 = true;
        else if (args[i] == "--split-writes") options.split_writes = value();
        else if (args[i] == "--one-write") options.one_write = true;
        else if (args[i] == "--me-info") options.me_info = value();
        else if (args[i] == "--priv-key") options.priv_key = true;
        else throw std::runtime_error("unknown option " + args[i] + "\n" + USAGE);
    }
    if (!DIALECTS.count(options.dialect)) throw std::runtime_error("unknown dialect " + options.dialect);
    if (!options.me_info.empty() && !ME_INFO_STYLES.count(options.me_info))
        throw std::runtime_error("unknown style of me.info " + options.me_info);
    return options;
}

struct Reply {
    uint16_t code;
    Bytes payload;
};

// A connection to the server that knows under which id and in which style this client sends.
class Connection {
public:
    Connection(std::string address, const Options &options)
        : address(std::move(address)), options(options), socket(Socket::connect(this->address)) {}

    // Sends one message per payload.
    void send(uint16_t code, const std::vector<Bytes> &payloads) {
        if (options.later_codes)
            code = std::find_if(LATER_CODES.begin(), LATER_CODES.end(), [&](auto pair) { return pair.first == code; })->second;
        Bytes all;
        for (const Bytes &payload : payloads) {
            std::cout << "sent " << code << std::endl;
            Bytes code_field = number(code, 2), size_field = number(payload.size(), 4);
            if (options.big_endian) { // of those who do not look at the byte order
                std::reverse(code_field.begin(), code_field.end());
                std::reverse(size_field.begin(), size_field.end());
            }
            const Bytes header = client_id + number(VERSION, 1) + code_field + size_field;
            if (options.one_write) {
                all += header + payload;
            } else if (options.split_writes == "header") {
                socket.write(header);
                socket.write(payload);
            } else if (options.split_writes == "bytes") {
                for (const char &byte : header + payload) socket.write(&byte, 1);
            } else {
                socket.write(header + payload);
            }
        }
        socket.write(all);
    }
    void send(uint16_t code, const Bytes &payload) { send(code, std::vector<Bytes>{payload}); }

    Reply receive() {
        Reader header(socket.read(REPLY_HEADER_SIZE));
        header.number(1); // the version
        const auto code = static_cast<uint16_t>(header.number(2));
        size_t size = header.number(4);
        std::cout << "received " << code << std::endl;
        if (code == REGISTERED) size = ID_SIZE; // some servers announce 0 or 255
        if (code == REJECTED && size != ID_SIZE) {
            if (!options.register_under_1606) {
                socket = Socket::connect(address); // how much follows is anybody's guess: a new connection is in step
                return {code, ""};
            }
            size = ID_SIZE;
        }
        return {code, socket.read(size)};
    }

    // Sends and waits for the reply; after a 1607 sends again.
    Reply ask(uint16_t code, const std::vector<Bytes> &payloads) {
        for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
            send(code, payloads);
            Reply reply = receive();
            while (reply.code == ACK && code == PACKET) reply = receive(); // some servers acknowledge the 1030 before
            if (reply.code != ERROR) return reply;
        }
        throw std::runtime_error("the server responded with an error");
    }
    Reply ask(uint16_t code, const Bytes &payload) { return ask(code, std::vector<Bytes>{payload}); }

    Bytes client_id = Bytes(ID_SIZE, '\0');

private:
    std::string address;
    const Options &options;
    Socket socket;
};

[[noreturn]] void unexpected(uint16_t request, uint16_t reply) {
    throw std::runtime_error(std::to_string(request) + " was answered with " + std::to_string(reply));
}

std::string read_line(std::istream &file) {
    std::string line;
    std::getline(file, line);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    return line;
}

// The next line that is not empty, without the NULs that may pad it.
std::string read_text_line(std::istream &file) {
    std::string line;
    while (file && line.empty()) line = read_line(file).c_str();
    return line;
}

std::ofstream create_private(const char *path) { // for its owner alone to read
    std::ofstream file(path, std::ios::binary);
    std::filesystem::permissions(path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    return file;
}

// Who this client is: what me.info holds.
struct Identity {
    std::string name;
    Bytes client_id;
    CryptoPP::RSA::PrivateKey private_key;

    static Identity read(const Options &options) {
        std::ifstream file("me.info"), separate;
        Identity me;
        me.name = read_text_line(file);
        CryptoPP::StringSource(read_text_line(file), true, // the decoders pass over dashes and line ends
                               new CryptoPP::HexDecoder(new CryptoPP::StringSink(me.client_id)));
        if (me.client_id.size() != ID_SIZE) throw std::runtime_error("me.info: not 32 hex digits");
        if (options.priv_key) separate.open("priv.key");
        CryptoPP::FileSource key(options.priv_key ? separate : file, true, new CryptoPP::Base64Decoder);
        me.private_key.Load(key);
        return me;
    }

    void write(const Options &options) const {
        const std::string &style = options.me_info;
        const std::string end = style == "crlf" ? "\r\n" : style == "blank-lines" ? "\n\n" : "\n";
        std::string id;
        CryptoPP::StringSource(client_id, true,
                               new CryptoPP::HexEncoder(new CryptoPP::StringSink(id), style == "upper-case"));
        if (style == "dashed")
            for (const size_t at : {20, 16, 12, 8}) id.insert(at, "-");
        std::ofstream file = create_private("me.info");
        file << (style == "nul-padded" ? name_field(name) : name) << end << id << end << key_in_base64(end);
        if (options.priv_key) create_private("priv.key") << key_in_base64("\n");
    }

    std::string key_in_base64(const std::string &line_end) const { // broken into lines of 72
        std::string text, broken;
        CryptoPP::Base64Encoder encoder(new CryptoPP::StringSink(text));
        private_key.Save(encoder);
        encoder.MessageEnd();
        for (const char c : text) broken += c == '\n' ? line_end : std::string(1, c);
        return broken;
    }

    Bytes public_key() const { // X.509, 160 bytes: Crypto++ uses the exponent 17
        Bytes der;
        CryptoPP::StringSink sink(der);
        CryptoPP::RSA::PublicKey(private_key).Save(sink);
        return der;
    }

    Bytes unwrap(const Bytes &payload) const { // of 1602 and 1605: client id, AES key
        CryptoPP::AutoSeededRandomPool random;
        CryptoPP::RSAES_OAEP_SHA_Decryptor decryptor(private_key);
        Bytes key;
        CryptoPP::StringSource(payload.substr(ID_SIZE), true,
                               new CryptoPP::PK_DecryptorFilter(random, decryptor, new CryptoPP::StringSink(key)));
        return key;
    }
};

// 1026; returns the AES key.
Bytes send_public_key(Connection &connection, const Identity &me) {
    const Reply reply = connection.ask(PUBLIC_KEY, name_field(me.name) + me.public_key());
    if (reply.code != AES_KEY) unexpected(PUBLIC_KEY, reply.code);
    return me.unwrap(reply.payload);
}

// 1025 and 1026; returns the AES key.
Bytes register_client(Connection &connection, const Options &options, const std::string &name) {
    connection.client_id = Bytes(ID_SIZE, '\0');
    const Reply reply = connection.ask(REGISTER, name_field(name));
    if (reply.code != REGISTERED) unexpected(REGISTER, reply.code);
    connection.client_id = reply.payload;
    Identity me{name, reply.payload, {}};
    CryptoPP::AutoSeededRandomPool random;
    me.private_key.GenerateRandomWithKeySize(random, 1024);
    me.write(options);
    return send_public_key(connection, me);
}

// 1027; returns the AES key, after a new registration if the server does not know this client any more.
Bytes reconnect(Connection &connection, const Options &options) {
    Identity me = Identity::read(options);
    connection.client_id = me.client_id;
    const Reply reply = connection.ask(RECONNECT, name_field(me.name));
    if (reply.code == RECONNECTED) return me.unwrap(reply.payload);
    if (reply.code != REJECTED) unexpected(RECONNECT, reply.code);
    if (options.register_under_1606) {
        me.client_id = connection.client_id = reply.payload;
        me.write(options);
        return send_public_key(connection, me);
    }
    std::filesystem::remove("me.info");
    return register_client(connection, options, me.name);
}

// Pieces of size bytes, the last one shorter; one empty piece if there is no data.
std::vector<Bytes> split(const Bytes &data, size_t size) {
    std::vector<Bytes> pieces;
    for (size_t at = 0; at < data.size() || at == 0; at += size) pieces.push_back(data.substr(at, size));
    return pieces;
}

// The payloads of the 1028s that carry the file.
std::vector<Bytes> packets(const Options &options, const Bytes &key, const std::string &name, const Bytes &data) {
    struct Packet {
        size_t content, orig;
        Bytes body;
    };
    std::vector<Packet> transfer;
    if (options.dialect == "per-packet") {
        for (const Bytes &piece : split(data, options.packet ? options.packet : 4096)) {
            const Bytes body = encrypt(key, piece);
            transfer.push_back({body.size(), piece.size(), body});
        }
    } else {
        const Bytes cipher = encrypt(key, data);
        const size_t size = options.dialect == "single" ? cipher.size() : options.packet ? options.packet : 1024;
        for (const Bytes &body : split(cipher, size))
            transfer.push_back({options.dialect == "packet-size" ? body.size() : cipher.size(), data.size(), body});
        if (options.dialect == "padded" || options.dialect == "zero-based") transfer.back().body.resize(size, '\0');
    }

    size_t total = transfer.size();
    // The size of the file divided by that of a packet, rounded up: nothing makes no packets.
    if (options.no_total && data.empty()) total = 0;
    const size_t first = first_number(options.dialect);
    if (options.extra_packet) { // a loop that ends one too late reads at the end of the file: nothing, or an old buffer
        Packet extra = transfer.back();
        extra.body = options.dialect == "padded" ? Bytes(transfer.front().body.size(), '\0') : "";
        transfer.push_back(extra);
    }
    std::vector<Bytes> messages;
    for (size_t i = 0; i < transfer.size(); i++) {
        size_t packet = first + i, packets = total;
        if (options.swapped) std::swap(packet, packets);
        messages.push_back(number(transfer[i].content, 4) + number(transfer[i].orig, 4) + number(packet, 2) +
                           number(packets, 2) + name_field(name) + transfer[i].body);
    }
    if (options.reverse) std::reverse(messages.begin(), messages.end());
    if (options.shuffle) std::shuffle(messages.begin(), messages.end(), std::mt19937(1256));
    return messages;
}

// 1028 until the server's checksum is right, then 1029; 1031 after the fourth wrong one.
void transfer(Connection &connection, const Options &options, const Bytes &key, const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot open " + path);
    const Bytes data{std::istreambuf_iterator<char>(file), {}};
    // A path is how a project names a file of its own, where it was built.
    const std::string name = (options.windows_path ? "client.cpp\\..\\..\\x64\\debug\\" : "") + file_name(path);
    const uint32_t checksum = cksum(data);
    std::cout << "cksum " << checksum << std::endl;
    const std::vector<Bytes> messages = packets(options, key, name, data);
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        const Reply reply = connection.ask(PACKET, messages);
        if (reply.code != CRC) unexpected(PACKET, reply.code);
        Reader fields(reply.payload);
        fields.bytes(ID_SIZE); // client id
        if (fields.bytes(4) != messages.back().substr(0, 4) && options.check_size)
            throw std::runtime_error("the Content Size of the 1603 is not that of the last packet");
        fields.bytes(NAME_SIZE); // file name
        if (fields.number(4) == checksum) {
            const Reply last = connection.ask(CRC_OK, name_field(name));
            if (last.code != ACK) unexpected(CRC_OK, last.code);
            return;
        }
        if (attempt < ATTEMPTS - 1) connection.send(CRC_BAD, name_field(name));
    }
    connection.ask(ABORT, name_field(name));
    throw std::runtime_error("the checksum was wrong four times");
}

} // namespace

int main(int argc, char **argv) {
    try {
        const Options options = parse_options({argv + 1, argv + argc});
        std::ifstream info("transfer.info");
        if (!info) throw std::runtime_error("no transfer.info");
        const std::string address = read_line(info), name = read_line(info), path = read_line(info);
        Connection connection(address, options);
        const Bytes key = std::filesystem::exists("me.info") ? reconnect(connection, options)
                                                             : register_client(connection, options, name);
        transfer(connection, options, key, path);
        return 0;
    } catch (const std::exception &error) {
        std::cerr << "Fatal error: " << error.what() << std::endl;
        return 1;
    }
}
