// TLS 1.3 over a connection that somebody else reads and writes: bytes in, bytes out, nothing blocks.
//
// Without certificates both sides use a pre-shared key, one for each connection; with them, both have to show
// one that the CA signed. No tickets, no early data, no older versions. Costs about a millisecond of CPU per
// handshake. A TlsStream is its link's; a TlsContext is shared and immutable.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "switchyard/result.h"
#include "switchyard/transfer.h"
#include "transfer/control_record.h"

struct ssl_ctx_st;
struct ssl_st;

namespace switchyard::transfer {

class TlsContext {
 public:
  static Result<std::unique_ptr<const TlsContext>> with_keys();
  // Errors: invalid (files).
  static Result<std::unique_ptr<const TlsContext>> with_certificates(const TlsOptions& options);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

 private:
  friend class TlsStream;
  TlsContext(ssl_ctx_st* context, bool certificates) : context_(context), certificates_(certificates) {}
  ssl_ctx_st* const context_;
  const bool certificates_;
};

class TlsStream {
 public:
  enum class Role : std::uint8_t { client, server };

  // `key` is used where the context has no certificates. Errors: exhausted.
  static Result<std::unique_ptr<TlsStream>> create(const TlsContext& context, Role role, const Mac& key);
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // Begins, where it is this side's turn, and goes on: takes what has arrived, appends to `plain` what it
  // holds, and to `wire` what has to be sent, an alert after an error included. Errors: denied, until
  // established() holds; afterwards peer_lost.
  Status receive(std::span<const std::byte> arrived, std::vector<std::byte>& plain,
                 std::vector<std::byte>& wire);
  // After established(). Errors: peer_lost.
  Status send(std::span<const std::byte> plain, std::vector<std::byte>& wire);
  bool established() const { return established_; }
  const Mac& key() const { return key_; }

 private:
  TlsStream(ssl_st* ssl, bool certificates, const Mac& key)
      : ssl_(ssl), certificates_(certificates), key_(key) {}
  Status advance(std::vector<std::byte>& plain);
  Error error_of(int result) const;
  void take_wire(std::vector<std::byte>& wire);

  ssl_st* const ssl_;
  const bool certificates_;
  const Mac key_;
  bool established_ = false;
};

}  // namespace switchyard::transfer
