#include "transfer/control_channel.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"

namespace switchyard::transfer {
namespace {

constexpr std::uint32_t kMaxUnproven = 64;           // handshakes under way, dialled by others
constexpr std::size_t kRoomForMessages = 256 << 10;  // unsent bytes above which no message is taken
constexpr std::size_t kStopReading = 1 << 20;        // unsent bytes above which nothing more is read
constexpr std::size_t kReadChunk = 64 << 10;
constexpr int kReadsPerTurn = 8;  // so that one busy link does not keep the others waiting
constexpr std::uint64_t kListenerTag = ~std::uint64_t{0};
constexpr std::uint32_t kBeatChecks = 4;  // per heartbeat interval

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

Result<Address> resolve(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (code != 0) {
    return fail(ErrorCode::invalid, "control address '{}': {}; it has to be a numeric IP address", host,
                gai_strerror(code));
  }
  Address address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  freeaddrinfo(found);
  return address;
}

}  // namespace

struct ControlChannel::Link {
  enum class State { dialling, awaiting_welcome, awaiting_hello, welcoming, open };
  LinkId id = kNoLink;
  int socket = -1;
  State state = State::dialling;
  bool dialled = false;
  bool wants_write = false;
  bool reading = true;
  bool doomed = false;  // a reject was sent: close when it is out
  TimePoint handshake_deadline{};
  TimePoint last_heard{};
  TimePoint last_said{};
  std::vector<std::byte> in;  // received, not yet a whole record
  std::size_t parsed = 0;     // of `in`
  std::vector<std::byte> out;
  std::size_t sent = 0;  // of `out`
  Hello hello;           // to send, when dialled

  std::size_t unsent() const { return out.size() - sent; }
};

ControlChannel::ControlChannel(const Options& options) : options_(options) {
  links_.resize(options.max_links + kMaxUnproven);
}

ControlChannel::~ControlChannel() {
  for (auto& link : links_) {
    if (link && link->socket >= 0) ::close(link->socket);
  }
  if (listener_ >= 0) ::close(listener_);
  if (epoll_ >= 0) ::close(epoll_);
}

Result<std::unique_ptr<ControlChannel>> ControlChannel::open(const Options& options) {
  auto address = resolve(options.host, options.port);
  if (!address) return pass(address.error());
  std::unique_ptr<ControlChannel> self(new ControlChannel(options));
  auto io = [&](const char* what) {
    return fail(ErrorCode::io, "control channel at {}:{}: {}: {}", options.host, options.port, what,
                strerror(errno));
  };
  self->epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (self->epoll_ < 0) return io("epoll_create1");
  self->listener_ = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (self->listener_ < 0) return io("socket");
  const int on = 1;
  setsockopt(self->listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(self->listener_, reinterpret_cast<sockaddr*>(&address->storage), address->length) != 0)
    return io("bind");
  if (listen(self->listener_, 128) != 0) return io("listen");
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  if (getsockname(self->listener_, reinterpret_cast<sockaddr*>(&bound), &length) != 0)
    return io("getsockname");
  self->port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                                  : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  epoll_event event{.events = EPOLLIN, .data = {.u64 = kListenerTag}};
  if (epoll_ctl(self->epoll_, EPOLL_CTL_ADD, self->listener_, &event) != 0) return io("epoll_ctl");
  return self;
}

ControlChannel::Link* ControlChannel::find(LinkId id) {
  const std::size_t slot = slot_of(id);
  if (slot >= links_.size() || !links_[slot] || links_[slot]->id != id || links_[slot]->socket < 0)
    return nullptr;
  return links_[slot].get();
}

ControlChannel::Link* ControlChannel::make_link(int socket, TimePoint now) {
  for (std::size_t slot = 0; slot < links_.size(); ++slot) {
    auto& link = links_[slot];
    if (link && link->socket >= 0) continue;
    const std::uint64_t generation = link ? (link->id >> 32) + 1 : 1;
    link = std::make_unique<Link>();
    link->id = generation << 32 | slot;
    link->socket = socket;
    link->last_heard = link->last_said = now;
    link->handshake_deadline = now + options_.connect_limit;
    const int on = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_event event{.events = EPOLLIN, .data = {.u64 = link->id}};
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event) != 0) {
      link->socket = -1;
      return nullptr;
    }
    return link.get();
  }
  return nullptr;
}

