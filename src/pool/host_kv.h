// Host memory where KV waits for its turn: one for all instances of a machine, which map it.
//
// Only the dispatcher takes and returns blocks, on its thread. An instance that ended may not have stopped
// writing when that is heard of: its blocks come back when its process is known to be gone.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "memory/block_pool.h"
#include "memory/shared_memory.h"
#include "switchyard/result.h"

namespace switchyard::pool {

class HostKv {
 public:
  // `bytes` is rounded down to whole slabs; 0: there is none. Errors: exhausted.
  static Result<std::unique_ptr<HostKv>> create(std::uint64_t bytes, std::size_t slab_bytes);

  const SharedMemoryName& name() const { return name_; }
  // Of all slabs.
  std::uint64_t bytes() const { return slabs_ ? std::uint64_t{slabs_->slabs()} * slabs_->slab_bytes() : 0; }
  // What may be counted on, by what blocks are charged with (block_charge): slabs that several block sizes
  // have in part, and that nobody moves together here, may leave the rest unused.
  std::uint64_t capacity() const { return bytes() / 5 * 4; }
  std::uint64_t used() const;

  // Errors: exhausted.
  Result<std::vector<BlockId>> take(std::size_t block_bytes, std::uint32_t count);
  void give_back(std::size_t block_bytes, const std::vector<BlockId>& blocks);
  // The same, once release() is called for the process that may still write.
  void give_back_after(const std::string& process, std::size_t block_bytes, std::vector<BlockId> blocks);
  void release(const std::string& process);

 private:
  struct Waiting {
    std::size_t block_bytes;
    std::vector<BlockId> blocks;
  };

  SharedMemory memory_;
  SharedMemoryName name_;
  std::optional<SlabPool> slabs_;
  std::map<std::size_t, BlockPool> pools_;  // by block size
  std::multimap<std::string, Waiting> waiting_;
};

}  // namespace switchyard::pool
