// The control channel as the engine sees it: one connection to every peer, on which the handshake,
// heartbeats, messages and the opening and closing of paths travel, in order. ControlChannel (TCP) implements
// it, and so does the simulator.
//
// It knows links, not peers: who may connect, and which of two simultaneous connections survives, is decided
// by its Handler.
//
// Threads: the worker alone. poll() calls the Handler, which may call back into the channel.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <variant>

#include "switchyard/time.h"
#include "transfer/control_record.h"

namespace switchyard::transfer {

using LinkId = std::uint64_t;  // slot and generation; never reused soon
constexpr LinkId kNoLink = ~LinkId{0};

class ControlPlane {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    // Somebody has dialled us, and has proven that it may where that is asked for. An introduction: accepted,
    // and the link is open. A reject: it is told why and closed, without on_closed. The hello's address has
    // been checked against ours.
    virtual std::variant<Introduction, Reject> on_hello(LinkId link, const Hello& hello) = 0;
    // A link that we dialled is open.
    virtual void on_open(LinkId link, const Introduction& peer) = 0;
    virtual void on_message(LinkId link, std::span<const std::byte> message) = 0;
    virtual void on_ack(LinkId link, std::uint64_t id) = 0;
    virtual void on_path(LinkId link, const PathRecord& record) = 0;
    // A link, open or not yet, has ended. `refused` is set when the other side said so in the handshake, or
    // closed it then.
    virtual void on_closed(LinkId link, const Error& why, std::optional<Reject::Why> refused) = 0;
  };

  virtual ~ControlPlane() = default;

  // Where peers dial; for PeerAddress.
  virtual std::uint16_t port() const = 0;
  // Who we are, for hellos; before the first poll.
  virtual void set_self(const PeerAddress& self) = 0;

  // Starts to connect; the outcome is on_open or on_closed. Errors: exhausted, invalid, peer_lost (nobody
  // there).
  virtual Result<LinkId> dial(const PeerAddress& peer, const Introduction& self, TimePoint now) = 0;
  // False: no room now; try again after the next poll.
  virtual bool send_message(LinkId link, std::uint64_t id, std::span<const std::byte> message) = 0;
  // Few and small: always taken while the link is open.
  virtual void send_path(LinkId link, const PathRecord& record) = 0;
  // Wakes the other side, whose rail may not be able to.
  virtual void ring(LinkId link) = 0;
  // Closes without on_closed. A reason is sent along if there is room.
  virtual void close(LinkId link, std::string_view reason) = 0;
  // Links of a channel with so many open ones are told apart by slot_of(link), which is below slots().
  virtual std::size_t slots() const = 0;
  static std::size_t slot_of(LinkId link) { return link & 0xffff'ffff; }

  // Reads, writes, accepts, beats; returns whether anything happened.
  virtual bool poll(TimePoint now, Handler& handler) = 0;
  // When poll() has something to do even if fd() stays silent.
  virtual TimePoint next_deadline() const = 0;
  virtual int fd() const = 0;
};

}  // namespace switchyard::transfer