void ControlChannel::drop(Link& link) {
  if (link.socket < 0) return;
  if (link.state == Link::State::awaiting_hello) --unproven_;
  ::close(link.socket);  // leaves the epoll set by itself
  link.socket = -1;
  link.in = {};
  link.out = {};
}

void ControlChannel::fail_link(Link& link, Handler& handler, const Error& why,
                               std::optional<Reject::Why> refused) {
  const LinkId id = link.id;
  const bool known = link.state != Link::State::awaiting_hello && !link.doomed;
  if (!known) log::debug("control channel: an unproven connection ended: {}", why.message);
  drop(link);
  if (known) handler.on_closed(id, why, refused);
}

Result<LinkId> ControlChannel::dial(const PeerAddress& peer, const Introduction& self, TimePoint now) {
  auto address = resolve(peer.control_host, peer.control_port);
  if (!address) return pass(address.error());
  const int socket = ::socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket < 0) return fail(ErrorCode::exhausted, "control channel: socket: {}", strerror(errno));
  Link* link = make_link(socket, now);
  if (link == nullptr) {
    ::close(socket);
    return fail(ErrorCode::exhausted, "control channel: {} connections are the limit", options_.max_links);
  }
  link->dialled = true;
  link->hello = Hello{self_, peer.engine_id, peer.epoch, self};
  if (connect(socket, reinterpret_cast<sockaddr*>(&address->storage), address->length) != 0 &&
      errno != EINPROGRESS) {
    const int error = errno;
    drop(*link);
    return fail(ErrorCode::peer_lost, "nobody answers at its control address: {}", strerror(error));
  }
  want_write(*link, true);
  return link->id;
}

void ControlChannel::want_write(Link& link, bool on) {
  const bool reading = link.unsent() < kStopReading;
  if (link.wants_write == on && link.reading == reading) return;
  link.wants_write = on;
  link.reading = reading;
  epoll_event event{.events = (on ? std::uint32_t{EPOLLOUT} : 0u) | (reading ? std::uint32_t{EPOLLIN} : 0u),
                    .data = {.u64 = link.id}};
  epoll_ctl(epoll_, EPOLL_CTL_MOD, link.socket, &event);
}

void ControlChannel::append(Link& link, const Record& record) { append_record(link.out, record); }

bool ControlChannel::send_message(LinkId id, std::uint64_t message_id, std::span<const std::byte> message) {
  Link* link = find(id);
  if (link == nullptr || link->state != Link::State::open || link->unsent() >= kRoomForMessages) return false;
  append(*link, Message{message_id, message});
  flush(*link);
  return true;
}

void ControlChannel::send_path(LinkId id, const PathRecord& record) {
  Link* link = find(id);
  if (link == nullptr || link->state != Link::State::open) return;
  append(*link, record);
  flush(*link);
}

void ControlChannel::ring(LinkId id) {
  Link* link = find(id);
  // Bytes that wait to be sent will ring as well.
  if (link == nullptr || link->state != Link::State::open || link->unsent() != 0) return;
  append(*link, Heartbeat{});
  flush(*link);
}

void ControlChannel::close(LinkId id, std::string_view reason) {
  Link* link = find(id);
  if (link == nullptr) return;
  if (link->state == Link::State::open) {
    append(*link, Goodbye{std::string(reason)});
    flush(*link);
  }
  drop(*link);
}

// Sends what the socket takes. False when the socket is broken; the next read says why.
bool ControlChannel::flush(Link& link) {
  while (link.unsent() != 0) {
    const ssize_t count = send(link.socket, link.out.data() + link.sent, link.unsent(), MSG_NOSIGNAL);
    if (count > 0) {
      link.sent += static_cast<std::size_t>(count);
    } else if (errno == EINTR) {
      continue;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      break;
    } else {
      return false;
    }
  }
  if (link.unsent() == 0) {
    link.out.clear();
    link.sent = 0;
  } else if (link.sent > kRoomForMessages) {
    link.out.erase(link.out.begin(), link.out.begin() + static_cast<std::ptrdiff_t>(link.sent));
    link.sent = 0;
  }
  want_write(link, link.unsent() != 0);
  return true;
}

