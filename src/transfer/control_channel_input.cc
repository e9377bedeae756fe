// What arrives at the control channel: bytes, TLS, records, and what each record may be when.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/system_limits.h"
#include "transfer/control_channel.h"

namespace switchyard::transfer {
namespace {

constexpr int kReadsPerTurn = 8;  // so that one busy link does not keep the others waiting
constexpr std::size_t kMaxThrownAway = 256 << 10;

using State = ControlLink::State;

template <class T, std::size_t I = 0>
constexpr std::uint8_t type_of() {
  if constexpr (std::is_same_v<std::variant_alternative_t<I, Record>, T>)
    return I;
  else
    return type_of<T, I + 1>();
}

// Nothing else is even parsed.
bool may_come(const ControlLink& link, std::uint8_t type) {
  switch (link.state) {
    case State::proving:
      return type == type_of<Greeting>() || type == type_of<Proof>() ||
             (link.dialled && type == type_of<Reject>());
    case State::awaiting_hello:
      return type == type_of<Hello>();
    case State::awaiting_welcome:
      return type == type_of<Welcome>() || type == type_of<Reject>();
    case State::open:
      return type == type_of<Heartbeat>() || type == type_of<Message>() || type == type_of<MessageAck>() ||
             type == type_of<Goodbye>() || type == type_of<PathRecord>();
    default:
      return false;
  }
}

// Words of others, fit for a log.
std::string quote(std::string_view reason) {
  std::string text(reason.substr(0, kMaxReasonBytes));
  std::ranges::replace_if(
      text, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text;
}

}  // namespace

std::size_t ControlChannel::record_limit(const Link& link) const {
  if (link.state == State::proving) return kMaxHandshakeBytes;
  if (link.state != State::open) return kMaxHelloBytes;
  return std::max(options_.message_bytes + kMessageOverhead, kMaxHelloBytes);
}

// Who talks and does not listen is not read any more once so many replies wait for it. Our own messages do
// not count: two sides that send each other long ones would both stop to read, and wait for each other.
bool ControlChannel::may_read(const Link& link) const {
  const std::size_t longest = options_.message_bytes + options_.message_bytes / 256;  // inside of TLS
  return link.unsent() < Link::kRoomForMessages + longest + Link::kRoomForReplies;
}

void ControlChannel::read(Link& link, Handler& handler) {
  for (int turn = 0; turn < kReadsPerTurn && may_read(link); ++turn) {
    const ssize_t count = recv(link.socket, arrived_.data(), arrived_.size(), 0);
    const int error = errno;
    if (count > 0) {
      link.last_heard = now_;
      if (!take_bytes(link, std::span(arrived_).first(static_cast<std::size_t>(count)), handler)) return;
      if (static_cast<std::size_t>(count) < arrived_.size()) break;
      continue;
    }
    if (count < 0 && (error == EAGAIN || error == EWOULDBLOCK || error == EINTR)) break;
    const bool early = link.state != State::open;
    return fail_link(
        link, handler,
        {ErrorCode::peer_lost, count != 0 ? fmt::format("its connection broke: {}", error_text(error))
                               : early    ? std::string("it closed the connection during the handshake")
                                          : std::string("its connection was closed: the process has ended")},
        early ? std::optional(Reject::Why::busy) : std::nullopt);
  }
  if (link.unsent() != 0) flush(link);
}

bool ControlChannel::take_bytes(Link& link, std::span<const std::byte> bytes, Handler& handler) {
  if (link.state == State::leaving) {
    link.thrown_away += bytes.size();
    if (link.thrown_away <= kMaxThrownAway) return true;
    drop(link);
    return false;
  }
  return link.tls != nullptr ? take_wire(link, bytes, handler) : take_plain(link, bytes, handler);
}

bool ControlChannel::take_wire(Link& link, std::span<const std::byte> bytes, Handler& handler) {
  std::vector<std::byte> plain;
  const Status status = link.tls->receive(bytes, plain, link.out);
  if (!status) {
    if (link.state == State::open) {
      fail_link(link, handler, status.error());
      return false;
    }
    const Error why{ErrorCode::denied, status.error().message};
    refusals_.warn(link.other.host(), why.message, now_);
    leave(link, handler, why);
    return false;
  }
  if (link.state == State::securing && link.tls->established()) begin_hello(link);
  return take_plain(link, plain, handler);
}

bool ControlChannel::take_plain(Link& link, std::span<const std::byte> bytes, Handler& handler) {
  const bool secured = link.tls != nullptr;
  // Most often what arrives begins and ends with a record, and nothing is copied. A handler may close the
  // link: what it is shown is held here.
  std::vector<std::byte> held = std::exchange(link.in, {});
  if (!held.empty()) {
    held.insert(held.end(), bytes.begin(), bytes.end());
    bytes = held;
  }
  const auto used = take_records(link, bytes, handler);
  if (!used) return false;
  bytes = bytes.subspan(*used);
  // With the last record of the handshake TLS has begun.
  if (!secured && link.tls != nullptr) return take_wire(link, bytes, handler);
  if (held.empty()) {
    link.in.assign(bytes.begin(), bytes.end());
  } else {
    held.erase(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(*used));
    link.in = std::move(held);
  }
  return true;
}

// The number of bytes that were whole records; nothing when the link is gone or leaving.
std::optional<std::size_t> ControlChannel::take_records(Link& link, std::span<const std::byte> bytes,
                                                        Handler& handler) {
  const bool secured = link.tls != nullptr;
  std::size_t used = 0;
  while (secured == (link.tls != nullptr)) {
    const auto rest = bytes.subspan(used);
    auto header = parse_header(rest, record_limit(link));
    if (header && (!*header || (may_come(link, (*header)->type) &&
                                rest.size() < kRecordHeaderBytes + (*header)->payload_bytes))) {
      break;
    }
    Error broken{ErrorCode::peer_lost, "it sent a control record out of turn"};
    if (!header) {
      broken.message = header.error().message;
    } else if (may_come(link, (*header)->type)) {
      const std::size_t whole = kRecordHeaderBytes + (*header)->payload_bytes;
      auto record = parse_record((*header)->type, rest.first(whole).subspan(kRecordHeaderBytes));
      if (record) {
        if (!take(link, *record, handler)) return std::nullopt;
        used += whole;
        continue;
      }
      broken.message = record.error().message;
    }
    if (link.is_unproven()) refusals_.warn(link.other.host(), broken.message, now_);
    fail_link(link, handler, broken);
    return std::nullopt;
  }
  return used;
}

bool ControlChannel::take(Link& link, Record& record, Handler& handler) {
  switch (link.state) {
    case State::proving:
      return take_handshake(link, record, handler);
    case State::awaiting_hello:
      return take_hello(link, std::get<Hello>(record), handler);
    case State::awaiting_welcome: {
      if (auto* reject = std::get_if<Reject>(&record)) return take_reject(link, *reject, handler);
      const LinkId id = link.id;
      link.state = State::open;
      handler.on_open(id, std::get<Welcome>(record).self);
      return find(id) != nullptr;
    }
    default:
      return take_open(link, record, handler);
  }
}

bool ControlChannel::take_handshake(Link& link, const Record& record, Handler& handler) {
  if (auto* reject = std::get_if<Reject>(&record)) return take_reject(link, *reject, handler);
  auto proven = link.handshake->take(record, link.out);
  if (!proven) {
    refuse(link, proven.error(), ControlHandshake::refusal(proven.error()), handler);
    return false;
  }
  if (*proven) {
    if (security_->tls() != nullptr) return begin_tls(link, handler);
    begin_hello(link);
  }
  return true;
}

bool ControlChannel::begin_tls(Link& link, Handler& handler) {
  const auto role = link.dialled ? TlsStream::Role::client : TlsStream::Role::server;
  auto key = link.handshake->tls_key();
  auto tls = key ? TlsStream::create(*security_->tls(), role, *key) : pass(key.error());
  if (!tls) {
    fail_link(link, handler, tls.error());
    return false;
  }
  link.tls = *std::move(tls);
  link.state = State::securing;
  return true;
}

void ControlChannel::begin_hello(Link& link) {
  link.handshake.reset();
  link.state = link.dialled ? State::awaiting_welcome : State::awaiting_hello;
  if (link.dialled) link.append(std::exchange(link.hello, {}));
}

bool ControlChannel::take_hello(Link& link, const Hello& hello, Handler& handler) {
  const LinkId id = link.id;
  std::optional<Reject> reject;
  link.state = State::welcoming;
  if (hello.to_engine != self_.engine_id || hello.to_epoch != self_.epoch) {
    reject =
        Reject{Reject::Why::denied, "the address belongs to an earlier engine; this one has a new epoch"};
  } else if (hello.from.engine_id == self_.engine_id) {
    reject = Reject{Reject::Why::invalid, "an engine does not dial itself"};
  } else {
    auto answer = handler.on_hello(id, hello);
    if (find(id) == nullptr) return false;
    if (auto* refusal = std::get_if<Reject>(&answer)) {
      reject = std::move(*refusal);
    } else {
      link.append(Welcome{std::get<Introduction>(std::move(answer))});
    }
  }
  if (reject) {
    link.append(*reject);
    leave(link, handler, {});
    return false;
  }
  link.state = State::open;
  --unproven_;
  listen(true);
  flush(link);
  return true;
}

bool ControlChannel::take_open(Link& link, Record& record, Handler& handler) {
  const LinkId id = link.id;
  if (auto* message = std::get_if<Message>(&record)) {
    handler.on_message(id, message->bytes);
    if (find(id) == nullptr) return false;
    link.append(MessageAck{message->id});
    return true;
  }
  if (auto* goodbye = std::get_if<Goodbye>(&record)) {
    fail_link(link, handler, {ErrorCode::peer_lost, fmt::format("it has left: {}", quote(goodbye->reason))});
    return false;
  }
  if (auto* ack = std::get_if<MessageAck>(&record)) {
    handler.on_ack(id, ack->id);
  } else if (auto* path = std::get_if<PathRecord>(&record)) {
    path->reason = quote(path->reason);
    handler.on_path(id, *path);
  }
  return find(id) != nullptr;
}

bool ControlChannel::take_reject(Link& link, const Reject& reject, Handler& handler) {
  ErrorCode code = ErrorCode::peer_lost;
  if (reject.why == Reject::Why::denied) code = ErrorCode::denied;
  if (reject.why == Reject::Why::exhausted) code = ErrorCode::exhausted;
  if (reject.why == Reject::Why::unsupported) code = ErrorCode::unsupported;
  std::string what = fmt::format("it refuses: {}", quote(reject.reason));
  if (link.state == State::proving) {
    what += fmt::format(" (this engine uses {}; the other has to use the same, and the same key)",
                        describe_security(security_->mode()));
    refusals_.warn(fmt::format("{}:{}", link.other.host(), link.other.port()), what, now_);
  }
  fail_link(link, handler, {code, what}, reject.why);
  return false;
}

void ControlChannel::refuse(Link& link, const Error& why, const Reject& told, Handler& handler) {
  refusals_.warn(
      link.dialled ? fmt::format("{}:{}", link.other.host(), link.other.port()) : link.other.host(),
      fmt::format("authentication failed: {}", why.message), now_);
  link.append(told);
  leave(link, handler, why);
}

}  // namespace switchyard::transfer
