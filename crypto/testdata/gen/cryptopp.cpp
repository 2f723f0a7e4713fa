// What a Crypto++ client makes of the protocol's keys and ciphertexts.
// See ../README.md for the lines that it reads and writes.
#include <crypto++/aes.h>
#include <crypto++/files.h>
#include <crypto++/filters.h>
#include <crypto++/hex.h>
#include <crypto++/modes.h>
#include <crypto++/osrng.h>
#include <crypto++/rsa.h>
#include <crypto++/sha.h>

#include <iostream>
#include <map>
#include <stdexcept>
#include <string>

using namespace CryptoPP;
using std::string;

static AutoSeededRandomPool rng;

static string hex(const string& s) {
    string out;
    StringSource(s, true, new HexEncoder(new StringSink(out), false));
    return out;
}

static string unhex(const string& s) {
    string out;
    StringSource(s, true, new HexDecoder(new StringSink(out)));
    return out;
}

static string sha256(const string& s) {
    string out;
    SHA256 hash;
    StringSource(s, true, new HashFilter(hash, new StringSink(out)));
    return out;
}

static string plaintext(size_t size) {
    string s(size, 0);
    for (size_t i = 0; i < size; i++) s[i] = char(131 * i + 17 * (i / 256) + 7);
    return s;
}

template <class Key> static string save(const Key& key) {
    string out;
    StringSink sink(out);
    key.Save(sink);
    return out;
}

template <class Key> static Key load(const string& der) {
    Key key;
    StringSource source(der, true);
    key.Load(source);
    return key;
}

static string wrap(const RSA::PublicKey& pub, const string& aes) {
    string out;
    RSAES_OAEP_SHA_Encryptor enc(pub);
    StringSource(aes, true, new PK_EncryptorFilter(rng, enc, new StringSink(out)));
    return out;
}

static string unwrap(const RSA::PrivateKey& priv, const string& wrapped) {
    string out;
    RSAES_OAEP_SHA_Decryptor dec(priv);
    StringSource(wrapped, true, new PK_DecryptorFilter(rng, dec, new StringSink(out)));
    return out;
}

static string encrypt(const string& key, const string& plain) {
    byte iv[AES::BLOCKSIZE] = {};
    CBC_Mode<AES>::Encryption enc((const byte*)key.data(), key.size(), iv);
    string out;
    StringSource(plain, true, new StreamTransformationFilter(enc, new StringSink(out)));
    return out;
}

static string decrypt(const string& key, const string& cipher) {
    byte iv[AES::BLOCKSIZE] = {};
    CBC_Mode<AES>::Decryption dec((const byte*)key.data(), key.size(), iv);
    string out;
    StringSource(cipher, true, new StreamTransformationFilter(dec, new StringSink(out)));
    return out;
}

static void vectors() {
    RSA::PrivateKey priv;
    priv.Initialize(rng, 1024);
    RSA::PublicKey pub(priv);
    string key(32, 0);
    rng.GenerateBlock((byte*)&key[0], key.size());

    std::cout << "private " << hex(save(priv)) << "\n"
              << "public " << hex(save(pub)) << "\n"
              << "key " << hex(key) << "\n"
              << "wrapped " << hex(wrap(pub, key)) << "\n";
    for (size_t size : {0, 1, 15, 16, 17})
        std::cout << "cbc " << size << " " << hex(encrypt(key, plaintext(size))) << "\n";
    for (size_t size : {4096, 100003})
        std::cout << "cbc_sha256 " << size << " " << hex(sha256(encrypt(key, plaintext(size)))) << "\n";
}

static void check() {
    std::map<string, string> in;
    for (string name, value; std::cin >> name >> value;) in[name] = unhex(value);

    auto priv = load<RSA::PrivateKey>(in["private"]);
    auto pub = load<RSA::PublicKey>(in["public"]);
    if (!priv.Validate(rng, 3) || !pub.Validate(rng, 3)) throw std::runtime_error("invalid key");
    if (priv.GetModulus() != pub.GetModulus() || priv.GetPublicExponent() != pub.GetPublicExponent())
        throw std::runtime_error("the two keys are not a pair");
    string key = unwrap(priv, in["wrapped"]);
    string plain = decrypt(key, in["ciphertext"]);

    std::cout << "private " << hex(save(priv)) << "\n"
              << "public " << hex(save(pub)) << "\n"
              << "key " << hex(key) << "\n"
              << "wrapped " << hex(wrap(pub, key)) << "\n"
              << "plaintext " << hex(plain) << "\n"
              << "ciphertext " << hex(encrypt(key, plain)) << "\n";
}

int main(int argc, char** argv) {
    try {
        string mode = argc == 2 ? argv[1] : "";
        if (mode == "vectors") vectors();
        else if (mode == "check") check();
        else throw std::runtime_error("usage: cryptopp vectors | check");
    } catch (const std::exception& e) {
        std::cerr << e.what() << "\n";
        return 1;
    }
}
