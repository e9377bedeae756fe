// One side of the transfer benchmark: an engine, the same rails bare, and libfabric without them, all over
// the same memory. Both processes have one for each fabric that is measured.
//
// The engine's callbacks run on its worker; everything else on the one thread that owns the side.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench_link.h"
#include "fabric/fabric.h"
#include "memory/arena.h"
#include "switchyard/transfer.h"

namespace switchyard::bench {

// Immediates of bare rails say what is wanted of the other side.
inline constexpr std::uint32_t kSink = 0;  // nothing
inline constexpr std::uint32_t kEcho = 1;  // the same back

// Bare rails to the other side. `rails` of the other side are in the same order.
struct RailSet {
  struct Rail {
    std::shared_ptr<fabric::Fabric> fabric;
    std::unique_ptr<fabric::LocalMemory> memory;
    fabric::PathEnd end;
    std::uint64_t target_address = 0;
    std::uint64_t target_key = 0;
  };
  std::vector<Rail> rails;

  nlohmann::json card() const;
  Status meet(const nlohmann::json& card);
  nlohmann::json tokens() const;
  Status join(const nlohmann::json& tokens);
  // A write of [offset, offset + bytes) to the same place of the other side's memory.
  fabric::WriteRequest write(std::size_t rail, const std::byte* base, std::uint64_t offset,
                             std::uint64_t bytes) const;
  ~RailSet();
};

class Side {
 public:
  // `fabric` is the engine's: rails, separated by commas. Errors: the engine's and the rails'.
  static Result<std::unique_ptr<Side>> open(const std::string& fabric, const std::string& host,
                                            std::uint64_t bytes);
  ~Side();
  Side() = default;
  Side(const Side&) = delete;
  Side& operator=(const Side&) = delete;

  // What the other side has to know, in two rounds: card and meet, then tokens and join.
  nlohmann::json card() const;
  Status meet(const nlohmann::json& card);
  nlohmann::json tokens() const;
  Status join(const nlohmann::json& tokens);

  TransferEngine& engine() { return *engine_; }
  std::byte* base() { return memory_.base(); }
  std::uint64_t bytes() const { return memory_.bytes(); }
  RailSet& raw() { return raw_; }
  RailSet& plain() { return plain_; }  // empty where libfabric has nothing like it
  Write write(std::uint64_t offset, std::uint64_t bytes) const;
  const Region& region() const { return region_; }
  const PeerAddress& peer() const { return peer_; }
  const RegionKey& target() const { return target_; }
  const CounterId& far_sink() const { return far_sink_; }
  const CounterId& far_echo() const { return far_echo_; }
  Counter& echo() { return echo_; }  // counts what comes back

  // The far side: sends back whatever its echo counter and its messages ask for.
  void answer_echoes();
  // The far side: polls the bare rails, and echoes, until the link has something.
  void progress(RailSet& rails, const Link& link);

 private:
  void arm_echo();

  Arena memory_;
  std::unique_ptr<TransferEngine> engine_;
  Region region_;
  Counter sink_, echo_;
  RailSet raw_, plain_;
  PeerAddress peer_;
  RegionKey target_;
  CounterId far_sink_, far_echo_;
  std::uint64_t echoes_ = 0;
};

// Answers requests of the near side until its link closes.
void serve_transfer_bench(Link link);

// Of this process.
double cpu_seconds();

}  // namespace switchyard::bench
