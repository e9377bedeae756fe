#include "transfer/control_channel.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/system_limits.h"

namespace switchyard::transfer {
namespace {

constexpr std::uint32_t kMaxUnproven = 128;  // handshakes under way, dialled by others
// A handshake may take so long before a newer one takes its place, where there is no other.
constexpr Nanos kGrace = std::chrono::milliseconds(250);
constexpr int kBacklog = 1024;
constexpr std::size_t kReadChunk = 64 << 10;
constexpr std::uint64_t kListenerTag = ~std::uint64_t{0};
constexpr std::uint32_t kBeatChecks = 4;  // per heartbeat interval

bool out_of_descriptors(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

// What to do about an error that a system call gave.
std::string explain(int error) {
  std::string text = error_text(error);
  if (error == EMFILE) text += " in this process: raise RLIMIT_NOFILE (ulimit -n)";
  return text;
}

}  // namespace

ControlChannel::ControlChannel(const Options& options) : options_(options) {
  links_.resize(options.max_links + kMaxUnproven);
  arrived_.resize(kReadChunk);
}

ControlChannel::~ControlChannel() {
  for (auto& link : links_) {
    if (link && link->socket >= 0) ::close(link->socket);
  }
  if (listener_ >= 0) ::close(listener_);
  if (epoll_ >= 0) ::close(epoll_);
}

Result<std::unique_ptr<ControlChannel>> ControlChannel::open(const Options& options) {
  auto address = SocketAddress::parse(options.host, options.port);
  if (!address) return pass(address.error());
  auto security = ControlSecurity::create(options.shared_key, options.tls);
  if (!security) return fail_at("control channel", security.error());
  std::unique_ptr<ControlChannel> self(new ControlChannel(options));
  self->security_ = *std::move(security);
  // The secret lives in one place.
  self->options_.shared_key.clear();
  if (auto ok = self->listen_at(*address); !ok) {
    return fail_at(fmt::format("control channel at {}:{}", options.host, options.port), ok.error());
  }
  return self;
}

Status ControlChannel::listen_at(const SocketAddress& address) {
  auto io = [](const char* what) { return fail(ErrorCode::io, "{}: {}", what, explain(errno)); };
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return io("epoll_create1");
  listener_ = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener_ < 0) return io("socket");
  const int on = 1;
  setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener_, address.get(), address.length) != 0) return io("bind");
  if (::listen(listener_, kBacklog) != 0) return io("listen");
  SocketAddress bound;
  bound.length = sizeof bound.storage;
  if (getsockname(listener_, bound.get(), &bound.length) != 0) return io("getsockname");
  port_ = bound.port();
  endpoint_ = fmt::format("{}:{}", address.host(), port_);
  epoll_event event{.events = EPOLLIN, .data = {.u64 = kListenerTag}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, listener_, &event) != 0) return io("epoll_ctl");
  listening_ = true;
  return {};
}

ControlChannel::Link* ControlChannel::find(LinkId id) {
  const std::size_t slot = slot_of(id);
  if (slot >= links_.size() || !links_[slot] || links_[slot]->id != id || links_[slot]->socket < 0)
    return nullptr;
  return links_[slot].get();
}

