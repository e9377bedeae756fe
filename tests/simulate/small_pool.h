// Pools and workloads of a size for tests.
#pragma once

#include "simulate/simulator.h"

namespace switchyard::simulate {

inline constexpr LinearTimes kTimes = {.prefill_base_ms = 10,
                                       .prefill_token_ms = 0.02,
                                       .decode_base_ms = 8,
                                       .decode_context_ms = 0.0005,
                                       .decode_row_ms = 0.05};

// Models of 10 GB, links of 20 GB/s: half a second a load.
inline SimulationInput small_pool(std::size_t models, schedule::PolicyKind policy) {
  SimulationInput input;
  for (std::size_t i = 0; i < models; ++i) {
    SimulatedModel& model = input.models.emplace_back();
    model.times = StepTimes::linear(kTimes);
    model.spec = {
        .name = "model-" + std::to_string(i), .weight_bytes = 10'000'000'000, .kv_block_bytes = 16 * 100'000};
    input.workload.models.push_back(model.spec.name);
  }
  input.cluster.berth_bytes = 10'000'000'000;
  input.cluster.kv_bytes = 20'000'000'000;
  input.cluster.link_bytes_per_second = 20e9;
  input.policy = policy;
  return input;
}

inline void generate(SimulationInput& input, double rate, double seconds, std::uint64_t seed) {
  GeneratorOptions options{.seconds = seconds, .seed = seed};
  options.input.mean = 300;
  options.output.mean = 120;
  for (const SimulatedModel& model : input.models) options.models.push_back({model.spec.name, rate});
  input.workload = *generate_workload(options);
}

}  // namespace switchyard::simulate
