// What a random test knows about every byte and every count: which transfer may write where and what, which
// counter may have counted how much, and what has to come to an end. It sees each byte at the moment it
// lands, each Done and each counter as the engines report them, and calls Network::violate for what breaks a
// rule.
//
// Memory of a node is given out in boxes, one per part of a transfer (a scatter has a part per slice). A box
// is given out again as soon as the rules allow its user to: after Done(ok), after its counter has been
// reached, after `drained`. So what lands late lands in somebody else's box.
//
// Owned by the workload. Threads: the test's.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sim/cluster.h"

namespace switchyard::sim {

using OpId = std::uint32_t;
using PartId = std::uint32_t;
using CounterNumber = std::uint32_t;

struct Part {
  enum class State : std::uint8_t {
    open,   // may land
    limbo,  // its sender has lost the receiver or died; may land until the receiver notices
    closed
  };
  OpId op = 0;
  NodeId to = 0;
  std::uint64_t box = 0;              // offset in the target's memory
  std::vector<std::byte> expected;    // content of the box
  std::vector<std::uint8_t> written;  // by byte: 1 if the transfer writes it
  CounterNumber counter = kNone;
  State state = State::open;
  bool complete = false;     // all bytes have been seen to be there
  bool region_goes = false;  // its region is unregistered at some time
  bool peer_lost = false;    // of a scatter: its sender has lost the receiver, while the whole went on
  TimePoint closed_at{};
  const char* why_closed = "";
};

struct Op {
  enum class Kind : std::uint8_t { write, pages, scatter, signal, message, connect };
  Kind kind = Kind::write;
  NodeId from = 0;
  NodeId to = 0;  // of messages and connects; of others the first part's
  std::vector<PartId> parts;
  std::uint64_t source_box = 0, source_bytes = 0;
  Transfer transfer;
  TimePoint submitted{}, deadline = TimePoint::max(), cancelled_at = TimePoint::max();
  bool started = false;                                   // submission was accepted
  bool done = false, drained = false, abandoned = false;  // abandoned: its process is gone
  bool ok = false;
  ErrorCode error{};
  std::uint32_t received = 0;  // of messages
  std::vector<std::byte> message;
};

struct CounterState {
  NodeId node = 0;
  Counter counter;            // empty: freed
  std::uint32_t planned = 0;  // transfers that will be aimed at it
  std::vector<PartId> parts;
  std::uint64_t seen = 0;
  std::uint64_t target = 0;  // of the expectation; 0: none
  TimePoint deadline = TimePoint::max();
  bool armed = false;
  bool withdrawn = false;  // by us
};

class Ledger final : public Observer {
 public:
  static constexpr std::uint64_t kMemoryBytes = 384 << 10;  // of each of a node's two memories
  static constexpr std::uint64_t kGranule = 128;

  struct Memory {
    std::vector<std::byte> target, source;
    std::vector<PartId> target_owner;  // by granule: part + 1
    std::vector<OpId> source_owner;    // op + 1
    Region target_region, source_region;
    RegionKey key;
    PeerAddress address;
  };

  explicit Ledger(Cluster& cluster) : cluster_(cluster), network_(cluster.network()) {}

  void add_node(NodeId node);
  Memory& memory(NodeId node) { return *memories_[node]; }
  std::vector<Op>& ops() { return ops_; }
  std::vector<Part>& parts() { return parts_; }
  std::vector<CounterState>& counters() { return counters_; }

  // Boxes; nothing if there is no room. A target's box is filled with what the transfer has to replace.
  std::optional<PartId> take_target(OpId op, NodeId node, std::uint64_t bytes);
  std::optional<std::uint64_t> take_source(OpId op, NodeId node, std::uint64_t bytes);
  // The part writes these bytes of the source at this offset of its box.
  void aim(PartId part, std::uint64_t offset, std::span<const std::byte> source);

  // ---- what happens
  void landed(ProcessId from, ProcessId to, const std::byte* at, std::size_t bytes) override;
  void done(OpId op, const Status& status);
  void drained(OpId op);
  void received(NodeId at, const PeerAddress& from, std::span<const std::byte> message);
  void peer_lost(NodeId at, const PeerAddress& peer);
  void node_gone(NodeId node);
  void counter_done(CounterNumber counter, const Status& status);
  void look_at_counters(NodeId node);
  void look_at_all_counters_at_the_end();

  template <class... Args>
  void violate(fmt::format_string<Args...> format, Args&&... args) {
    network_.violate(fmt::format(format, std::forward<Args>(args)...));
  }
  // Faults so far; without any nothing but cancels, deadlines and unregistered regions may fail.
  bool disturbed = false;

 private:
  bool is_complete(Part& part);
  std::uint64_t complete_parts(const CounterState& counter);
  void close(Part& part, const char* why);
  void judge_error(const Op& op, OpId id, const Error& error);
  bool free_at(const Memory& memory, std::uint64_t granule) const;

  Cluster& cluster_;
  Network& network_;
  std::vector<std::unique_ptr<Memory>> memories_;  // by node
  std::vector<Op> ops_;
  std::vector<Part> parts_;
  std::vector<CounterState> counters_;
  std::set<std::pair<NodeId, NodeId>> lost_;  // who has lost whom
};

}  // namespace switchyard::sim