void ControlChannel::accept_all(TimePoint now) {
  for (std::uint32_t i = 0; i < kMaxUnproven; ++i) {
    const int socket = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0) return;
    if (unproven_ == kMaxUnproven) {
      // The oldest has had its chance; a flood of silent connections keeps nobody out.
      Link* oldest = nullptr;
      for (auto& link : links_) {
        if (!link || link->socket < 0 || link->state != Link::State::awaiting_hello) continue;
        if (oldest == nullptr || link->handshake_deadline < oldest->handshake_deadline) oldest = link.get();
      }
      if (oldest != nullptr) drop(*oldest);
    }
    Link* link = make_link(socket, now);
    if (link == nullptr) {
      ::close(socket);
      return;
    }
    link->state = Link::State::awaiting_hello;
    ++unproven_;
  }
}

void ControlChannel::finish_connect(Link& link, Handler& handler) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(link.socket, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) {
    fail_link(
        link, handler,
        {ErrorCode::peer_lost, fmt::format("nobody answers at its control address: {}", strerror(error))});
    return;
  }
  sockaddr_storage other{};
  length = sizeof other;
  if (getpeername(link.socket, reinterpret_cast<sockaddr*>(&other), &length) != 0)
    return;  // not connected yet
  link.state = Link::State::awaiting_welcome;
  append(link, link.hello);
  flush(link);
}

bool ControlChannel::take(Link& link, Record& record, Handler& handler) {
  const LinkId id = link.id;
  if (link.doomed) return true;
  if (link.state == Link::State::awaiting_hello) {
    auto* hello = std::get_if<Hello>(&record);
    if (hello == nullptr) {
      fail_link(link, handler, {ErrorCode::corrupt, "no hello"});
      return false;
    }
    std::optional<Reject> reject;
    if (hello->to_engine != self_.engine_id || hello->to_epoch != self_.epoch) {
      reject =
          Reject{Reject::Why::denied, "the address belongs to an earlier engine; this one has a new epoch"};
    } else if (hello->from.engine_id == self_.engine_id) {
      reject = Reject{Reject::Why::invalid, "an engine does not dial itself"};
    }
    --unproven_;
    // Nothing goes out before the welcome.
    link.state = Link::State::welcoming;
    if (!reject) {
      auto answer = handler.on_hello(id, *hello);
      if (find(id) == nullptr) return false;
      if (auto* refusal = std::get_if<Reject>(&answer)) {
        reject = std::move(*refusal);
      } else {
        append(link, Welcome{std::get<Introduction>(std::move(answer))});
      }
    }
    link.state = Link::State::open;
    if (reject) {
      append(link, *reject);
      link.doomed = true;
    }
    if (!flush(link) || (link.doomed && link.unsent() == 0)) {
      if (link.doomed) drop(link);
      return find(id) != nullptr;
    }
    return true;
  }
  if (link.state == Link::State::awaiting_welcome) {
    if (auto* welcome = std::get_if<Welcome>(&record)) {
      link.state = Link::State::open;
      handler.on_open(id, welcome->self);
      return find(id) != nullptr;
    }
    if (auto* reject = std::get_if<Reject>(&record)) {
      ErrorCode code = ErrorCode::peer_lost;
      if (reject->why == Reject::Why::denied) code = ErrorCode::denied;
      if (reject->why == Reject::Why::exhausted) code = ErrorCode::exhausted;
      if (reject->why == Reject::Why::unsupported) code = ErrorCode::unsupported;
      fail_link(link, handler, {code, fmt::format("it refuses: {}", reject->reason)}, reject->why);
      return false;
    }
  } else if (auto* message = std::get_if<Message>(&record)) {
    handler.on_message(id, message->bytes);
    if (find(id) == nullptr) return false;
    append(link, MessageAck{message->id});
    return true;
  } else if (auto* ack = std::get_if<MessageAck>(&record)) {
    handler.on_ack(id, ack->id);
    return find(id) != nullptr;
  } else if (auto* path = std::get_if<PathRecord>(&record)) {
    handler.on_path(id, *path);
    return find(id) != nullptr;
  } else if (std::holds_alternative<Heartbeat>(record)) {
    return true;
  } else if (auto* goodbye = std::get_if<Goodbye>(&record)) {
    fail_link(link, handler, {ErrorCode::peer_lost, fmt::format("it has left: {}", goodbye->reason)});
    return false;
  }
  fail_link(link, handler, {ErrorCode::peer_lost, "it sent a control record out of turn"});
  return false;
}

