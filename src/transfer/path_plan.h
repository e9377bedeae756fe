// Which rails of two engines are joined to paths at first.
//
// Every rail gets at least one path, and the paths together can carry what the slower side can: rails are
// matched like supply and demand, fastest first (the north-west corner of a transportation problem), which
// takes fewer paths than both sides have rails together.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace switchyard::transfer {

struct PlannedRail {
  std::uint16_t index = 0;             // among all rails of its engine
  std::uint64_t bytes_per_second = 0;  // 0: as fast as the average of those that say
};

using RailPair = std::pair<std::uint16_t, std::uint16_t>;  // index on this side, on the other

// For rails of one fabric.
std::vector<RailPair> primary_paths(std::span<const PlannedRail> here, std::span<const PlannedRail> there);

}  // namespace switchyard::transfer
