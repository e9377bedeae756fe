#include "transfer/tls_stream.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <climits>
#include <cstring>
#include <string_view>

namespace switchyard::transfer {
namespace {

constexpr std::string_view kIdentity = "switchyard";  // of the key; says nothing
constexpr std::size_t kPlainChunk = 16 << 10;         // the longest record of TLS
// Ciphers of one hash, the one that the pre-shared key is for.
constexpr const char* kKeyCiphers = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
constexpr unsigned char kKeyCipher[] = {0x13, 0x01};  // TLS_AES_128_GCM_SHA256

std::string last_error() {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = ERR_reason_error_string(code);
  return reason != nullptr ? reason : "no reason given";
}

SSL_SESSION* session_of(SSL* ssl) {
  const auto* stream = static_cast<const TlsStream*>(SSL_get_app_data(ssl));
  const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, kKeyCipher);
  SSL_SESSION* session = SSL_SESSION_new();
  if (session == nullptr || cipher == nullptr ||
      SSL_SESSION_set1_master_key(session, stream->key().data(), stream->key().size()) != 1 ||
      SSL_SESSION_set_cipher(session, cipher) != 1 ||
      SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) != 1) {
    SSL_SESSION_free(session);
    return nullptr;
  }
  return session;
}

int use_key(SSL* ssl, const EVP_MD* hash, const unsigned char** identity, std::size_t* length,
            SSL_SESSION** session) {
  *session = nullptr;
  *identity = reinterpret_cast<const unsigned char*>(kIdentity.data());
  *length = kIdentity.size();
  // Asked again for a hash that the key is not for: none.
  if (hash != nullptr && !EVP_MD_is_a(hash, "SHA256")) return 1;
  *session = session_of(ssl);
  return *session != nullptr;
}

int find_key(SSL* ssl, const unsigned char* identity, std::size_t length, SSL_SESSION** session) {
  *session = nullptr;
  if (length != kIdentity.size() || std::memcmp(identity, kIdentity.data(), length) != 0) return 1;
  *session = session_of(ssl);
  return *session != nullptr;
}

// A worker cannot ask for a password.
int no_password(char*, int, int, void*) { return -1; }

Result<SSL_CTX*> make_context() {
  SSL_CTX* context = SSL_CTX_new(TLS_method());
  if (context == nullptr) return fail(ErrorCode::exhausted, "TLS: {}", last_error());
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return context;
}

}  // namespace

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