ControlChannel::Link* ControlChannel::make_link(int socket, const SocketAddress& other, TimePoint now) {
  for (std::size_t slot = 0; slot < links_.size(); ++slot) {
    auto& link = links_[slot];
    if (link && link->socket >= 0) continue;
    const std::uint64_t generation = link ? (link->id >> 32) + 1 : 1;
    link = std::make_unique<Link>();
    link->id = generation << 32 | slot;
    link->socket = socket;
    link->other = other;
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
  ::close(link.socket);  // leaves the epoll set by itself
  link.socket = -1;
  link.in = {};
  link.out = {};
  link.tls.reset();
  if (link.is_unproven()) {
    --unproven_;
    listen(true);
  }
}

void ControlChannel::fail_link(Link& link, Handler& handler, const Error& why,
                               std::optional<Reject::Why> refused) {
  const LinkId id = link.id;
  const bool known = !link.is_unproven() && link.state != Link::State::leaving;
  drop(link);
  if (known) handler.on_closed(id, why, refused);
}

// Ends a link whose other side is to read first what stands in `out`: closing a socket at once would take the
// words back.
void ControlChannel::leave(Link& link, Handler& handler, const Error& why) {
  const LinkId id = link.id;
  const bool known = link.dialled && link.state != Link::State::leaving;
  link.state = Link::State::leaving;
  link.in = {};
  if (!flush(link)) {
    drop(link);
  } else if (link.unsent() == 0) {
    shutdown(link.socket, SHUT_WR);
  }
  if (known) handler.on_closed(id, why, std::nullopt);
}

Result<LinkId> ControlChannel::dial(const PeerAddress& peer, const Introduction& self, TimePoint now) {
  auto address = SocketAddress::parse(peer.control_host, peer.control_port);
  if (!address) return pass(address.error());
  const int socket = ::socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket < 0) return fail(ErrorCode::exhausted, "control channel: socket: {}", explain(errno));
  Link* link = make_link(socket, *address, now);
  if (link == nullptr) {
    ::close(socket);
    return fail(ErrorCode::exhausted, "control channel: {} connections are the limit", options_.max_links);
  }
  link->dialled = true;
  link->hello = Hello{self_, peer.engine_id, peer.epoch, self};
  if (connect(socket, address->get(), address->length) != 0 && errno != EINPROGRESS) {
    const int error = errno;
    drop(*link);
    return fail(ErrorCode::peer_lost, "nobody answers at its control address: {}", error_text(error));
  }
  update_interest(*link);
  return link->id;
}

bool ControlChannel::send_message(LinkId id, std::uint64_t message_id, std::span<const std::byte> message) {
  Link* link = find(id);
  if (link == nullptr || link->state != Link::State::open || link->unsent() >= Link::kRoomForMessages)
    return false;
  link->append(Message{message_id, message});
  flush(*link);
  return true;
}

void ControlChannel::send_path(LinkId id, const PathRecord& record) {
  Link* link = find(id);
  if (link == nullptr || link->state != Link::State::open) return;
  link->append(record);
  flush(*link);
}

void ControlChannel::ring(LinkId id) {
  Link* link = find(id);
  // Bytes that wait to be sent will ring as well.
  if (link == nullptr || link->state != Link::State::open || link->unsent() != 0) return;
  link->append(Heartbeat{});
  flush(*link);
}

void ControlChannel::close(LinkId id, std::string_view reason) {
  Link* link = find(id);
  if (link == nullptr) return;
  if (link->state == Link::State::open) {
    link->append(Goodbye{std::string(reason)});
    flush(*link);
  }
  drop(*link);
}

bool ControlChannel::flush(Link& link) {
  if (!link.flush()) return false;
  update_interest(link);
  return true;
}

void ControlChannel::update_interest(Link& link) {
  const bool writing = link.unsent() != 0 || link.state == Link::State::dialling;
  const bool reading = may_read(link);
  if (link.wants_write == writing && link.reading == reading) return;
  link.wants_write = writing;
  link.reading = reading;
  epoll_event event{
      .events = (writing ? std::uint32_t{EPOLLOUT} : 0u) | (reading ? std::uint32_t{EPOLLIN} : 0u),
      .data = {.u64 = link.id}};
  epoll_ctl(epoll_, EPOLL_CTL_MOD, link.socket, &event);
}

// While nothing can be accepted the listener would be readable for ever.
void ControlChannel::listen(bool on) {
  if (listening_ == on) return;
  listening_ = on;
  epoll_event event{.events = on ? std::uint32_t{EPOLLIN} : 0u, .data = {.u64 = kListenerTag}};
  epoll_ctl(epoll_, EPOLL_CTL_MOD, listener_, &event);
}

void ControlChannel::accept_all(TimePoint now) {
  for (std::uint32_t i = 0; i < kMaxUnproven; ++i) {
    if (unproven_ == kMaxUnproven && !evict_unproven(now)) return listen(false);
    SocketAddress other;
    other.length = sizeof other.storage;
    const int socket = accept4(listener_, other.get(), &other.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0) {
      if (errno == ECONNABORTED || errno == EINTR) continue;
      if (out_of_descriptors(errno)) {
        refusals_.warn(endpoint_, fmt::format("no connection can be accepted: {}", explain(errno)), now);
        listen(false);
      }
      return;
    }
    Link* link = make_link(socket, other, now);
    if (link == nullptr) {
      ::close(socket);
      return;
    }
    link->state = Link::State::proving;
    link->handshake.emplace(security_, ControlHandshake::Side::acceptor, endpoint_);
    ++unproven_;
  }
}

