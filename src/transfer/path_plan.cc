#include "transfer/path_plan.h"

#include <algorithm>

namespace switchyard::transfer {
namespace {

struct Rail {
  std::uint16_t index;
  std::uint64_t speed;
  std::uint64_t left;
  bool paired = false;
};

std::vector<Rail> fastest_first(std::span<const PlannedRail> planned) {
  std::uint64_t sum = 0, known = 0;
  for (const PlannedRail& rail : planned) {
    sum += rail.bytes_per_second;
    known += rail.bytes_per_second != 0;
  }
  const std::uint64_t average = known == 0 ? 1'000'000'000 : std::max<std::uint64_t>(sum / known, 1);
  std::vector<Rail> rails;
  for (const PlannedRail& rail : planned) {
    const std::uint64_t speed = rail.bytes_per_second == 0 ? average : rail.bytes_per_second;
    rails.push_back({rail.index, speed, speed});
  }
  std::stable_sort(rails.begin(), rails.end(),
                   [](const Rail& a, const Rail& b) { return a.speed > b.speed; });
  return rails;
}

}  // namespace

std::vector<RailPair> primary_paths(std::span<const PlannedRail> here, std::span<const PlannedRail> there) {
  std::vector<RailPair> pairs;
  if (here.empty() || there.empty()) return pairs;
  std::vector<Rail> ours = fastest_first(here), theirs = fastest_first(there);
  for (std::size_t i = 0, j = 0; i < ours.size() && j < theirs.size();) {
    pairs.emplace_back(ours[i].index, theirs[j].index);
    ours[i].paired = theirs[j].paired = true;
    const std::uint64_t flow = std::min(ours[i].left, theirs[j].left);
    ours[i].left -= flow;
    theirs[j].left -= flow;
    // What is left of a rail below an eighth is not worth a path of its own.
    if (ours[i].left <= ours[i].speed / 8) {
      const bool both = theirs[j].left <= theirs[j].speed / 8;
      ++i;
      if (both) ++j;
    } else {
      ++j;
    }
  }
  for (const Rail& rail : ours) {
    if (!rail.paired) pairs.emplace_back(rail.index, theirs.front().index);
  }
  for (const Rail& rail : theirs) {
    if (!rail.paired) pairs.emplace_back(ours.front().index, rail.index);
  }
  return pairs;
}

}  // namespace switchyard::transfer