Result<std::unique_ptr<const TlsContext>> TlsContext::with_keys() {
  auto context = make_context();
  if (!context) return pass(context.error());
  std::unique_ptr<const TlsContext> self(new TlsContext(*context, false));
  // Without certificates there is nothing to verify: a handshake without the key fails by itself.
  SSL_CTX_set_verify(*context, SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_ciphersuites(*context, kKeyCiphers);
  SSL_CTX_set_psk_use_session_callback(*context, use_key);
  SSL_CTX_set_psk_find_session_callback(*context, find_key);
  return self;
}

Result<std::unique_ptr<const TlsContext>> TlsContext::with_certificates(const TlsOptions& options) {
  ERR_clear_error();
  auto context = make_context();
  if (!context) return pass(context.error());
  std::unique_ptr<const TlsContext> self(new TlsContext(*context, true));
  SSL_CTX_set_default_passwd_cb(*context, no_password);
  if (SSL_CTX_use_certificate_chain_file(*context, options.certificate_file.c_str()) != 1)
    return fail(ErrorCode::invalid, "TLS certificate '{}': {}", options.certificate_file, last_error());
  if (SSL_CTX_use_PrivateKey_file(*context, options.key_file.c_str(), SSL_FILETYPE_PEM) != 1)
    return fail(ErrorCode::invalid, "TLS key '{}': {}", options.key_file, last_error());
  if (SSL_CTX_check_private_key(*context) != 1) {
    return fail(ErrorCode::invalid, "TLS key '{}' does not belong to the certificate '{}'", options.key_file,
                options.certificate_file);
  }
  if (SSL_CTX_load_verify_file(*context, options.ca_file.c_str()) != 1)
    return fail(ErrorCode::invalid, "TLS CA '{}': {}", options.ca_file, last_error());
  return self;
}

Result<std::unique_ptr<TlsStream>> TlsStream::create(const TlsContext& context, Role role, const Mac& key) {
  ERR_clear_error();
  SSL* ssl = SSL_new(context.context_);
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  if (ssl == nullptr || in == nullptr || out == nullptr) {
    SSL_free(ssl);
    BIO_free(in);
    BIO_free(out);
    return fail(ErrorCode::exhausted, "TLS: {}", last_error());
  }
  SSL_set_bio(ssl, in, out);
  std::unique_ptr<TlsStream> self(new TlsStream(ssl, context.certificates_, key));
  SSL_set_app_data(ssl, self.get());
  role == Role::client ? SSL_set_connect_state(ssl) : SSL_set_accept_state(ssl);
  return self;
}

TlsStream::~TlsStream() { SSL_free(ssl_); }

Status TlsStream::receive(std::span<const std::byte> arrived, std::vector<std::byte>& plain,
                          std::vector<std::byte>& wire) {
  ERR_clear_error();
  if (!arrived.empty() && (arrived.size() > INT_MAX ||
                           BIO_write(SSL_get_rbio(ssl_), arrived.data(), static_cast<int>(arrived.size())) !=
                               static_cast<int>(arrived.size()))) {
    return fail(ErrorCode::peer_lost, "TLS: no memory");
  }
  auto status = advance(plain);
  take_wire(wire);
  return status;
}

Status TlsStream::advance(std::vector<std::byte>& plain) {
  if (!established_) {
    const int result = SSL_do_handshake(ssl_);
    if (result != 1) {
      if (SSL_get_error(ssl_, result) == SSL_ERROR_WANT_READ) return {};
      return pass(error_of(result));
    }
    if (!certificates_ && SSL_session_reused(ssl_) != 1)
      return fail(ErrorCode::denied, "TLS without the shared key");
    established_ = true;
  }
  for (;;) {
    const std::size_t before = plain.size();
    plain.resize(before + kPlainChunk);
    std::size_t count = 0;
    const int result = SSL_read_ex(ssl_, plain.data() + before, kPlainChunk, &count);
    plain.resize(before + count);
    if (result == 1) continue;
    if (SSL_get_error(ssl_, result) == SSL_ERROR_WANT_READ) return {};
    return pass(error_of(result));
  }
}

Status TlsStream::send(std::span<const std::byte> plain, std::vector<std::byte>& wire) {
  ERR_clear_error();
  std::size_t count = 0;
  if (!plain.empty() && SSL_write_ex(ssl_, plain.data(), plain.size(), &count) != 1)
    return fail(ErrorCode::peer_lost, "TLS: {}", last_error());
  take_wire(wire);
  return {};
}

void TlsStream::take_wire(std::vector<std::byte>& wire) {
  BIO* out = SSL_get_wbio(ssl_);
  const std::size_t count = BIO_ctrl_pending(out);
  const std::size_t before = wire.size();
  wire.resize(before + count);
  if (count != 0) BIO_read(out, wire.data() + before, static_cast<int>(count));
}

Error TlsStream::error_of(int result) const {
  if (SSL_get_error(ssl_, result) == SSL_ERROR_ZERO_RETURN)
    return {ErrorCode::peer_lost, "it has ended its TLS session"};
  const ErrorCode code = established_ ? ErrorCode::peer_lost : ErrorCode::denied;
  const long verdict = SSL_get_verify_result(ssl_);
  if (certificates_ && verdict != X509_V_OK)
    return {code, fmt::format("TLS: its certificate is refused: {}", X509_verify_cert_error_string(verdict))};
  return {code, fmt::format("TLS: {}", last_error())};
}

}  // namespace switchyard::transfer
