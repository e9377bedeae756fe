// The KV memory of an instance: blocks and tail slots, taken and registered once, at start.
//
// Used by the instance's loop alone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kv/handover.h"
#include "memory/arena.h"
#include "memory/block_pool.h"
#include "model/config.h"
#include "model/kv_layout.h"
#include "switchyard/transfer.h"

namespace switchyard::pool {

class KvStore {
 public:
  struct Options {
    std::uint64_t kv_bytes = 0;    // at least one slab is taken
    std::uint32_t tail_slots = 0;  // requests whose hand-over is under way
  };
  // Errors: exhausted, io.
  static Result<std::unique_ptr<KvStore>> create(TransferEngine& engine, const model::ModelConfig& config,
                                                 const model::KvLayout& layout, const Options& options);

  std::span<std::byte> memory() const { return pool_memory_.span(); }
  BlockPool& blocks() { return *blocks_; }
  const kv::Shape& shape() const { return shape_; }
  const Region& pool_region() const { return pool_region_; }
  const Region& tail_region() const { return tail_region_; }
  // Tokens that one request can have.
  std::uint32_t context() const { return context_; }

  // A tail slot holds the logits of one token: vocab floats.
  std::optional<std::uint32_t> take_tail();
  void give_back_tail(std::uint32_t slot) { free_tails_.push_back(slot); }
  std::uint64_t tail_offset(std::uint32_t slot) const { return slot * tail_stride_; }
  std::span<float> tail(std::uint32_t slot) const;

 private:
  KvStore() = default;

  Arena pool_memory_;
  Arena tail_memory_;
  std::optional<SlabPool> slabs_;
  std::optional<BlockPool> blocks_;
  Region pool_region_;  // after the memory: unregistered first
  Region tail_region_;
  kv::Shape shape_;
  std::uint32_t context_ = 0;
  std::uint32_t vocab_ = 0;
  std::uint64_t tail_stride_ = 0;
  std::vector<std::uint32_t> free_tails_;
};

}  // namespace switchyard::pool
