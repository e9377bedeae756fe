// The control channel over TCP. The kernel closes a connection when a process dies, however it dies: that is
// how a death is noticed at once.
//
// Everything from outside is bounded: record sizes, unfinished handshakes (number and time), bytes that wait
// to be sent, lines in the log. Until a stranger has proven itself (control_handshake.h) it is told nothing
// but that it has not, and only records of the handshake are parsed. A link whose other side sends nothing
// within the heartbeat limit is closed.
//
// Parts: control_channel.cc (sockets and time), control_channel_input.cc (what arrives).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "switchyard/time.h"
#include "transfer/control_link.h"
#include "transfer/control_plane.h"
#include "transfer/control_security.h"
#include "transfer/refusal_log.h"

namespace switchyard::transfer {

class ControlChannel final : public ControlPlane {
 public:
  struct Options {
    std::string host;
    std::uint16_t port = 0;
    std::uint32_t max_links = 512;
    std::size_t message_bytes = 64 << 10;
    Nanos heartbeat_interval{};
    Nanos heartbeat_limit{};
    Nanos connect_limit{};
    std::string shared_key;
    TlsOptions tls;
  };

  // Listens. Errors: io, invalid (no such address; key or certificates that cannot be used).
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
  using Link = ControlLink;

  explicit ControlChannel(const Options& options);
  Status listen_at(const SocketAddress& address);
  Link* find(LinkId id);
  Link* make_link(int socket, const SocketAddress& other, TimePoint now);
  void accept_all(TimePoint now);
  bool evict_unproven(TimePoint now);
  void listen(bool on);
  void finish_connect(Link& link, Handler& handler);
  void drop(Link& link);
  void fail_link(Link& link, Handler& handler, const Error& why, std::optional<Reject::Why> refused = {});
  void leave(Link& link, Handler& handler, const Error& why);
  bool flush(Link& link);
  void update_interest(Link& link);
  void beat(TimePoint now, Handler& handler);
  void on_event(Link& link, std::uint32_t events, Handler& handler);

  // What arrives; false when the link is gone or leaving.
  void read(Link& link, Handler& handler);
  bool take_bytes(Link& link, std::span<const std::byte> bytes, Handler& handler);
  bool take_wire(Link& link, std::span<const std::byte> bytes, Handler& handler);
  bool take_plain(Link& link, std::span<const std::byte> bytes, Handler& handler);
  std::optional<std::size_t> take_records(Link& link, std::span<const std::byte> bytes, Handler& handler);
  bool take(Link& link, Record& record, Handler& handler);
  bool take_handshake(Link& link, const Record& record, Handler& handler);
  bool take_hello(Link& link, const Hello& hello, Handler& handler);
  bool take_open(Link& link, Record& record, Handler& handler);
  bool begin_tls(Link& link, Handler& handler);
  void begin_hello(Link& link);
  bool take_reject(Link& link, const Reject& reject, Handler& handler);
  void refuse(Link& link, const Error& why, const Reject& told, Handler& handler);
  std::size_t record_limit(const Link& link) const;
  bool may_read(const Link& link) const;

  Options options_;
  std::shared_ptr<const ControlSecurity> security_;
  PeerAddress self_;
  std::string endpoint_;  // where others dial us
  int epoll_ = -1;
  int listener_ = -1;
  bool listening_ = false;
  std::uint16_t port_ = 0;
  std::vector<std::unique_ptr<Link>> links_;
  std::uint32_t unproven_ = 0;  // accepted and not open
  std::vector<std::byte> arrived_;
  RefusalLog refusals_;
  TimePoint now_{};  // of the poll under way
  TimePoint next_beat_{};
  TimePoint last_poll_{};
};

}  // namespace switchyard::transfer
