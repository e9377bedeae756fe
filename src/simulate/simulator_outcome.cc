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
    add(result_.models[asked(id).model], {.tokens = asked(id).output_tokens,
                                          .in_time = request.in_time,
                                          .shed = request.shed,
                                          .ended = request.ended});
    if (!request.shed && !request.ended) ++result_.unfinished;
  }
  result_.total = total_of(result_.models);
  result_.seconds = to_seconds(last_end_);
  const double span = input_.workload.seconds() * static_cast<double>(instances_.size());
  result_.busy = span > 0 ? busy_ / span : 0;
  result_.attainment_by_10s = clock_.attainment_by_10s();
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
