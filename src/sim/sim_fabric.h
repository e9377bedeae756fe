// A simulated rail: a process's endpoint on a port of its host (network.h).
//
// Writes are cut into pieces of the port's MTU. Each takes its time on the sender's port, travels, takes its
// time on the receiver's, and is copied into the target's memory at the moment it lands: in the order of
// posting on rails with order, in any order on others. An immediate arrives when the last piece of its write
// has landed; the acknowledgement travels back.
//
// It is as unkind as the contract in fabric/fabric.h allows. Where a port is down, pieces are lost, land
// late, or all land while the completion says `failed` or never comes. Of a path whose ends have not both
// been removed anything may still land; a removed end's completions may come all the same. Whatever the
// contract forbids the caller is reported to Network::violate.
//
// sim_fabric.cc is the rail: its memory, its ends, posting and polling; sim_flight.cc is what becomes of a
// write.
//
// Owned by its engine and the network. Threads: the test's.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "fabric/fabric.h"
#include "sim/network.h"

namespace switchyard::sim {

class SimFabric final : public fabric::Fabric {
 public:
  static std::shared_ptr<SimFabric> open(Network& network, ProcessId process, std::uint32_t port);

  ProcessId process() const { return process_; }
  std::uint32_t port_index() const { return port_; }

  const fabric::Capabilities& capabilities() const override { return capabilities_; }
  std::vector<std::byte> address() const override;
  Result<std::unique_ptr<fabric::LocalMemory>> register_memory(const fabric::MemoryRange& range) override;
  Result<fabric::PathEnd> add_peer(std::span<const std::byte> address) override;
  Status connect_peer(fabric::PeerId peer, std::span<const std::byte> token) override;
  void remove_peer(fabric::PeerId peer) override;
  std::size_t post(fabric::PeerId peer, std::span<const fabric::WriteRequest> requests) override;
  std::size_t poll(std::span<fabric::Completion> completions) override;
  bool healthy() const override;
  std::string describe_error(int error) const override;
  void close() override;

  // Its process has ended.
  void stop() { close(); }
  // Writes taken and not completed, and completions not polled.
  std::size_t pending() const { return outstanding_ + completions_.size(); }

 private:
  class Memory;
  static constexpr std::uint64_t kNoEnd = ~std::uint64_t{0};
  static constexpr int kRetriesExhausted = 1, kFlushed = 2, kAccessRefused = 3;  // errors of completions
  enum class Mode : std::uint8_t { whole, retries, fails, hangs, ack_lost_fails, ack_lost_hangs };
  struct Registration {
    std::uint64_t key = 0;  // 0: gone
    std::byte* base = nullptr;
    std::uint64_t bytes = 0;
    std::uint64_t address = 0;
  };
  struct Write {
    std::uint64_t serial = 0;
    fabric::WriteRequest request;
    const std::byte* data = nullptr;
    std::uint64_t source_key = 0;    // while the device reads from it
    std::vector<std::byte> on_wire;  // a copy, when the source may go
    std::uint64_t from_end = 0, to_end = 0;
    std::uint64_t piece_bytes = 0;
    std::uint32_t remaining = 0;  // pieces that have not landed
    std::uint32_t events = 0;     // that still refer to it
    TimePoint posted{}, retry_until{};
    Mode mode = Mode::whole;
    bool used = false;
    bool completed = false;  // nothing more will be said, or has to be
    bool aborted = false;    // pieces that have not landed will not
    bool refused = false;
    bool failing = false;  // a failed completion is on its way
  };

  SimFabric(Network& network, ProcessId process, std::uint32_t port);
  Network::End& end_of(const Write& write) { return network_.ends[write.from_end]; }
  SimFabric& target_of(const Write& write);
  Port& own_port() { return network_.port(network_.process(process_).host, port_); }
  bool has_route(const Write& write);
  bool path_is_up(const Write& write);
  TimePoint down_since(const Write& write);
  std::uint64_t offset_of(const Write& write, std::uint32_t piece) const { return piece * write.piece_bytes; }
  std::uint64_t bytes_of(const Write& write, std::uint32_t piece) const;

  void transmit(std::uint32_t index);
  template <void (SimFabric::*What)(std::uint32_t, std::uint32_t)>
  void schedule(std::uint32_t index, std::uint32_t piece, TimePoint when);
  void arrive(std::uint32_t index, std::uint32_t piece);
  void meet_fault(std::uint32_t index, std::uint32_t piece);
  void receive(std::uint32_t index, std::uint32_t piece);
  void land(std::uint32_t index, std::uint32_t piece);
  void drop(std::uint32_t index, std::uint32_t piece);
  void acknowledge(std::uint32_t index, std::uint32_t piece);
  void time_out(std::uint32_t index, std::uint32_t piece);
  void fail_later(std::uint32_t index, Nanos delay);
  void complete(std::uint32_t index, bool delivered);
  void resume(std::uint64_t end);
  void break_path(std::uint64_t end, std::uint32_t except);
  void detach_source(Write& write);
  void abandon(std::uint64_t end);
  std::vector<std::uint32_t> writes_of(std::uint64_t end);
  void release(std::uint32_t index);
  Registration* find_memory(std::uint64_t key);
  void push(const fabric::Completion& completion);

  Network& network_;
  const ProcessId process_;
  const std::uint32_t port_;
  std::uint32_t id_ = 0;  // in Network::fabrics
  fabric::Capabilities capabilities_;
  std::vector<Registration> memory_;
  std::vector<std::uint64_t> ends_;  // by PeerId; kNoEnd where it is free
  std::deque<Write> writes_;
  std::vector<std::uint32_t> free_writes_;
  std::deque<fabric::Completion> completions_;
  std::uint32_t outstanding_ = 0;
  std::uint64_t next_serial_ = 1;
  bool closed_ = false;
};

}  // namespace switchyard::sim
