#include "transfer/control_security.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "transfer/tls_stream.h"

namespace switchyard {

Result<std::string> make_shared_key() {
  auto nonce = transfer::make_nonce();
  if (!nonce) return pass(nonce.error());
  return std::string(nonce->begin(), nonce->end());
}

}  // namespace switchyard

namespace switchyard::transfer {

Result<std::shared_ptr<const ControlSecurity>> ControlSecurity::create(const std::string& shared_key,
                                                                       const TlsOptions& tls) {
  std::shared_ptr<ControlSecurity> self(new ControlSecurity());
  if (!shared_key.empty()) {
    if (shared_key.size() < EngineOptions::kMinKeyBytes || shared_key.size() > EngineOptions::kMaxKeyBytes) {
      return fail(ErrorCode::invalid, "the shared key has {} bytes; it has to have {} to {}",
                  shared_key.size(), EngineOptions::kMinKeyBytes, EngineOptions::kMaxKeyBytes);
    }
    self->mode_ |= kKey;
    self->key_ = shared_key;
    // Better now than at the first connection.
    if (auto mac = self->mac("switchyard control", {}); !mac)
      return fail(ErrorCode::unsupported, "the shared key cannot be used: {}", mac.error().message);
  }
  const int files = !tls.certificate_file.empty() + !tls.key_file.empty() + !tls.ca_file.empty();
  if (files != 0 && (files != 3 || !tls.enabled)) {
    return fail(ErrorCode::invalid,
                "TLS: a certificate, its key and a CA are needed together, and TLS enabled");
  }
  if (tls.enabled) {
    if (files == 0 && shared_key.empty()) {
      return fail(ErrorCode::invalid, "TLS needs certificates or a shared key");
    }
    self->mode_ |= files == 0 ? kTls : kTls | kCertificates;
    auto context = files == 0 ? TlsContext::with_keys() : TlsContext::with_certificates(tls);
    if (!context) return pass(context.error());
    self->tls_ = *std::move(context);
  }
  return self;
}

ControlSecurity::~ControlSecurity() { OPENSSL_cleanse(key_.data(), key_.size()); }

Result<Mac> ControlSecurity::mac(std::string_view purpose, std::span<const std::byte> message) const {
  ByteWriter input;
  input.write_string(purpose);
  input.write_bytes(message);
  Mac mac{};
  std::size_t length = 0;
  if (EVP_Q_mac(nullptr, "HMAC", nullptr, "SHA256", nullptr, key_.data(), key_.size(),
                reinterpret_cast<const unsigned char*>(input.bytes().data()), input.bytes().size(),
                mac.data(), mac.size(), &length) == nullptr ||
      length != mac.size()) {
    const char* const why = ERR_reason_error_string(ERR_peek_last_error());
    return fail(ErrorCode::denied, "HMAC-SHA256 cannot be computed: {}",
                why != nullptr ? why : "the cryptographic library does not say why");
  }
  return mac;
}

std::string describe_security(std::uint8_t mode) {
  const std::string_view key = (mode & ControlSecurity::kKey) != 0 ? "a shared key" : "no shared key";
  const std::string_view tls = (mode & ControlSecurity::kCertificates) != 0 ? "TLS with certificates"
                               : (mode & ControlSecurity::kTls) != 0        ? "TLS"
                                                                            : "no TLS";
  return fmt::format("{} and {}", key, tls);
}

Result<Nonce> make_nonce() {
  Nonce nonce;
  if (auto ok = fill_random(std::as_writable_bytes(std::span(nonce))); !ok) return pass(ok.error());
  return nonce;
}

bool same_mac(const Mac& a, const Mac& b) { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

}  // namespace switchyard::transfer
