// Connections to peers: how they begin, which of two survives, and what their loss ends.
//
// Two engines that dial each other at the same time would have two connections: the one that the engine with
// the smaller id dialled survives. The other side is told that it is connected already and tries again a
// little later, unless the surviving one has come through by then.
#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "transfer/engine_core.h"

namespace switchyard {

using transfer::Hello;
using transfer::Introduction;
using transfer::kNoIndex;
using transfer::kNoLink;
using transfer::LinkId;
using transfer::Path;
using transfer::Peer;
using transfer::Reject;
using transfer::TransferSlot;

namespace {

constexpr Nanos kDialAgain = std::chrono::milliseconds(10);
constexpr std::size_t kRememberedDead = 1024;
constexpr int kLastPolls = 64;

}  // namespace

std::uint32_t EngineCore::peer_of(LinkId link) const {
  const std::uint32_t index = link_peers_[transfer::ControlPlane::slot_of(link)];
  return index != kNoIndex && peers_[index].control == link ? index : kNoIndex;
}

void EngineCore::bind(std::uint32_t index, LinkId link) {
  peers_[index].control = link;
  link_peers_[transfer::ControlPlane::slot_of(link)] = index;
}

void EngineCore::dial(std::uint32_t index) {
  Peer& peer = peers_[index];
  if (peer.address.engine_id == self_.engine_id && peer.state == Peer::State::fresh) {
    peer.local = true;
    return opened(index, introduce(index));
  }
  if (peer.state == Peer::State::fresh) {
    peer.state = Peer::State::dialling;
    peer.connect_deadline = now_ + options_.connect_limit;
  }
  if (peer.state != Peer::State::dialling || peer.control != kNoLink) return;
  if (now_ >= peer.connect_deadline) {
    return lose(index, {ErrorCode::peer_lost, "no connection within the time limit"});
  }
  auto link = control_->dial(peer.address, introduce(index), now_);
  if (!link) return lose(index, link.error());
  bind(index, *link);
}

// An index with as much of its generation as there is room for: a peer that has not noticed yet that its
// connection is gone must not be taken for the next one at its place.
std::uint16_t EngineCore::peer_tag(std::uint32_t index) const {
  const auto places = static_cast<std::uint32_t>(peers_.size());
  return static_cast<std::uint16_t>(peers_[index].generation % ((1u << 16) / places) * places + index);
}

Introduction EngineCore::introduce(std::uint32_t index) const {
  Introduction self{.message_bytes = options_.message_bytes,
                    .message_slots = options_.message_slots,
                    .log_offset = index * transfer::kArrivalLogBytes,
                    .log = log_region_.key().rails,
                    .session = peers_[index].generation,
                    .peer_index = peer_tag(index)};
  return self;
}

// The control connection is open: from here on paths are opened, and what the peer writes is counted.
void EngineCore::opened(std::uint32_t index, const Introduction& introduction) {
  Peer& peer = peers_[index];
  if (introduction.log.size() != peer.address.rails.size())
    return lose(index, {ErrorCode::peer_lost, "its introduction does not fit its rails"});
  peer.state = Peer::State::open;
  peer.introduction = introduction;
  peer.paths_down_since = now_;
  std::byte* const log = log_memory_.base() + index * transfer::kArrivalLogBytes;
  // Records of whoever had this place before are not ours; a session of 0 is nobody's.
  std::memset(log, 0, transfer::kArrivalLogBytes);
  peer.arrivals.open(reinterpret_cast<const transfer::ArrivalRecord*>(log), peer.generation);
  count_.peers_connected.add(1);
  make_paths(index);
  // Not at once: nothing may be said to the peer before the welcome.
  arm_check(index, now_);
  if (peer.wants_posting()) want_posting(index);
}

bool EngineCore::shares_fabric(const PeerAddress& peer) const {
  return std::any_of(peer.rails.begin(), peer.rails.end(), [&](const PeerAddress::Rail& theirs) {
    return std::any_of(rails_.begin(), rails_.end(),
                       [&](const transfer::EngineRail& ours) { return ours.fabric == theirs.fabric; });
  });
}

std::string EngineCore::fabrics() const {
  std::string names;
  for (const transfer::EngineRail& rail : rails_) names += (names.empty() ? "" : ", ") + rail.fabric;
  return names;
}

std::variant<Introduction, Reject> EngineCore::on_hello(LinkId link, const Hello& hello) {
  if (shutting_down_) return Reject{Reject::Why::denied, "the engine is closing"};
  if (!shares_fabric(hello.from))
    return Reject{Reject::Why::unsupported, fmt::format("it has no rail of fabric '{}'", fabrics())};
  if (hello.self.log.size() != hello.from.rails.size())
    return Reject{Reject::Why::invalid, "the introduction does not fit the rails"};
  std::uint32_t index = kNoIndex;
  while (index == kNoIndex) {
    std::uint32_t replaced = kNoIndex;
    {
      std::lock_guard lock(mutex_);
      if (const auto known = directory_.find(hello.from.engine_id); known != directory_.end()) {
        const Peer& peer = peers_[known->second];
        if (peer.address.epoch != hello.from.epoch) {
          replaced = known->second;
        } else if (peer.state == Peer::State::open ||
                   (peer.control != kNoLink && self_.engine_id < hello.from.engine_id)) {
          return Reject{Reject::Why::already_connected, "already connected"};
        } else {
          index = known->second;
        }
      } else {
        if (free_peers_.empty()) return Reject{Reject::Why::exhausted, "it has as many peers as it can have"};
        index = free_peers_.front();
        free_peers_.pop_front();
        peers_[index].state = Peer::State::fresh;
        peers_[index].address = hello.from;
        directory_[hello.from.engine_id] = index;
        // Whoever speaks is not dead.
        std::erase(gone_, std::pair(hello.from.engine_id, hello.from.epoch));
      }
    }
    if (replaced != kNoIndex) lose(replaced, {ErrorCode::peer_lost, "it has restarted"});
  }
  Peer& peer = peers_[index];
  if (peer.control != kNoLink) {
    control_->close(std::exchange(peer.control, kNoLink), "the other connection survives");
  }
  bind(index, link);
  opened(index, hello.self);
  return introduce(index);
}

void EngineCore::on_open(LinkId link, const Introduction& introduction) {
  const std::uint32_t index = peer_of(link);
  if (index != kNoIndex) opened(index, introduction);
}

void EngineCore::on_message(LinkId link, std::span<const std::byte> message) {
  const std::uint32_t index = peer_of(link);
  if (index != kNoIndex) call_message_handler(peers_[index].address, message);
}

void EngineCore::call_message_handler(const PeerAddress& from, std::span<const std::byte> message) {
  std::shared_ptr<const MessageHandler> handler;
  {
    std::lock_guard lock(mutex_);
    handler = message_handler_;
  }
  if (!handler) {
    if (count_.messages_dropped.get() == 0)
      log::warn("engine '{}': a message was dropped, because no handler is set", options_.name);
    count_.messages_dropped.add(1);
    return;
  }
  count_.messages_received.add(1);
  try {
    (*handler)(from, message);
  } catch (const std::exception& error) {
    log::error("engine '{}': the message handler threw: {}", options_.name, error.what());
  } catch (...) {
    log::error("engine '{}': the message handler threw", options_.name);
  }
}

void EngineCore::on_ack(LinkId link, std::uint64_t id) {
  const std::uint32_t peer_index = peer_of(link);
  const auto index = static_cast<std::uint32_t>(id);
  if (peer_index == kNoIndex || index >= slots_.size()) return;
  TransferSlot& slot = slots_[index];
  Peer& peer = peers_[peer_index];
  // An acknowledgement comes from outside: it must name a message that this peer has and has not
  // acknowledged.
  if (!slot.started || slot.generation != static_cast<std::uint32_t>(id >> 32) ||
      slot.kind != TransferSlot::Kind::message || slot.peer != peer_index ||
      slot.peer_generation != peer.generation || slot.outstanding == 0) {
    return;
  }
  slot.outstanding = 0;
  --outstanding_;
  --peer.unacknowledged;
  if (slot.ended) {
    release(index);
  } else {
    end(index, {});
  }
  if (!peer.messages.empty()) want_posting(peer_index);
}

void EngineCore::on_closed(LinkId link, const Error& why, std::optional<Reject::Why> refused) {
  const std::uint32_t index = peer_of(link);
  if (index == kNoIndex) return;
  Peer& peer = peers_[index];
  peer.control = kNoLink;
  // Its other connection may come through; or it has more newcomers than it can take at once.
  const bool again = refused == Reject::Why::already_connected || refused == Reject::Why::busy;
  if (again && peer.state == Peer::State::dialling) {
    deadlines_.set(peer_deadline(index), now_ + kDialAgain);
    return;
  }
  lose(index, why);
}

void EngineCore::lose(std::uint32_t index, const Error& why) {
  Peer& peer = peers_[index];
  const bool was_open = peer.state == Peer::State::open;
  // What it had written before it went still counts.
  for (int i = 0; was_open && i < kLastPolls && poll_rails(); ++i) {
  }
  const Error error{
      why.code == ErrorCode::peer_lost || !peer.ever_up ? why.code : ErrorCode::peer_lost,
      fmt::format("peer {}:{}: {}", peer.address.control_host, peer.address.control_port, why.message)};
  if (was_open && !shutting_down_) log::info("engine '{}': {}", options_.name, error.message);
  const std::uint32_t generation = peer.generation;
  // First the ends: once they are gone nothing of ours lands there any more, and every request comes back to
  // a transfer that has ended.
  for (Path& path : peer.paths) remove_end(peer, path);
  // And what came between the last look and the end counts as well.
  if (was_open) poll_rails();
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    TransferSlot& slot = slots_[i];
    if (!slot.started || slot.kind == TransferSlot::Kind::group || slot.peer != index ||
        slot.peer_generation != generation)
      continue;
    if (slot.kind == TransferSlot::Kind::message && slot.outstanding != 0) {
      slot.outstanding = 0;
      --outstanding_;
      if (slot.ended) {
        release(i);
        continue;
      }
    }
    end(i, pass(error));
  }
  for (std::uint32_t i = 0; i < peer.paths.size(); ++i) settle_path(index, i, {});
  if (peer.control != kNoLink) control_->close(peer.control, why.message);
  busy_peers_.remove(peers_, index);
  deadlines_.remove(peer_deadline(index));
  if (was_open) {
    count_.peers_connected.subtract(1);
    count_.peers_lost.add(1);
  }
  std::lock_guard lock(mutex_);
  if (was_open && peer_handler_ && !shutting_down_) {
    due_.push_back(
        {.plain = [handler = peer_handler_, address = peer.address, error] { (*handler)(address, error); }});
  }
  directory_.erase(peer.address.engine_id);
  if (was_open) {
    gone_.emplace_back(peer.address.engine_id, peer.address.epoch);
    if (gone_.size() > kRememberedDead) gone_.pop_front();
  }
  peer = Peer{};
  peer.generation = generation + 1;
  free_peers_.push_back(index);
}

}  // namespace switchyard
