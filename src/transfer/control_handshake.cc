#include "transfer/control_handshake.h"

#include "base/bytes.h"

namespace switchyard::transfer {

Status ControlHandshake::begin(std::vector<std::byte>& out) {
  auto nonce = make_nonce();
  if (!nonce) return pass(nonce.error());
  ours_ = {.security = security_->mode(), .nonce = *nonce};
  append_record(out, ours_);
  return {};
}

Result<bool> ControlHandshake::take(const Record& record, std::vector<std::byte>& out) {
  if (const auto* theirs = std::get_if<Greeting>(&record); theirs != nullptr && state_ == State::greeting) {
    if (auto ok = check(*theirs); !ok) return pass(ok.error());
    if (side_ == Side::acceptor) {
      if (auto ok = begin(out); !ok) return pass(ok.error());
    }
    write_transcript(*theirs);
    state_ = security_->has_key() ? State::proof : State::done;
    if (state_ == State::proof && side_ == Side::dialler) {
      auto ours = proof_of(Side::dialler);
      if (!ours) return pass(ours.error());
      append_record(out, Proof{*ours});
    }
    return state_ == State::done;
  }
  if (const auto* proof = std::get_if<Proof>(&record); proof != nullptr && state_ == State::proof) {
    auto ours = proof_of(side_), theirs = proof_of(side_ == Side::dialler ? Side::acceptor : Side::dialler);
    if (!ours || !theirs) return pass((ours ? theirs : ours).error());
    if (!same_mac(proof->mac, *theirs)) {
      return fail(ErrorCode::denied,
                  "it has another shared key, or was dialled under another address than {}", endpoint_);
    }
    if (side_ == Side::acceptor) append_record(out, Proof{*ours});
    state_ = State::done;
    return true;
  }
  return fail(ErrorCode::corrupt, "it sent a record of the handshake out of turn");
}

Status ControlHandshake::check(const Greeting& theirs) const {
  if (theirs.version != kControlVersion) {
    return fail(ErrorCode::unsupported, "it speaks version {} of the control channel, this engine {}",
                theirs.version, kControlVersion);
  }
  if (theirs.security != security_->mode()) {
    return fail(ErrorCode::denied, "it uses {}, this engine {}; both need the same",
                describe_security(theirs.security), describe_security(security_->mode()));
  }
  return {};
}

void ControlHandshake::write_transcript(const Greeting& theirs) {
  ByteWriter writer;
  writer.write(kControlVersion);
  writer.write(security_->mode());
  writer.write(side_ == Side::dialler ? ours_.nonce : theirs.nonce);
  writer.write(side_ == Side::dialler ? theirs.nonce : ours_.nonce);
  writer.write_string(endpoint_);
  transcript_ = writer.take();
}

Result<Mac> ControlHandshake::proof_of(Side side) const {
  return security_->mac(side == Side::dialler ? "switchyard control dialler" : "switchyard control acceptor",
                        transcript_);
}

Reject ControlHandshake::refusal(const Error& error) {
  switch (error.code) {
    case ErrorCode::denied:
      return {Reject::Why::denied, "authentication failed"};
    case ErrorCode::unsupported:
      return {Reject::Why::unsupported,
              fmt::format("version {} of the control channel is spoken here", kControlVersion)};
    default:
      return {Reject::Why::invalid, "not a handshake"};
  }
}

}  // namespace switchyard::transfer
