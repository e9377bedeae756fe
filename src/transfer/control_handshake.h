// How two engines prove to each other that they have the same shared key, before either says who it is.
//
//   dialler                                   acceptor
//   Greeting{version, security, nonce D}  ->
//                                         <-  Greeting{version, security, nonce A}
//   Proof{MAC("dialler", transcript)}     ->                                          with a shared key
//                                         <-  Proof{MAC("acceptor", transcript)}
//
// The transcript is version, security, both nonces and the address that was dialled. Whoever dialled proves
// itself first: a stranger that dials learns no MAC. Either side's fresh nonce makes an old proof worthless,
// the role makes a reflected one worthless, and the address makes one worthless that was asked for by another
// engine than the one it is shown to. Then TLS begins, where it is used, with a key of this connection alone.
//
// A plain state machine: no socket, no clock. One per link, the worker's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "switchyard/result.h"
#include "transfer/control_record.h"
#include "transfer/control_security.h"

namespace switchyard::transfer {

class ControlHandshake {
 public:
  enum class Side : std::uint8_t { dialler, acceptor };

  // `endpoint`: where the dialler dialled, and where the acceptor says that it is to be dialled.
  ControlHandshake(std::shared_ptr<const ControlSecurity> security, Side side, std::string endpoint)
      : security_(std::move(security)), side_(side), endpoint_(std::move(endpoint)) {}

  // Appends the dialler's greeting to `out`. Errors: io.
  Status begin(std::vector<std::byte>& out);
  // Takes the other side's next record, and appends the answer. True: both sides have proven themselves.
  // Errors: denied (another key, other settings), unsupported (another version), corrupt (out of turn). Their
  // messages are for this side's eyes; refusal() is what the other may know.
  Result<bool> take(const Record& record, std::vector<std::byte>& out);
  static Reject refusal(const Error& error);

  // The key of this connection's TLS, once take() has returned true. Errors: denied.
  Result<Mac> tls_key() const { return security_->mac("switchyard control tls", transcript_); }
  Side side() const { return side_; }

 private:
  enum class State : std::uint8_t { greeting, proof, done };

  Status check(const Greeting& greeting) const;
  void write_transcript(const Greeting& theirs);
  Result<Mac> proof_of(Side side) const;

  std::shared_ptr<const ControlSecurity> security_;
  Side side_;
  State state_ = State::greeting;
  std::string endpoint_;
  Greeting ours_;
  std::vector<std::byte> transcript_;
};

}  // namespace switchyard::transfer
