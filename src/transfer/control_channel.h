// The control channel over TCP. The kernel closes a connection when a process dies, however it dies: that is
// how a death is noticed at once.
//
// Everything from outside is bounded: record sizes, unfinished handshakes (number and time),
// bytes that wait to be sent. A link whose other side sends nothing within the heartbeat limit is closed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "switchyard/time.h"
#include "transfer/control_plane.h"

namespace switchyard::transfer {

class ControlChannel final : public ControlPlane {
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

  // Listens. Errors: io, invalid (no such address).
  static Result<std::unique_ptr<ControlChannel>> open(const Options& options);
  ~ControlChannel() override;

  std::uint16_t port() const override { return port_; }
  void set_self(const PeerAddress& self) override { self_ = self; }
  Result<LinkId> dial(const PeerAddress& peer, const Introduction& self, TimePoint now) override;
  bool send_message(LinkId link, std::uint64_t id, std::span<const std::byte> message) override;
  void send_path(LinkId link, const PathRecord& record) override;
  void ring(LinkId link) override;
  void close(LinkId link, std::string_view reason) override;
  std::size_t slots() const override { return links_.size(); }
  bool poll(TimePoint now, Handler& handler) override;
  TimePoint next_deadline() const override;
  int fd() const override { return epoll_; }

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
