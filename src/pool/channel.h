// Ordered messages between the processes of a pool.
//
// The engine's messages are datagrams: neither ordered nor queued, and short. A Channel cuts a message into
// datagrams, numbers them per peer, holds early ones until the gap is filled, and keeps what the engine has
// no room for. All of it is bounded. Any thread may send; the handlers run on the engine's worker.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "switchyard/transfer.h"

namespace switchyard::pool {

// An engine in one life: what a peer is known by.
using PeerKey = std::array<std::uint64_t, 3>;
inline PeerKey key_of(const PeerAddress& peer) { return {peer.engine_id[0], peer.engine_id[1], peer.epoch}; }

class Channel {
 public:
  using Handler =
      std::function<void(const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload)>;

  // The engine must outlive the channel; the channel takes its message and peer handlers. Its messages hold
  // kDatagramBytes.
  static std::shared_ptr<Channel> create(TransferEngine& engine, Handler on_message,
                                         PeerHandler on_peer_lost);

  // `type` is below 128. Errors: exhausted (kMaxWaiting datagrams wait for this peer), peer_lost,
  // out_of_range (longer than kMaxMessageBytes).
  Status send(const PeerAddress& peer, std::uint8_t type, std::span<const std::byte> payload);

  TransferEngine& engine() { return engine_; }

  // No handler is called after this; sending fails. Call before what the handlers use goes away.
  void close();

  static constexpr std::size_t kHeaderBytes = 9;  // sequence number, type
  static constexpr std::size_t kDatagramBytes = 64 << 10;
  static constexpr std::size_t kMaxMessageBytes = 16 << 20;

 private:
  static constexpr std::uint8_t kMore = 0x80;  // beside the type: the message goes on in the next datagram
  static constexpr std::size_t kMaxWaiting = 8192;
  static constexpr std::size_t kMaxEarly = 1024;
  static constexpr std::size_t kMaxInFlight = 16;

  struct Peer {
    PeerAddress address;
    std::uint64_t next_out = 0;
    std::uint64_t next_in = 0;
    std::size_t in_flight = 0;
    bool lost = false;
    std::deque<std::vector<std::byte>> waiting;
    std::map<std::uint64_t, std::vector<std::byte>> early;
    std::vector<std::byte> begun;  // of a message whose end has not come
  };

  Channel(TransferEngine& engine, Handler on_message, PeerHandler on_peer_lost);
  Peer& peer_of(const PeerAddress& address);  // holds mutex_
  void pump(const std::shared_ptr<Channel>& self, Peer& peer);
  void received(const PeerAddress& from, std::span<const std::byte> message);
  // Type and payload of the next datagram in order; holds delivery_.
  void deliver(const PeerAddress& from, std::span<const std::byte> body);
  void peer_lost(const PeerAddress& address, const Error& why);

  TransferEngine& engine_;
  Handler on_message_;
  PeerHandler on_peer_lost_;
  std::weak_ptr<Channel> self_;
  std::mutex mutex_;
  bool closed_ = false;
  std::map<PeerKey, Peer> peers_;
  std::mutex delivery_;  // held while a handler runs, so that close() can wait for it
};

}  // namespace switchyard::pool
