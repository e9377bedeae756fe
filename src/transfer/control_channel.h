// The control channel of an engine: one TCP connection to every peer, on which the handshake, heartbeats and
// messages travel. The kernel closes it when a process dies, however it dies: that is how a death is noticed
// at once.
//
// It knows links, not peers: who may connect, and which of two simultaneous connections survives, is decided
// by its Handler. Everything from outside is bounded: record sizes, unfinished handshakes (number and time),
// bytes that wait to be sent. A link whose other side sends nothing within the heartbeat limit is closed.
//
// Threads: the worker alone. poll() calls the Handler, which may call back into the channel.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "switchyard/time.h"
#include "transfer/control_record.h"

namespace switchyard::transfer {

using LinkId = std::uint64_t;  // slot and generation; never reused soon
constexpr LinkId kNoLink = ~LinkId{0};

class ControlChannel {
 public:
  struct Options {
    std::string host;
    std::uint16_t port = 0;
    std::uint32_t max_links = 512;
    std::size_t message_bytes = 64 << 10;
    std::uint32_t message_slots = 64;
    Nanos heartbeat_interval{};
    Nanos heartbeat_limit{};
    Nanos connect_limit{};
  };

  class Handler {
   public:
    virtual ~Handler() = default;
    // Somebody has dialled us. Nothing: accepted, and the link is open. Otherwise it is told why and closed,
    // without on_closed. The hello's address has been checked against ours.
    virtual std::optional<Reject> on_hello(LinkId link, const Hello& hello) = 0;
    // A link that we dialled is open.
    virtual void on_open(LinkId link, const Welcome& welcome) = 0;
    virtual void on_message(LinkId link, std::span<const std::byte> message) = 0;
    virtual void on_ack(LinkId link, std::uint64_t id) = 0;
    // A link, open or not yet, has ended. `refused` is set when the other side said so in the handshake.
    virtual void on_closed(LinkId link, const Error& why, std::optional<Reject::Why> refused) = 0;
  };

  // Listens. Errors: io, invalid (no such address).
  static Result<std::unique_ptr<ControlChannel>> open(const Options& options);
  ~ControlChannel();

  std::uint16_t port() const { return port_; }
  // Who we are, for hellos; before the first poll.
  void set_self(const PeerAddress& self) { self_ = self; }

  // Starts to connect; the outcome is on_open or on_closed. Errors: exhausted, invalid, peer_lost (nobody
  // there).
  Result<LinkId> dial(const PeerAddress& peer, TimePoint now);
  // False: no room now; try again after the next poll.
  bool send_message(LinkId link, std::uint64_t id, std::span<const std::byte> message);
  // Wakes the other side, whose rail may not be able to.
  void ring(LinkId link);
  // Closes without on_closed. A reason is sent along if there is room.
  void close(LinkId link, std::string_view reason);
  // Links of a channel with so many open ones are told apart by slot_of(link), which is below this.
  static std::size_t slots_for(std::uint32_t max_links);
  static std::size_t slot_of(LinkId link) { return link & 0xffff'ffff; }

  // Reads, writes, accepts, beats; returns whether anything happened.
  bool poll(TimePoint now, Handler& handler);
  // When poll() has something to do even if fd() stays silent.
  TimePoint next_deadline() const;
  int fd() const { return epoll_; }

 private:
  struct Link;

  ControlChannel(const Options& options);
  Link* find(LinkId id);
  Link* make_link(int socket, TimePoint now);
  void accept_all(TimePoint now);
  void drop(Link& link);
  void fail_link(Link& link, Handler& handler, const Error& why, std::optional<Reject::Why> refused = {});
  void finish_connect(Link& link, Handler& handler);
  void read(Link& link, TimePoint now, Handler& handler);
  bool consume(Link& link, Handler& handler);  // records in the input; false when the link is gone
  bool take(Link& link, Record& record, Handler& handler);
  void append(Link& link, const Record& record);
  bool flush(Link& link);
  void beat(TimePoint now, Handler& handler);
  void want_write(Link& link, bool on);

  Options options_;
  PeerAddress self_;
  int epoll_ = -1;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::vector<std::unique_ptr<Link>> links_;
  std::uint32_t unproven_ = 0;  // accepted, hello still to come
  TimePoint next_beat_{};
  TimePoint last_poll_{};
};

}  // namespace switchyard::transfer
