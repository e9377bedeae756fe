// What protects an engine's control channel: nothing, a shared key, TLS, or both. Made once, when the engine
// opens, and shared by all its links; immutable, so any thread may use it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "switchyard/result.h"
#include "switchyard/transfer.h"
#include "transfer/control_record.h"

namespace switchyard::transfer {

class TlsContext;

class ControlSecurity {
 public:
  // Bits of Greeting::security. Both sides need the same ones: nothing is negotiated, so nothing can be
  // talked down.
  enum Mode : std::uint8_t { kKey = 1, kTls = 2, kCertificates = 4 };

  // Reads the certificates. Errors: invalid (a key that is too short, TLS without key and certificates, bad
  // files), unsupported (the cryptographic library computes no MAC).
  static Result<std::shared_ptr<const ControlSecurity>> create(const std::string& shared_key,
                                                               const TlsOptions& tls);
  ~ControlSecurity();

  std::uint8_t mode() const { return mode_; }
  bool has_key() const { return (mode_ & kKey) != 0; }
  // Null without TLS.
  const TlsContext* tls() const { return tls_.get(); }
  // HMAC-SHA256 under the shared key. `purpose` keeps MACs for different ends apart. Errors: denied; where
  // there is no MAC nothing is proven.
  Result<Mac> mac(std::string_view purpose, std::span<const std::byte> message) const;

 private:
  ControlSecurity() = default;

  std::uint8_t mode_ = 0;
  std::string key_;
  std::unique_ptr<const TlsContext> tls_;
};

// "a shared key and TLS", for messages.
std::string describe_security(std::uint8_t mode);

// From the kernel; never blocks once the machine has started. Errors: io.
Result<Nonce> make_nonce();

// In a time that does not depend on where they differ.
bool same_mac(const Mac& a, const Mac& b);

}  // namespace switchyard::transfer
