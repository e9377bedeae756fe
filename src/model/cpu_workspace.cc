#include "model/cpu_workspace.h"

#include <algorithm>
#include <thread>

namespace switchyard::model {

void CpuWorkspace::reserve(std::size_t shared_floats, std::size_t own_floats) {
  if (shared_.size() < shared_floats) {
    user_ = 0;
    shared_ = {};  // first the old goes: they need not both fit
    shared_ = AlignedFloats(shared_floats);
  }
  for (AlignedFloats& floats : own_) {
    if (floats.size() >= own_floats) continue;
    user_ = 0;
    floats = {};
    floats = AlignedFloats(own_floats);
  }
}

std::shared_ptr<RopeTable> CpuWorkspace::rope(std::span<const float> frequencies) {
  const auto found = std::find_if(tables_.begin(), tables_.end(), [&](const Table& table) {
    return std::ranges::equal(table.frequencies, frequencies);
  });
  Table table;
  if (found != tables_.end()) {
    table = std::move(*found);
    tables_.erase(found);
  } else {
    table.frequencies.assign(frequencies.begin(), frequencies.end());
    table.table = std::make_shared<RopeTable>(frequencies, 0);
  }
  tables_.push_front(std::move(table));
  if (tables_.size() > kKeptTables) tables_.pop_back();
  return tables_.front().table;
}

Result<std::shared_ptr<RuntimeWorkspace>> RuntimeWorkspace::create(std::uint32_t threads) {
  constexpr std::uint32_t kMostThreads = 1024;
  if (threads > kMostThreads) {
    return fail(ErrorCode::invalid, "{} threads for a workspace (up to {})", threads, kMostThreads);
  }
  if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
  try {
    return std::make_shared<CpuWorkspace>(threads);
  } catch (const std::exception& error) {
    return fail(ErrorCode::exhausted, "no memory or threads for a workspace of {} threads: {}", threads,
                error.what());
  }
}

}  // namespace switchyard::model
