#include "sim/sim_control.h"

#include <fmt/format.h>

#include <algorithm>

namespace switchyard::sim {

using transfer::Hello;
using transfer::kNoLink;
using transfer::LinkId;
using transfer::Record;
using transfer::Reject;
using transfer::Welcome;

namespace {

// As control_channel.cc has them.
constexpr std::uint32_t kMaxUnproven = 128;
constexpr std::size_t kRoomForMessages = 256 << 10;
constexpr std::size_t kSocketBuffer = 256 << 10;  // what the kernel takes before anything counts as unsent
constexpr std::uint32_t kBeatChecks = 4;
constexpr Nanos kSendAgain = std::chrono::milliseconds(20);  // TCP's patience with a host it cannot reach

}  // namespace

// ---- Connection

void Connection::send(Side& from, Segment segment) {
  if (severed) return;
  Side& to = other(from);
  to.waiting_bytes += segment.bytes.size();
  to.incoming.push_back(std::move(segment));
  const Nanos latency = std::chrono::microseconds(20);
  to.last_due = std::max(to.last_due, network.now() + network.random().duration(latency, 2 * latency));
  const auto side = static_cast<std::uint32_t>(&to - sides);
  network.at(to.last_due, [self = network.connections[id], side] {
    Side& target = self->sides[side];
    if (target.due++ == 0) self->deliver(target);
  });
}

void Connection::deliver(Side& to) {
  if (severed || network.host(sides[0].host).dead || network.host(sides[1].host).dead) return;
  while (to.due != 0 && !to.incoming.empty()) {
    if (!network.joined(sides[0].host, sides[1].host)) {
      network.after(network.random().duration(kSendAgain / 2, kSendAgain * 2),
                    [self = network.connections[id], side = static_cast<std::uint32_t>(&to - sides)] {
                      self->deliver(self->sides[side]);
                    });
      return;
    }
    --to.due;
    Segment segment = std::move(to.incoming.front());
    to.incoming.pop_front();
    take(to, std::move(segment));
  }
}

void Connection::take(Side& to, Segment segment) {
  if (segment.kind == Segment::Kind::syn) {
    const auto listener = network.listeners.find({host_dialled, port_dialled});
    if (listener == network.listeners.end()) return send(to, {Segment::Kind::reset, {}});
    to.control = listener->second;
    to.process = listener->second->process();
    to.control->backlog_.push_back(network.connections[id]);
    to.control->something_came();
    return send(to, {Segment::Kind::accepted, {}});
  }
  if (to.control == nullptr) {
    // Nobody is there any more.
    to.waiting_bytes = 0;
    if (segment.kind == Segment::Kind::data) send(to, {Segment::Kind::reset, {}});
    return;
  }
  switch (segment.kind) {
    case Segment::Kind::accepted:
      to.connected = true;
      break;
    case Segment::Kind::data:
      to.unread.insert(to.unread.end(), segment.bytes.begin(), segment.bytes.end());
      break;
    case Segment::Kind::fin:
      to.at_end = true;
      break;
    default:
      to.broken = true;
      break;
  }
  to.control->something_came();
}

void Connection::shut(Side& side) {
  if (side.control == nullptr) return;
  side.control = nullptr;
  side.unread = {};
  send(side, {Segment::Kind::fin, {}});
}

void Connection::process_ended(ProcessId process) {
  for (Side& side : sides) {
    if (side.control != nullptr && side.process == process) shut(side);
  }
}

void Connection::break_it() {
  if (std::exchange(severed, true)) return;
  network.note(Event::link_broken, id);
  for (Side& side : sides) {
    side.incoming.clear();
    if (side.control == nullptr || network.random().chance(0.2)) continue;  // or it hears nothing from now on
    side.broken = true;
    side.control->something_came();
  }
}

// ---- SimControl

SimControl::SimControl(Network& network, ProcessId process, const Options& options)
    : network_(network), process_(process), options_(options) {
  links_.resize(options.max_links + kMaxUnproven);
  network_.listeners[{network_.host(network_.process(process_).host).name, options_.port}] = this;
}

SimControl::~SimControl() {
  for (Link& link : links_) {
    if (link.connection) drop(link);
  }
  for (auto& connection : backlog_) connection->shut(connection->sides[1]);
  std::erase_if(network_.listeners, [&](const auto& each) { return each.second == this; });
}

std::uint64_t SimControl::Link::unsent() const {
  const std::uint64_t waiting = connection->other(own()).waiting_bytes;
  return waiting > kSocketBuffer ? waiting - kSocketBuffer : 0;
}

SimControl::Link* SimControl::find(LinkId id) {
  const std::size_t slot = slot_of(id);
  return slot < links_.size() && links_[slot].connection && links_[slot].id == id ? &links_[slot] : nullptr;
}

SimControl::Link* SimControl::make_link(std::shared_ptr<Connection> connection, std::uint32_t side,
                                        TimePoint now) {
  for (std::size_t slot = 0; slot < links_.size(); ++slot) {
    Link& link = links_[slot];
    if (link.connection) continue;
    const std::uint64_t generation = link.id == kNoLink ? 1 : (link.id >> 32) + 1;
    link = Link{};
    link.id = generation << 32 | slot;
    link.connection = std::move(connection);
    link.side = side;
    link.own().slot = static_cast<std::uint32_t>(slot);
    link.last_heard = link.last_said = now;
    link.handshake_deadline = now + options_.connect_limit;
    return &link;
  }
  return nullptr;
}

void SimControl::something_came() {
  readable_ = true;
  network_.wake(process_);
}

void SimControl::drop(Link& link) {
  if (!link.connection) return;
  link.connection->shut(link.own());
  link.connection.reset();
}

void SimControl::fail_link(Link& link, Handler& handler, const Error& why,
                           std::optional<Reject::Why> refused) {
  const LinkId id = link.id;
  const bool known = link.state != Link::State::awaiting_hello && !link.doomed;
  network_.note(Event::link_closed, process_, id);
  drop(link);
  if (known) handler.on_closed(id, why, refused);
}

Result<LinkId> SimControl::dial(const PeerAddress& peer, const transfer::Introduction& self, TimePoint now) {
  if (!alive()) return fail(ErrorCode::peer_lost, "this process has ended");
  const HostId host = network_.host_named(peer.control_host);
  if (host == kNone) return fail(ErrorCode::invalid, "control address '{}': no such host", peer.control_host);
  const HostId own = network_.process(process_).host;
  const bool listens = network_.listeners.contains({peer.control_host, peer.control_port});
  if (own == host && !listens) return fail(ErrorCode::peer_lost, "nobody answers at its control address");
  auto connection =
      std::make_shared<Connection>(network_, static_cast<std::uint32_t>(network_.connections.size()));
  connection->host_dialled = peer.control_host;
  connection->port_dialled = peer.control_port;
  connection->sides[0] = {.control = this, .process = process_, .host = own};
  connection->sides[1].host = host;
  Link* link = make_link(connection, 0, now);
  if (link == nullptr)
    return fail(ErrorCode::exhausted, "control channel: {} connections are the limit", options_.max_links);
  network_.connections.push_back(connection);
  link->hello = Hello{self_, peer.engine_id, peer.epoch, self};
  network_.note(Event::dialled, process_, link->id, host);
  connection->send(link->own(), {Connection::Segment::Kind::syn, {}});
  return link->id;
}

void SimControl::say(Link& link, const Record& record) {
  Connection::Segment segment;
  transfer::append_record(segment.bytes, record);
  network_.note(Event::record_sent, process_, link.id, record.index(), segment.bytes.size());
  link.connection->send(link.own(), std::move(segment));
}

bool SimControl::send_message(LinkId id, std::uint64_t message_id, std::span<const std::byte> message) {
  Link* link = alive() ? find(id) : nullptr;
  if (link == nullptr || link->state != Link::State::open || link->unsent() >= kRoomForMessages) return false;
  say(*link, transfer::Message{message_id, message});
  return true;
}

void SimControl::send_path(LinkId id, const transfer::PathRecord& record) {
  Link* link = alive() ? find(id) : nullptr;
  if (link == nullptr || link->state != Link::State::open) return;
  say(*link, record);
}

void SimControl::ring(LinkId id) {
  Link* link = alive() ? find(id) : nullptr;
  if (link == nullptr || link->state != Link::State::open || link->unsent() != 0) return;
  say(*link, transfer::Heartbeat{});
}

void SimControl::close(LinkId id, std::string_view reason) {
  Link* link = alive() ? find(id) : nullptr;
  if (link == nullptr) return;
  network_.note(Event::link_closed, process_, id);
  if (link->state == Link::State::open) say(*link, transfer::Goodbye{std::string(reason)});
  drop(*link);
}

bool SimControl::take(Link& link, Record& record, Handler& handler) {
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
    // Nothing goes out before the welcome.
    link.state = Link::State::welcoming;
    if (!reject) {
      auto answer = handler.on_hello(id, *hello);
      if (find(id) == nullptr) return false;
      if (auto* refusal = std::get_if<Reject>(&answer)) {
        reject = std::move(*refusal);
      } else {
        say(link, Welcome{std::get<transfer::Introduction>(std::move(answer))});
        network_.note(Event::link_opened, process_, id);
      }
    }
    link.state = Link::State::open;
    if (reject) {
      say(link, *reject);
      link.doomed = true;
      drop(link);
      return false;
    }
    return true;
  }
  if (link.state == Link::State::awaiting_welcome) {
    if (auto* welcome = std::get_if<Welcome>(&record)) {
      link.state = Link::State::open;
      network_.note(Event::link_opened, process_, id);
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
  } else if (auto* message = std::get_if<transfer::Message>(&record)) {
    handler.on_message(id, message->bytes);
    if (find(id) == nullptr) return false;
    say(link, transfer::MessageAck{message->id});
    return true;
  } else if (auto* ack = std::get_if<transfer::MessageAck>(&record)) {
    handler.on_ack(id, ack->id);
    return find(id) != nullptr;
  } else if (auto* path = std::get_if<transfer::PathRecord>(&record)) {
    handler.on_path(id, *path);
    return find(id) != nullptr;
  } else if (std::holds_alternative<transfer::Heartbeat>(record)) {
    return true;
  } else if (auto* goodbye = std::get_if<transfer::Goodbye>(&record)) {
    fail_link(link, handler, {ErrorCode::peer_lost, fmt::format("it has left: {}", goodbye->reason)});
    return false;
  }
  fail_link(link, handler, {ErrorCode::peer_lost, "it sent a control record out of turn"});
  return false;
}

// False when the link is gone.
bool SimControl::read(Link& link, TimePoint now, Handler& handler) {
  const LinkId id = link.id;
  Connection::Side& side = link.own();
  const auto connection = link.connection;  // outlives the link here
  if (side.broken) {
    fail_link(
        link, handler,
        {ErrorCode::peer_lost, link.state == Link::State::dialling ? "nobody answers at its control address"
                                                                   : "its connection broke"});
    return false;
  }
  if (link.state == Link::State::dialling && side.connected) {
    link.state = Link::State::awaiting_welcome;
    say(link, link.hello);
  }
  if (!side.unread.empty()) {
    link.last_heard = now;
    const std::vector<std::byte> input = std::exchange(side.unread, {});
    side.waiting_bytes -= std::min<std::uint64_t>(side.waiting_bytes, input.size());
    auto rest = std::span<const std::byte>(input);
    while (!rest.empty()) {
      const bool open = link.state == Link::State::open;
      const std::size_t limit =
          open ? std::max(options_.message_bytes + transfer::kMessageOverhead, transfer::kMaxHelloBytes)
               : transfer::kMaxHelloBytes;
      auto header = transfer::parse_header(rest, limit);
      if (!header || !*header) {
        fail_link(link, handler, {ErrorCode::peer_lost, header ? "half a record" : header.error().message});
        return false;
      }
      const std::size_t whole = transfer::kRecordHeaderBytes + (*header)->payload_bytes;
      auto record = transfer::parse_record(
          (*header)->type, rest.subspan(transfer::kRecordHeaderBytes, (*header)->payload_bytes));
      if (!record) {
        network_.violate(fmt::format("process {} was sent a record of type {} that does not parse: {}",
                                     process_, (*header)->type, record.error().message));
        fail_link(link, handler, {ErrorCode::peer_lost, record.error().message});
        return false;
      }
      network_.note(Event::record_read, process_, id, (*header)->type, whole);
      if (!take(link, *record, handler)) return false;
      rest = rest.subspan(whole);
    }
  }
  if (side.at_end) {
    fail_link(link, handler, {ErrorCode::peer_lost, "its connection was closed: the process has ended"});
    return false;
  }
  return true;
}

void SimControl::beat(TimePoint now, Handler& handler) {
  if (now < next_beat_) return;
  next_beat_ = now + options_.heartbeat_interval / kBeatChecks;
  for (Link& link : links_) {
    if (!link.connection) continue;
    if (link.state != Link::State::open) {
      if (now >= link.handshake_deadline)
        fail_link(link, handler, {ErrorCode::peer_lost, "no handshake in time"});
      continue;
    }
    if (now - link.last_heard >= options_.heartbeat_limit) {
      fail_link(link, handler,
                {ErrorCode::peer_lost,
                 fmt::format("nothing heard from it for {:.1f} s", to_seconds(now - link.last_heard))});
    } else if (now - link.last_said >= options_.heartbeat_interval && link.unsent() < kRoomForMessages) {
      say(link, transfer::Heartbeat{});
      link.last_said = now;
    }
  }
}

bool SimControl::poll(TimePoint now, Handler& handler) {
  if (!alive()) return false;
  // When this engine itself has stood still, silence says nothing about the others.
  if (last_poll_ != TimePoint{} && now - last_poll_ > options_.heartbeat_interval) {
    for (Link& link : links_) link.last_heard += now - last_poll_;
  }
  last_poll_ = now;
  const bool any = std::exchange(readable_, false);
  while (!backlog_.empty()) {
    auto connection = std::move(backlog_.front());
    backlog_.pop_front();
    Link* link = make_link(connection, 1, now);
    if (link == nullptr) {
      connection->shut(connection->sides[1]);
      continue;
    }
    link->state = Link::State::awaiting_hello;
  }
  if (any) {
    for (Link& link : links_) {
      if (link.connection) read(link, now, handler);
    }
  }
  beat(now, handler);
  return any;
}

}  // namespace switchyard::sim
