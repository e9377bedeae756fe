// What runtimes on the CPU that take turns share: threads, memory to compute in, and tables of rotations.
//
// Used by the thread that creates and steps these runtimes, one at a time. A runtime's part of the memory is
// its own only while it has the turn: nothing is kept there between steps.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/thread_team.h"
#include "model/rope.h"
#include "model/runtime.h"
#include "model/runtime_buffers.h"

namespace switchyard::model {

class CpuWorkspace final : public RuntimeWorkspace {
 public:
  // Throws std::bad_alloc and std::system_error.
  explicit CpuWorkspace(std::uint32_t threads) : team_(threads), own_(team_.size()) {}

  ThreadTeam& team() { return team_; }

  // Makes sure that there are so many floats for all members together, and so many for each. Grown memory
  // lies elsewhere: whoever has the turn loses it. Throws std::bad_alloc.
  void reserve(std::size_t shared_floats, std::size_t own_floats);
  float* shared() { return shared_.data(); }
  float* own(std::uint32_t member) { return own_[member].data(); }

  // A number that no runtime had before.
  std::uint64_t join() { return ++last_user_; }
  // False if the memory is as `user` left it; else it is from now on.
  bool take_turn(std::uint64_t user) { return std::exchange(user_, user) != user; }

  // The table of these frequencies, which others may have grown already. A few tables are kept when nobody
  // uses them any more.
  std::shared_ptr<RopeTable> rope(std::span<const float> frequencies);

 private:
  static constexpr std::size_t kKeptTables = 16;

  ThreadTeam team_;
  AlignedFloats shared_;
  std::vector<AlignedFloats> own_;  // by member
  std::uint64_t last_user_ = 0;
  std::uint64_t user_ = 0;  // who has the turn; 0: nobody
  struct Table {
    std::vector<float> frequencies;
    std::shared_ptr<RopeTable> table;
  };
  std::deque<Table> tables_;  // used last first
};

}  // namespace switchyard::model
