// Which models there are, what they weigh and how quick they are: the YAML of `switchyard simulate` and
// `plan`.
//
//     models:
//       - name: chat-*                 # a workload's names, with * ? [0-5]; the first entry that fits counts
//         profile: qwen2_5_7b          # of the step-time profile; or, instead, coefficients in milliseconds:
//         times: {prefill_base: 13, prefill_token: 0.013, decode_base: 8, decode_context: 0.0009,
//                 decode_row: 0.06}
//         scale: 1.0                   # factor on step times
//         bytes: 15.6GB                # of the weights, over all its GPUs
//         kv_bytes_per_token: 57344
//         gpus: 1                      # of one instance (tensor parallel)
//         ttft: 10s                    # targets; default: from the command line
//         tbt: 100ms
//         weight: 1                    # worth of its tokens, share of a full pool
//         max_waiting: 0               # requests; 0: no limit
//         count: 28                    # generated workloads and plans: so many models of this kind,
//         rate: [0.01, 0.02]           #   each with so many requests per second (one number, or one per
//                                      #   model)
//     accelerators:                    # optional: machines that are not known by name
//       - name: cpu                    # --gpu; the first one is taken where none is named
//         memory: 4GiB                 # for weights and KV
//         link: 12GB                   # bytes per second from host memory to it
//
// Pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "simulate/simulator.h"

namespace switchyard::simulate {

struct ModelEntry {
  std::string name;
  std::string profile;
  std::optional<LinearTimes> times;
  double scale = 1;
  std::uint64_t bytes = 0;
  std::uint64_t kv_bytes_per_token = 128 * 1024;
  std::uint32_t gpus = 1;
  std::optional<Nanos> ttft;
  std::optional<Nanos> tbt;
  double weight = 1;
  std::uint32_t max_waiting = 0;
  std::uint32_t count = 1;
  std::vector<double> rates;

  // It stands for names that no other entry has, and is no model to generate requests for.
  bool is_rest() const { return name == "*" && rates.empty(); }
};

using Profile = std::map<std::string, StepTimes>;

// Errors: invalid, naming the line.
Result<std::vector<ModelEntry>> parse_model_map(const std::string& yaml);

struct Accelerator {
  std::uint64_t memory_bytes = 0;
  double link_bytes_per_second = 0;  // between host and device, each way, as it is reached
};

struct NamedAccelerator {
  std::string name;
  Accelerator accelerator;
};

// Those that a model map describes; none where it has no such list. Errors: invalid, naming the line.
Result<std::vector<NamedAccelerator>> parse_accelerators(const std::string& yaml);

// The entry for a name. Errors: not_found.
Result<const ModelEntry*> find_entry(const std::vector<ModelEntry>& entries, const std::string& name);

// Errors: not_found (the profile lacks the model it names), invalid.
Result<SimulatedModel> describe_model(const ModelEntry& entry, const std::string& name,
                                      const Profile& profile, const schedule::Targets& targets);

// "NAME" for an entry of one model, "NAME-0" ... else; `*` in a name is left out. With its rate. Beside
// other entries one that is_rest() is skipped. Errors: invalid (an entry without a rate).
Result<std::vector<GeneratedModel>> named_models(const std::vector<ModelEntry>& entries);

using switchyard::parse_bytes;
using switchyard::parse_duration;

// H20, H100, H200, H800, A100, A10. Nothing: not known.
std::optional<Accelerator> known_accelerator(std::string_view name);

}  // namespace switchyard::simulate
