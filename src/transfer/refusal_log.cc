#include "transfer/refusal_log.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace switchyard::transfer {

void RefusalLog::warn(std::string_view source, std::string_view what, TimePoint now) {
  std::erase_if(rows_, [&](const Row& row) { return now - row.logged >= kPause; });
  const bool recent = std::ranges::any_of(rows_, [&](const Row& row) { return row.source == source; });
  if (recent || rows_.size() == kRows) {
    ++left_out_;
    return;
  }
  rows_.push_back({std::string(source), now});
  const std::uint64_t left_out = std::exchange(left_out_, 0);
  log::warn(
      "control channel: {}: {}{}", source, what,
      left_out == 0 ? std::string() : fmt::format(" ({} refusals before this were not logged)", left_out));
}

}  // namespace switchyard::transfer
