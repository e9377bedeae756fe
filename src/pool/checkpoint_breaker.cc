#include "pool/checkpoint_breaker.h"

#include <algorithm>

namespace switchyard::pool {

Status CheckpointBreaker::check(const std::string& checkpoint, TimePoint now) const {
  const auto found = broken_.find(checkpoint);
  if (found == broken_.end() || now >= found->second.until) return {};
  const Broken& broken = found->second;
  return fail(broken.why.code, "{} (failed {} times; it is tried again in {:.0f} s at the earliest)",
              broken.why.message, broken.failures, std::max(1.0, to_seconds(broken.until - now)));
}

void CheckpointBreaker::failed(const std::string& checkpoint, const Error& why, TimePoint now) {
  if (broken_.size() >= kMostRemembered && !broken_.contains(checkpoint)) {
    broken_.erase(
        std::ranges::min_element(broken_, {}, [](const auto& entry) { return entry.second.until; }));
  }
  Broken& broken = broken_[checkpoint];
  ++broken.failures;
  broken.pause = broken.failures == 1 ? first_pause_ : std::min(longest_pause_, 2 * broken.pause);
  broken.until = now + broken.pause;
  broken.why = why;
}

}  // namespace switchyard::pool
