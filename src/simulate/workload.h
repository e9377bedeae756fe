// Requests to replay: read from a table or generated. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::simulate {

struct WorkloadRequest {
  Nanos time{};             // since the beginning
  std::uint32_t model = 0;  // index into Workload::models
  std::uint32_t input_tokens = 0;
  std::uint32_t output_tokens = 0;
};

struct Workload {
  std::vector<std::string> models;
  std::vector<WorkloadRequest> requests;  // by time

  double seconds() const { return requests.empty() ? 0 : to_seconds(requests.back().time); }
};

inline constexpr std::uint32_t kMaxTokens = 1 << 20;

// Columns, by any of these names: time ("Request Time", "time", "TIMESTAMP"; seconds, or a clock with or
// without a date), model ("Model Name", "model"; optional), input ("Input Length", "input_tokens",
// "ContextTokens"), output
// ("Output Length", "output_tokens", "GeneratedTokens"). With dates, time counts from the first request.
// Requests may stand in any order. Errors: invalid, naming the line.
Result<Workload> parse_workload(std::string_view csv);

// Log-normal token counts, whose mean is `mean` before they are cut to 1 ... `most`.
struct Lengths {
  double mean;
  double sigma;  // of the logarithm
  std::uint32_t most;
};

struct GeneratedModel {
  std::string name;
  double rate;  // requests per second, Poisson
};

struct GeneratorOptions {
  std::vector<GeneratedModel> models;
  double seconds = 300;
  Lengths input{.mean = 700, .sigma = 1.2, .most = 8192};
  Lengths output{.mean = 290, .sigma = 0.9, .most = 2048};
  std::uint64_t seed = 1;
};

// A model's requests depend on the seed and its place in the list alone, not on the other models. Errors:
// invalid.
Result<Workload> generate_workload(const GeneratorOptions& options);

}  // namespace switchyard::simulate