bool ControlChannel::consume(Link& link, Handler& handler) {
  const LinkId id = link.id;
  for (;;) {
    const bool open = link.state == Link::State::open;
    const std::size_t limit =
        open ? std::max(options_.message_bytes + kMessageOverhead, kMaxHelloBytes) : kMaxHelloBytes;
    const auto rest = std::span<const std::byte>(link.in).subspan(link.parsed);
    auto header = parse_header(rest, limit);
    Error broken{ErrorCode::peer_lost, {}};
    if (header && (!*header || rest.size() < kRecordHeaderBytes + (*header)->payload_bytes)) break;
    if (header) {
      auto record = parse_record((*header)->type, rest.subspan(kRecordHeaderBytes, (*header)->payload_bytes));
      if (record) {
        const std::size_t whole = kRecordHeaderBytes + (*header)->payload_bytes;
        if (!take(link, *record, handler)) return false;
        link.parsed += whole;
        continue;
      }
      broken.message = record.error().message;
    } else {
      broken.message = header.error().message;
    }
    fail_link(link, handler, broken);
    return false;
  }
  link.in.erase(link.in.begin(), link.in.begin() + static_cast<std::ptrdiff_t>(link.parsed));
  link.parsed = 0;
  return find(id) != nullptr;
}

void ControlChannel::read(Link& link, TimePoint now, Handler& handler) {
  const LinkId id = link.id;
  for (int turn = 0; turn < kReadsPerTurn && link.unsent() < kStopReading; ++turn) {
    const std::size_t before = link.in.size();
    link.in.resize(before + kReadChunk);
    const ssize_t count = recv(link.socket, link.in.data() + before, kReadChunk, 0);
    const int error = errno;
    link.in.resize(before + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    if (count > 0) {
      link.last_heard = now;
      if (!consume(link, handler)) return;
      if (static_cast<std::size_t>(count) < kReadChunk) break;
      continue;
    }
    if (count < 0 && (error == EAGAIN || error == EWOULDBLOCK || error == EINTR)) break;
    fail_link(
        link, handler,
        {ErrorCode::peer_lost, count == 0 ? std::string("its connection was closed: the process has ended")
                                          : fmt::format("its connection broke: {}", strerror(error))});
    return;
  }
  if (find(id) != nullptr && link.unsent() != 0) flush(link);
}

void ControlChannel::beat(TimePoint now, Handler& handler) {
  if (now < next_beat_) return;
  next_beat_ = now + options_.heartbeat_interval / kBeatChecks;
  for (auto& held : links_) {
    if (!held || held->socket < 0) continue;
    Link& link = *held;
    if (link.state != Link::State::open || link.doomed) {
      if (now >= link.handshake_deadline) {
        fail_link(link, handler, {ErrorCode::peer_lost, "no handshake in time"});
      }
      continue;
    }
    if (now - link.last_heard >= options_.heartbeat_limit) {
      fail_link(link, handler,
                {ErrorCode::peer_lost,
                 fmt::format("nothing heard from it for {:.1f} s", to_seconds(now - link.last_heard))});
    } else if (now - link.last_said >= options_.heartbeat_interval && link.unsent() < kRoomForMessages) {
      append(link, Heartbeat{});
      link.last_said = now;
      flush(link);
    }
  }
}

bool ControlChannel::poll(TimePoint now, Handler& handler) {
  // When this thread itself has stood still, silence says nothing about the others.
  if (last_poll_ != TimePoint{} && now - last_poll_ > options_.heartbeat_interval) {
    for (auto& link : links_) {
      if (link) link->last_heard += now - last_poll_;
    }
  }
  last_poll_ = now;
  constexpr int kEvents = 64;
  epoll_event events[kEvents];
  const int count = epoll_wait(epoll_, events, kEvents, 0);
  for (int i = 0; i < count; ++i) {
    if (events[i].data.u64 == kListenerTag) {
      accept_all(now);
      continue;
    }
    Link* link = find(events[i].data.u64);
    if (link == nullptr) continue;
    if (link->state == Link::State::dialling) {
      finish_connect(*link, handler);
      continue;
    }
    if ((events[i].events & EPOLLOUT) != 0) {
      flush(*link);
      if (link->doomed && link->unsent() == 0) {
        drop(*link);
        continue;
      }
    }
    if ((events[i].events & (EPOLLHUP | EPOLLERR)) != 0 && !link->reading) {
      fail_link(*link, handler, {ErrorCode::peer_lost, "its connection broke"});
    } else if ((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
      read(*link, now, handler);
    }
  }
  beat(now, handler);
  return count > 0;
}

TimePoint ControlChannel::next_deadline() const { return next_beat_; }

}  // namespace switchyard::transfer
