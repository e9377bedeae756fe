// A simulated control channel: connections that carry records in order, as TCP would, between processes of a
// Network. It follows control_channel.cc in what it promises: handshake, heartbeats, limits, and what a
// closed, broken or silent connection becomes. Records travel as the bytes that TCP would carry.
//
// A connection of a process that ends is closed by its host after what was sent before. While a host is
// isolated its bytes wait, as TCP would send them again. A host that dies says nothing any more.
//
// Owned by its engine. Threads: the test's.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "sim/network.h"
#include "transfer/control_plane.h"

namespace switchyard::sim {

// Both directions of one TCP connection.
struct Connection {
  struct Segment {
    enum class Kind : std::uint8_t { syn, accepted, data, fin, reset };
    Kind kind = Kind::data;
    std::vector<std::byte> bytes;
  };
  struct Side {
    SimControl* control = nullptr;  // while its socket is open
    ProcessId process = 0;
    HostId host = 0;
    std::uint32_t slot = kNone;    // of its link
    bool connected = false;        // dialled, and somebody has accepted
    std::deque<Segment> incoming;  // on the way to this side
    std::uint32_t due = 0;         // of these, could have come by now
    TimePoint last_due{};
    std::vector<std::byte> unread;
    bool at_end = false;              // the other side has closed
    bool broken = false;              // reset
    std::uint64_t waiting_bytes = 0;  // on their way to this side, or unread
  };

  Connection(Network& of, std::uint32_t number) : network(of), id(number) {}
  Side& other(const Side& side) { return &side == &sides[0] ? sides[1] : sides[0]; }
  void send(Side& from, Segment segment);
  // The process on this side has closed its socket, or ended.
  void shut(Side& side);
  void process_ended(ProcessId process);
  // The path between the two has been cut for good: either side is told, or finds out by itself.
  void break_it();

  Network& network;
  std::uint32_t id;
  Side sides[2];         // who dialled, who was dialled
  bool severed = false;  // nothing arrives any more
  std::string host_dialled;
  std::uint16_t port_dialled = 0;

 private:
  void deliver(Side& to);
  void take(Side& to, Segment segment);
};

class SimControl final : public transfer::ControlPlane {
 public:
  struct Options {
    std::uint16_t port = 0;
    std::uint32_t max_links = 16;
    std::size_t message_bytes = 64 << 10;
    Nanos heartbeat_interval{};
    Nanos heartbeat_limit{};
    Nanos connect_limit{};
    Nanos latency = std::chrono::microseconds(20);  // one way, and up to twice as much
  };

  SimControl(Network& network, ProcessId process, const Options& options);
  ~SimControl() override;

  ProcessId process() const { return process_; }
  // Has something for poll().
  bool readable() const { return readable_; }

  std::uint16_t port() const override { return options_.port; }
  void set_self(const PeerAddress& self) override { self_ = self; }
  Result<transfer::LinkId> dial(const PeerAddress& peer, const transfer::Introduction& self,
                                TimePoint now) override;
  bool send_message(transfer::LinkId link, std::uint64_t id, std::span<const std::byte> message) override;
  void send_path(transfer::LinkId link, const transfer::PathRecord& record) override;
  void ring(transfer::LinkId link) override;
  void close(transfer::LinkId link, std::string_view reason) override;
  std::size_t slots() const override { return links_.size(); }
  bool poll(TimePoint now, Handler& handler) override;
  TimePoint next_deadline() const override { return next_beat_; }
  int fd() const override { return -1; }

 private:
  friend struct Connection;
  struct Link {
    enum class State : std::uint8_t { dialling, awaiting_welcome, awaiting_hello, welcoming, open };
    transfer::LinkId id = transfer::kNoLink;
    std::shared_ptr<Connection> connection;  // empty: the slot is free
    std::uint32_t side = 0;
    State state = State::dialling;
    bool doomed = false;  // a reject was sent: closed when the other side is gone
    TimePoint handshake_deadline{}, last_heard{}, last_said{};
    transfer::Hello hello;  // to send, when dialled

    Connection::Side& own() const { return connection->sides[side]; }
    std::uint64_t unsent() const;
  };

  bool alive() const { return network_.process(process_).alive; }
  Link* find(transfer::LinkId id);
  Link* make_link(std::shared_ptr<Connection> connection, std::uint32_t side, TimePoint now);
  void something_came();
  void drop(Link& link);
  void fail_link(Link& link, Handler& handler, const Error& why,
                 std::optional<transfer::Reject::Why> refused = {});
  void say(Link& link, const transfer::Record& record);
  bool read(Link& link, TimePoint now, Handler& handler);
  bool take(Link& link, transfer::Record& record, Handler& handler);
  void beat(TimePoint now, Handler& handler);

  Network& network_;
  const ProcessId process_;
  Options options_;
  PeerAddress self_;
  std::vector<Link> links_;
  std::deque<std::shared_ptr<Connection>> backlog_;  // dialled by others, not yet looked at
  TimePoint next_beat_{}, last_poll_{};
  bool readable_ = false;
};

}  // namespace switchyard::sim
