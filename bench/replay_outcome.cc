#include "replay_outcome.h"

#include <algorithm>
#include <cmath>

#include "simulate/outcome.h"

namespace switchyard::bench {
namespace {

constexpr std::size_t kMaxErrorKinds = 8;

double microseconds_exact(Nanos time) { return std::round(to_seconds(time) * 1e6) / 1e6; }

}  // namespace

ReplayOutcome count(const simulate::Workload& workload, std::span<const schedule::Targets> targets,
                    const Replay& replay) {
  ReplayOutcome outcome;
  simulate::SimulationResult& result = outcome.result;
  result.models.resize(workload.models.size());
  simulate::TokenClock clock;
  Nanos last{};
  for (std::size_t i = 0; i < workload.requests.size(); ++i) {
    const simulate::WorkloadRequest& asked = workload.requests[i];
    const ReplayRecord& record = replay.records[i];
    if (record.end == ReplayEnd::unsent || record.end == ReplayEnd::open) {
      ++result.cancelled;
      continue;
    }
    outcome.latest_send = std::max(outcome.latest_send, to_seconds(record.sent - asked.time));
    last = std::max(last, record.over);
    simulate::RequestOutcome request{.tokens = asked.output_tokens,
                                     .shed = record.end == ReplayEnd::shed,
                                     .ended = record.end == ReplayEnd::ended};
    const auto made =
        static_cast<std::uint32_t>(std::min<std::size_t>(record.tokens.size(), asked.output_tokens));
    if (request.ended && made < request.tokens) {
      ++outcome.short_answers;
      request.tokens = made;
    }
    for (std::uint32_t k = 0; k < made; ++k) {
      request.in_time += clock.in_time(asked.time, targets[asked.model], k, record.tokens[k]);
    }
    if (made > 0) result.first_token_seconds.push_back(to_seconds(record.tokens[0] - asked.time));
    if (record.end == ReplayEnd::failed) {
      ++result.unfinished;
      if (outcome.errors.contains(record.error) || outcome.errors.size() < kMaxErrorKinds)
        ++outcome.errors[record.error];
    }
    simulate::add(result.models[asked.model], request);
  }
  result.total = simulate::total_of(result.models);
  result.seconds = to_seconds(last);
  result.attainment_by_10s = clock.attainment_by_10s();
  outcome.span = replay.interrupted ? std::min(replay.seconds, workload.seconds()) : workload.seconds();
  return outcome;
}

std::string record_lines(const simulate::Workload& workload, const Replay& replay) {
  std::string lines;
  for (std::size_t i = 0; i < workload.requests.size(); ++i) {
    const simulate::WorkloadRequest& asked = workload.requests[i];
    const ReplayRecord& record = replay.records[i];
    nlohmann::ordered_json json = {{"request", i},
                                   {"model", workload.models[asked.model]},
                                   {"time", microseconds_exact(asked.time)},
                                   {"input_tokens", asked.input_tokens},
                                   {"output_tokens", asked.output_tokens},
                                   {"end", to_string(record.end)},
                                   {"sent", microseconds_exact(record.sent)},
                                   {"over", microseconds_exact(record.over)},
                                   {"status", record.status}};
    if (record.retry_after > 0) json["retry_after"] = record.retry_after;
    if (!record.error.empty()) json["error"] = record.error;
    auto& tokens = json["tokens"] = nlohmann::ordered_json::array();
    for (const Nanos time : record.tokens) tokens.push_back(microseconds_exact(time));
    lines += json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
  return lines;
}

}  // namespace switchyard::bench
