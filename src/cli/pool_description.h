// What `simulate`, `plan` and `bench pool` have in common: descriptions of models and machines, and
// workloads.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

#include "simulate/model_map.h"
#include "simulate/simulator.h"

namespace switchyard::cli {

// Models and the machine they are on.
struct PoolDescription {
  std::string profile;
  std::string gpu;
  std::string models;
  std::string memory;
  std::string link;
  std::string ttft = "10s";
  std::string tbt = "100ms";
};

// Requests: a table's, or generated ones.
struct WorkloadDescription {
  std::string workload;
  std::uint32_t generate = 0;
  double rate = 0.1;
  double input_mean = 700;
  double output_mean = 290;
  double seconds = 300;
  std::uint64_t seed = 1;
};

// --profile, --gpu, --memory, --link; --models or --mix is the command's own.
void add_machine_options(CLI::App& command, PoolDescription& pool);
// --ttft, --tbt.
void add_target_options(CLI::App& command, PoolDescription& pool);
// --workload, --generate, --rate.
void add_workload_options(CLI::App& command, WorkloadDescription& workload);
// --input-mean, --output-mean, --seconds, --seed.
void add_generator_options(
    CLI::App& command, WorkloadDescription& workload,
    const std::string& seconds_help = "Generated requests: length of the workload (default: 300)");

struct LoadedPool {
  std::vector<simulate::ModelEntry> models;
  simulate::Profile profile;
  simulate::Accelerator accelerator;
  schedule::Targets targets;
};

Result<schedule::Targets> read_targets(const PoolDescription& pool);
// Reads the model map and the profile. Errors: not_found, invalid; they name the file or the option.
Result<LoadedPool> load_pool(const PoolDescription& pool);

// Without --workload and --generate requests are generated for the entries of the map.
Result<simulate::Workload> make_workload(const WorkloadDescription& description,
                                         const std::vector<simulate::ModelEntry>& models);

// By the map's entries that fit the names.
Result<std::vector<simulate::SimulatedModel>> describe_models(const LoadedPool& pool,
                                                              const std::vector<std::string>& names);
// The instances' memory and link; how many there are is the caller's. `kv_memory`: empty, or what parse_bytes
// reads.
Result<simulate::Cluster> describe_cluster(const LoadedPool& pool,
                                           const std::vector<simulate::SimulatedModel>& models,
                                           std::uint32_t berths, const std::string& kv_memory);

// Errors: io.
Status write_text_file(const std::string& path, const std::string& text);

}  // namespace switchyard::cli
