// Checks of the input, and the figures at the end.
#include <algorithm>

#include "simulate/simulator_impl.h"

namespace switchyard::simulate {

using namespace schedule;

void Simulator::summarize() {
  result_.models.resize(input_.models.size());
  for (RequestId id = 0; id < requests_.size(); ++id) {
    const SimRequest& request = requests_[id];
    if (request.cancelled) continue;
    ModelOutcome& outcome = result_.models[asked(id).model];
    const std::uint32_t tokens = asked(id).output_tokens;
    ++outcome.requests;
    outcome.tokens += tokens;
    outcome.shed += request.shed;
    if (request.shed) outcome.shed_tokens += tokens;
    outcome.ended += request.ended;
    outcome.in_time += request.in_time;
    outcome.strict += request.in_time == tokens;
    outcome.good += request.in_time * 10ull >= tokens * 9ull;
    if (!request.shed && !request.ended) ++result_.unfinished;
  }
  for (const ModelOutcome& outcome : result_.models) {
    ModelOutcome& total = result_.total;
    total.requests += outcome.requests;
    total.tokens += outcome.tokens;
    total.shed += outcome.shed;
    total.shed_tokens += outcome.shed_tokens;
    total.ended += outcome.ended;
    total.in_time += outcome.in_time;
    total.strict += outcome.strict;
    total.good += outcome.good;
  }
  result_.seconds = to_seconds(last_end_);
  const double span = input_.workload.seconds() * static_cast<double>(instances_.size());
  result_.busy = span > 0 ? busy_ / span : 0;
  for (std::size_t i = 0; i < due_.size(); ++i) {
    result_.attainment_by_10s.push_back(
        due_[i] == 0 ? 1 : static_cast<double>(met_[i]) / static_cast<double>(due_[i]));
  }
}

Status check(const SimulationInput& input) {
  const Cluster& cluster = input.cluster;
  const std::uint64_t instances = std::uint64_t{cluster.prefill} + cluster.decode + cluster.unified;
  if (instances == 0 || instances > 10'000) {
    return fail(ErrorCode::invalid, "{} instances cannot be simulated (1 to 10000)", instances);
  }
  if ((cluster.prefill == 0) != (cluster.decode == 0)) {
    return fail(ErrorCode::invalid, "prefill and decode instances need each other; or use unified ones");
  }
  if (cluster.prefill > 0 && cluster.unified > 0) {
    return fail(ErrorCode::invalid, "a pool has prefill and decode instances or unified ones, not both");
  }
  if (!(cluster.link_bytes_per_second > 0) || cluster.activate < Nanos{}) {
    return fail(ErrorCode::invalid, "the link between host and instance needs a rate above zero");
  }
  if (input.models.size() != input.workload.models.size()) {
    return fail(ErrorCode::invalid, "{} models are described, the workload has {}", input.models.size(),
                input.workload.models.size());
  }
  for (const SimulatedModel& model : input.models) {
    if (model.spec.weight_bytes > cluster.berth_bytes) {
      return fail(ErrorCode::invalid, "model '{}' has {} bytes, a berth {}: give instances larger berths",
                  model.spec.name, model.spec.weight_bytes, cluster.berth_bytes);
    }
  }
  if (input.workload.requests.empty()) return fail(ErrorCode::invalid, "the workload has no requests");
  for (const Cancellation& cancellation : input.cancellations) {
    if (cancellation.request >= input.workload.requests.size()) {
      return fail(ErrorCode::invalid, "request {} is cancelled, but there is none", cancellation.request);
    }
  }
  return {};
}

double SimulationResult::attainment() const {
  return total.tokens == 0 ? 1 : static_cast<double>(total.in_time) / static_cast<double>(total.tokens);
}

double SimulationResult::attainment_of_admitted() const {
  const std::uint64_t tokens = total.tokens - total.shed_tokens;
  return tokens == 0 ? 1 : static_cast<double>(total.in_time) / static_cast<double>(tokens);
}

double SimulationResult::strict_attainment() const {
  return total.requests == 0 ? 1 : static_cast<double>(total.strict) / static_cast<double>(total.requests);
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto rank =
      std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(rank), values.end());
  return values[rank];
}

}  // namespace switchyard::simulate
