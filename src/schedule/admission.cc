#include "schedule/admission.h"

#include <algorithm>

namespace switchyard::schedule {
namespace {

constexpr Nanos kLeastRetry = std::chrono::seconds(1);

Nanos seconds(double value) { return Nanos(static_cast<std::int64_t>(std::min(value, 1e6) * 1e9)); }

}  // namespace

TokenBucket::TokenBucket(const RateLimit& limit) : limit_(limit) {
  limit_.burst = std::max(limit_.burst, 1.0);
  level_ = limit_.burst;
}

double TokenBucket::at(TimePoint now) const {
  if (!used_) return limit_.burst;
  return std::min(limit_.burst, level_ + std::max(0.0, to_seconds(now - filled_)) * limit_.per_second);
}

std::optional<Nanos> TokenBucket::take(TimePoint now) {
  level_ = at(now);
  filled_ = now;
  used_ = true;
  if (level_ >= 1 - 1e-9) {
    level_ -= 1;
    return std::nullopt;
  }
  return seconds((1 - level_) / limit_.per_second);
}

void TokenBucket::put_back() { level_ = std::min(limit_.burst, level_ + 1); }

bool TokenBucket::full(TimePoint now) const { return at(now) >= limit_.burst; }

void Admission::add_model(ModelId id, const ModelSpec& spec) {
  models_.insert_or_assign(id,
                           ModelEntry{TokenBucket(spec.rate), spec.rate.per_second > 0, spec.max_waiting});
}

void Admission::remove_model(ModelId id) { models_.erase(id); }

void Admission::forget_idle_keys(TimePoint now) {
  std::erase_if(keys_, [&](const auto& entry) { return entry.second.full(now); });
}

std::optional<Refusal> Admission::refuse(const RequestSpec& request, const AdmissionState& state,
                                         TimePoint now) {
  const auto entry = models_.find(request.model);
  if (entry == models_.end()) return Refusal{ShedReason::no_instance, {}};
  ModelEntry& model = entry->second;

  const Nanos later = std::max(kLeastRetry, state.expected_wait);
  if (model.max_waiting > 0 && state.waiting_of_model >= model.max_waiting) {
    return Refusal{ShedReason::queue, later};
  }
  // A pool that is half full leaves each model its share of the rest; a full one takes nobody.
  const std::uint64_t limit = options_.max_waiting;
  const double share = static_cast<double>(limit) * state.weight_share;
  if (state.waiting_total >= limit ||
      (state.waiting_total >= limit / 2 && static_cast<double>(state.waiting_of_model) >= share)) {
    return Refusal{ShedReason::queue, later};
  }
  if (!request.metered) return std::nullopt;
  if (options_.shed_overload && state.expected_in_time < options_.attainment) {
    return Refusal{ShedReason::overload, later};
  }
  if (model.limited) {
    if (const auto wait = model.bucket.take(now))
      return Refusal{ShedReason::rate, std::max(kLeastRetry, *wait)};
  }
  if (options_.key_rate.per_second > 0) {
    if (keys_.size() >= kMaxKeys) forget_idle_keys(now);
    auto key = keys_.find(request.key);
    if (key == keys_.end()) {
      // Too many clients that are all busy: one more cannot be told apart from one that evades its limit.
      if (keys_.size() >= kMaxKeys) {
        if (model.limited) model.bucket.put_back();
        return Refusal{ShedReason::rate, kLeastRetry};
      }
      key = keys_.emplace(request.key, TokenBucket(options_.key_rate)).first;
    }
    if (const auto wait = key->second.take(now)) {
      if (model.limited) model.bucket.put_back();
      return Refusal{ShedReason::rate, std::max(kLeastRetry, *wait)};
    }
  }
  return std::nullopt;
}

}  // namespace switchyard::schedule