// Makes room for a newcomer: who is being refused goes first, then who has not proven itself for longest. A
// flood of silent connections so keeps nobody out, and nobody is cut off who is only as quick as others.
bool ControlChannel::evict_unproven(TimePoint now) {
  const Nanos grace = std::min(kGrace, options_.connect_limit / 8);
  auto rank = [](const Link& link) {
    return link.state == Link::State::leaving ? 0 : link.state == Link::State::proving ? 1 : 2;
  };
  Link* worst = nullptr;
  for (auto& link : links_) {
    if (!link || link->socket < 0 || !link->is_unproven()) continue;
    if (rank(*link) != 0 && now - (link->handshake_deadline - options_.connect_limit) < grace) continue;
    if (worst == nullptr || std::pair(rank(*link), link->handshake_deadline) <
                                std::pair(rank(*worst), worst->handshake_deadline)) {
      worst = link.get();
    }
  }
  if (worst == nullptr) return false;
  drop(*worst);
  return true;
}

void ControlChannel::finish_connect(Link& link, Handler& handler) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(link.socket, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) {
    return fail_link(
        link, handler,
        {ErrorCode::peer_lost, fmt::format("nobody answers at its control address: {}", error_text(error))});
  }
  sockaddr_storage other{};
  length = sizeof other;
  if (getpeername(link.socket, reinterpret_cast<sockaddr*>(&other), &length) != 0)
    return;  // not connected yet
  link.state = Link::State::proving;
  link.handshake.emplace(security_, ControlHandshake::Side::dialler,
                         fmt::format("{}:{}", link.other.host(), link.other.port()));
  if (auto ok = link.handshake->begin(link.out); !ok) return fail_link(link, handler, ok.error());
  flush(link);
}

void ControlChannel::beat(TimePoint now, Handler& handler) {
  if (now < next_beat_) return;
  next_beat_ = now + options_.heartbeat_interval / kBeatChecks;
  listen(true);
  for (auto& held : links_) {
    if (!held || held->socket < 0) continue;
    Link& link = *held;
    if (link.state != Link::State::open) {
      if (now < link.handshake_deadline) continue;
      if (link.is_unproven() && link.state != Link::State::leaving) {
        refusals_.warn(link.other.host(), "a connection was closed: no handshake in time", now);
      }
      fail_link(link, handler, {ErrorCode::peer_lost, "no handshake in time"});
    } else if (now - link.last_heard >= options_.heartbeat_limit) {
      fail_link(link, handler,
                {ErrorCode::peer_lost,
                 fmt::format("nothing heard from it for {:.1f} s", to_seconds(now - link.last_heard))});
    } else if (now - link.last_said >= options_.heartbeat_interval &&
               link.unsent() < Link::kRoomForMessages) {
      link.append(Heartbeat{});
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
  last_poll_ = now_ = now;
  constexpr int kEvents = 64;
  epoll_event events[kEvents];
  const int count = epoll_wait(epoll_, events, kEvents, 0);
  for (int i = 0; i < count; ++i) {
    if (events[i].data.u64 == kListenerTag) {
      accept_all(now);
    } else if (Link* link = find(events[i].data.u64); link != nullptr) {
      on_event(*link, events[i].events, handler);
    }
  }
  beat(now, handler);
  return count > 0;
}

void ControlChannel::on_event(Link& link, std::uint32_t events, Handler& handler) {
  if (link.state == Link::State::dialling) return finish_connect(link, handler);
  if ((events & EPOLLOUT) != 0) {
    flush(link);
    if (link.state == Link::State::leaving && link.unsent() == 0) shutdown(link.socket, SHUT_WR);
  }
  const bool broken = (events & (EPOLLHUP | EPOLLERR)) != 0;
  if (broken && !link.reading) {
    fail_link(link, handler, {ErrorCode::peer_lost, "its connection broke"});
  } else if (broken || (events & EPOLLIN) != 0) {
    read(link, handler);
  }
}

TimePoint ControlChannel::next_deadline() const { return next_beat_; }

}  // namespace switchyard::transfer
