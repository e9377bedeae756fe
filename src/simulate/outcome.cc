#include "simulate/outcome.h"

#include <algorithm>

namespace switchyard::simulate {
namespace {

constexpr double kBucketSeconds = 10;
constexpr std::size_t kMaxBuckets = 100'000;

}  // namespace

void add(ModelOutcome& outcome, const RequestOutcome& request) {
  ++outcome.requests;
  outcome.tokens += request.tokens;
  outcome.shed += request.shed;
  if (request.shed) outcome.shed_tokens += request.tokens;
  outcome.ended += request.ended;
  outcome.in_time += request.in_time;
  outcome.strict += request.in_time == request.tokens;
  outcome.good += request.in_time * 10ull >= request.tokens * 9ull;
}

ModelOutcome total_of(std::span<const ModelOutcome> models) {
  ModelOutcome total;
  for (const ModelOutcome& outcome : models) {
    total.requests += outcome.requests;
    total.tokens += outcome.tokens;
    total.shed += outcome.shed;
    total.shed_tokens += outcome.shed_tokens;
    total.ended += outcome.ended;
    total.in_time += outcome.in_time;
    total.strict += outcome.strict;
    total.good += outcome.good;
  }
  return total;
}

bool TokenClock::in_time(Nanos arrival, const schedule::Targets& targets, std::uint32_t index, Nanos made) {
  const Nanos due = arrival + targets.first_token + index * targets.between_tokens;
  const auto bucket = std::min(static_cast<std::size_t>(to_seconds(due) / kBucketSeconds), kMaxBuckets - 1);
  if (bucket >= due_.size()) {
    due_.resize(bucket + 1);
    met_.resize(bucket + 1);
  }
  ++due_[bucket];
  met_[bucket] += made <= due;
  return made <= due;
}

std::vector<double> TokenClock::attainment_by_10s() const {
  std::vector<double> shares;
  shares.reserve(due_.size());
  for (std::size_t i = 0; i < due_.size(); ++i) {
    shares.push_back(due_[i] == 0 ? 1 : static_cast<double>(met_[i]) / static_cast<double>(due_[i]));
  }
  return shares;
}

}  // namespace switchyard::simulate
