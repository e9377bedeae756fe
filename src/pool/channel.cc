#include "pool/channel.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/log.h"

namespace switchyard::pool {

std::shared_ptr<Channel> Channel::create(TransferEngine& engine, Handler on_message,
                                         PeerHandler on_peer_lost) {
  auto channel =
      std::shared_ptr<Channel>(new Channel(engine, std::move(on_message), std::move(on_peer_lost)));
  std::weak_ptr<Channel> weak = channel;
  channel->self_ = weak;
  engine.on_message([weak](const PeerAddress& from, std::span<const std::byte> message) {
    if (auto self = weak.lock()) self->received(from, message);
  });
  engine.on_peer_lost([weak](const PeerAddress& peer, const Error& why) {
    if (auto self = weak.lock()) self->peer_lost(peer, why);
  });
  return channel;
}

Channel::Channel(TransferEngine& engine, Handler on_message, PeerHandler on_peer_lost)
    : engine_(engine), on_message_(std::move(on_message)), on_peer_lost_(std::move(on_peer_lost)) {}

void Channel::close() {
  const std::lock_guard delivery(delivery_);
  const std::lock_guard lock(mutex_);
  closed_ = true;
  peers_.clear();
}

Channel::Peer& Channel::peer_of(const PeerAddress& address) {
  Peer& peer = peers_[key_of(address)];
  if (peer.address.epoch == 0) peer.address = address;
  return peer;
}

Status Channel::send(const PeerAddress& address, std::uint8_t type, std::span<const std::byte> payload) {
  if (payload.size() > kMaxMessageBytes) {
    return fail(ErrorCode::out_of_range, "a message of {} bytes is longer than {}", payload.size(),
                kMaxMessageBytes);
  }
  auto self = self_.lock();
  const std::lock_guard lock(mutex_);
  if (closed_ || !self) return fail(ErrorCode::cancelled, "the channel is closed");
  Peer& peer = peer_of(address);
  if (peer.lost) return fail(ErrorCode::peer_lost, "the process that this message is for has ended");
  if (peer.waiting.size() >= kMaxWaiting) {
    return fail(ErrorCode::exhausted, "{} messages wait for a slow process", peer.waiting.size());
  }
  do {
    const auto piece = payload.first(std::min(payload.size(), kDatagramBytes - kHeaderBytes));
    payload = payload.subspan(piece.size());
    ByteWriter writer;
    writer.write(peer.next_out++);
    writer.write(payload.empty() ? type : static_cast<std::uint8_t>(type | kMore));
    writer.write_bytes(piece);
    peer.waiting.push_back(writer.take());
  } while (!payload.empty());
  pump(self, peer);
  return {};
}

void Channel::pump(const std::shared_ptr<Channel>& self, Peer& peer) {
  const PeerKey key = key_of(peer.address);
  while (!peer.waiting.empty() && peer.in_flight < kMaxInFlight) {
    std::weak_ptr<Channel> weak = self;
    auto sent = engine_.send(peer.address, peer.waiting.front(), [weak, key](const Status&) {
      auto channel = weak.lock();
      if (!channel) return;
      const std::lock_guard lock(channel->mutex_);
      const auto found = channel->peers_.find(key);
      if (found == channel->peers_.end()) return;
      --found->second.in_flight;
      if (!found->second.lost) channel->pump(channel, found->second);
    });
    if (!sent && sent.error().code == ErrorCode::exhausted) {
      if (peer.in_flight != 0) return;  // its Done pumps again
      (void)engine_.post([weak, key] {
        auto channel = weak.lock();
        if (!channel) return;
        const std::lock_guard lock(channel->mutex_);
        const auto found = channel->peers_.find(key);
        if (found != channel->peers_.end() && !found->second.lost) channel->pump(channel, found->second);
      });
      return;
    }
    peer.waiting.pop_front();
    if (sent) {
      ++peer.in_flight;
    } else if (sent.error().code != ErrorCode::peer_lost) {
      // A gap would stall the peer for ever: nothing after this can be delivered.
      log::error("a message could not be sent: {}", sent.error().message);
      peer.lost = true;
      peer.waiting.clear();
    }
  }
}

void Channel::received(const PeerAddress& from, std::span<const std::byte> message) {
  const std::lock_guard delivery(delivery_);
  std::unique_lock lock(mutex_);
  if (closed_) return;
  if (message.size() < kHeaderBytes) {
    log::warn("a message of {} bytes from {}:{} was refused", message.size(), from.control_host,
              from.control_port);
    return;
  }
  std::uint64_t number = 0;
  std::memcpy(&number, message.data(), sizeof(number));
  Peer& peer = peer_of(from);
  if (number < peer.next_in || peer.early.size() >= kMaxEarly) {
    log::warn("message {} from {}:{} was refused: {} is expected", number, from.control_host,
              from.control_port, peer.next_in);
    return;
  }
  const auto body = message.subspan(sizeof(number));
  if (number != peer.next_in) {
    peer.early.emplace(number, std::vector(body.begin(), body.end()));
    return;
  }
  ++peer.next_in;
  lock.unlock();
  deliver(from, body);
  for (lock.lock(); !closed_; lock.lock()) {
    Peer& same = peer_of(from);
    const auto next = same.early.find(same.next_in);
    if (next == same.early.end()) return;
    const std::vector<std::byte> held = std::move(next->second);
    same.early.erase(next);
    ++same.next_in;
    lock.unlock();
    deliver(from, held);
  }
}

void Channel::deliver(const PeerAddress& from, std::span<const std::byte> body) {
  const auto type = static_cast<std::uint8_t>(body[0]);
  const auto payload = body.subspan(1);
  std::vector<std::byte> whole;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    Peer& peer = peer_of(from);
    if ((type & kMore) != 0 || !peer.begun.empty()) {
      if (peer.begun.size() + payload.size() > kMaxMessageBytes) {
        // What is cut short would only be misread.
        log::warn("a message from {}:{} is longer than {} bytes and was dropped", from.control_host,
                  from.control_port, kMaxMessageBytes);
        peer.begun.clear();
        return;
      }
      peer.begun.insert(peer.begun.end(), payload.begin(), payload.end());
      if ((type & kMore) != 0) return;
      whole = std::exchange(peer.begun, {});
    }
  }
  on_message_(from, type, whole.empty() ? payload : std::span<const std::byte>(whole));
}

void Channel::peer_lost(const PeerAddress& address, const Error& why) {
  const std::lock_guard delivery(delivery_);
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    Peer& peer = peer_of(address);
    peer.lost = true;
    peer.waiting.clear();
    peer.early.clear();
    peer.begun.clear();
  }
  on_peer_lost_(address, why);
}

}  // namespace switchyard::pool
