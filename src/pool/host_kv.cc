#include "pool/host_kv.h"

namespace switchyard::pool {

Result<std::unique_ptr<HostKv>> HostKv::create(std::uint64_t bytes, std::size_t slab_bytes) {
  auto host = std::make_unique<HostKv>();
  const std::uint64_t whole = bytes / slab_bytes * slab_bytes;
  if (whole == 0) return host;
  auto memory = SharedMemory::create("switchyard KV", whole);
  if (!memory) return fail_at("taking host memory for KV", memory.error());
  host->memory_ = *std::move(memory);
  host->name_ = host->memory_.name();
  host->slabs_.emplace(host->memory_.span(), slab_bytes);
  return host;
}

std::uint64_t HostKv::used() const {
  std::uint64_t used = 0;
  for (const auto& [block_bytes, pool] : pools_) {
    used += pool.used() * block_charge(slabs_->slab_bytes(), block_bytes);
  }
  return used;
}

Result<std::vector<BlockId>> HostKv::take(std::size_t block_bytes, std::uint32_t count) {
  if (!slabs_) return fail(ErrorCode::exhausted, "there is no host memory for KV");
  auto pool = pools_.find(block_bytes);
  if (pool == pools_.end()) {
    auto made = BlockPool::create(*slabs_, block_bytes);
    if (!made) return pass(made.error());
    pool = pools_.emplace(block_bytes, *std::move(made)).first;
  }
  std::vector<BlockId> blocks;
  if (auto taken = pool->second.take(count, blocks); !taken) return pass(taken.error());
  return blocks;
}

void HostKv::give_back(std::size_t block_bytes, const std::vector<BlockId>& blocks) {
  if (!blocks.empty()) pools_.at(block_bytes).give_back(blocks);
}

void HostKv::give_back_after(const std::string& process, std::size_t block_bytes,
                             std::vector<BlockId> blocks) {
  if (!blocks.empty()) waiting_.emplace(process, Waiting{block_bytes, std::move(blocks)});
}

void HostKv::release(const std::string& process) {
  const auto [first, last] = waiting_.equal_range(process);
  for (auto each = first; each != last; ++each) give_back(each->second.block_bytes, each->second.blocks);
  waiting_.erase(first, last);
}

}  // namespace switchyard::pool
