#include "cli/pool_description.h"

#include <CLI/CLI.hpp>
#include <fstream>

#include "base/files.h"
#include "simulate/planner.h"

namespace switchyard::cli {

using namespace simulate;

namespace {

constexpr std::uint64_t kMaxInputBytes = std::uint64_t{1} << 31;

}  // namespace

void add_machine_options(CLI::App& command, PoolDescription& pool) {
  command.add_option("--profile", pool.profile, "CSV of measured step times (see switchyard profile)");
  command.add_option("--gpu", pool.gpu,
                     "Accelerator: its rows of the profile, its memory and link (default: the model map's)");
  command.add_option("--memory", pool.memory,
                     "Memory of an accelerator, where neither --gpu nor the model map says it (80GiB)");
  command.add_option("--link", pool.link, "Bytes per second between host and accelerator, each way (40GB)");
}

void add_target_options(CLI::App& command, PoolDescription& pool) {
  command.add_option("--ttft", pool.ttft, "Target for the first token (default: 10s)");
  command.add_option("--tbt", pool.tbt, "Target between tokens (default: 100ms)");
}

void add_workload_options(CLI::App& command, WorkloadDescription& workload) {
  command.add_option("--workload", workload.workload, "CSV: time, model, input_tokens, output_tokens");
  command
      .add_option("--generate", workload.generate,
                  "So many models model_00 ... with --rate, instead of a CSV")
      ->check(CLI::Range(1, 10000));
  command.add_option("--rate", workload.rate, "Requests per second of each generated model (default: 0.1)");
}

void add_generator_options(CLI::App& command, WorkloadDescription& workload,
                           const std::string& seconds_help) {
  command.add_option("--input-mean", workload.input_mean,
                     "Generated requests: mean prompt tokens (default: 700)");
  command.add_option("--output-mean", workload.output_mean,
                     "Generated requests: mean tokens to make (default: 290)");
  command.add_option("--seconds", workload.seconds, seconds_help)->check(CLI::Range(0.0, 1e8));
  command.add_option("--seed", workload.seed, "Of generated requests (default: 1)");
}

Status write_text_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) return fail(ErrorCode::io, "{}: cannot be written", path);
  return {};
}

Result<schedule::Targets> read_targets(const PoolDescription& pool) {
  const auto ttft = parse_duration(pool.ttft);
  if (!ttft) return fail_at("--ttft", ttft.error());
  const auto tbt = parse_duration(pool.tbt);
  if (!tbt) return fail_at("--tbt", tbt.error());
  return schedule::Targets{*ttft, *tbt};
}

Result<LoadedPool> load_pool(const PoolDescription& pool) {
  LoadedPool loaded;
  const auto map = read_file(pool.models, kMaxInputBytes);
  if (!map) return pass(map.error());
  auto entries = parse_model_map(*map);
  if (!entries) return fail_at(pool.models, entries.error());
  loaded.models = *std::move(entries);
  auto accelerators = parse_accelerators(*map);
  if (!accelerators) return fail_at(pool.models, accelerators.error());
  std::string gpu = pool.gpu;
  if (gpu.empty() && !accelerators->empty()) gpu = accelerators->front().name;
  if (!pool.profile.empty()) {
    if (gpu.empty()) return fail(ErrorCode::invalid, "--profile needs --gpu: which of its accelerators?");
    const auto csv = read_file(pool.profile, kMaxInputBytes);
    if (!csv) return pass(csv.error());
    auto profile = parse_profile(*csv, gpu);
    if (!profile) return fail_at(pool.profile, profile.error());
    loaded.profile = *std::move(profile);
  }
  if (const auto known = known_accelerator(gpu)) loaded.accelerator = *known;
  for (const NamedAccelerator& described : *accelerators) {
    if (described.name == gpu) loaded.accelerator = described.accelerator;
  }
  if (!pool.memory.empty()) {
    const auto bytes = simulate::parse_bytes(pool.memory);
    if (!bytes) return fail_at("--memory", bytes.error());
    loaded.accelerator.memory_bytes = *bytes;
  }
  if (!pool.link.empty()) {
    const auto bytes = simulate::parse_bytes(pool.link);
    if (!bytes) return fail_at("--link", bytes.error());
    loaded.accelerator.link_bytes_per_second = static_cast<double>(*bytes);
  }
  if (loaded.accelerator.memory_bytes == 0 || !(loaded.accelerator.link_bytes_per_second > 0)) {
    return fail(ErrorCode::invalid, "accelerator '{}' is not known: give --memory and --link", gpu);
  }
  const auto targets = read_targets(pool);
  if (!targets) return pass(targets.error());
  loaded.targets = *targets;
  return loaded;
}

Result<Workload> make_workload(const WorkloadDescription& description,
                               const std::vector<ModelEntry>& models) {
  if (!description.workload.empty()) {
    if (description.generate > 0)
      return fail(ErrorCode::invalid, "--workload and --generate exclude each other");
    const auto csv = read_file(description.workload, kMaxInputBytes);
    if (!csv) return pass(csv.error());
    auto workload = parse_workload(*csv);
    if (!workload) return fail_at(description.workload, workload.error());
    return workload;
  }
  GeneratorOptions generator{.seconds = description.seconds, .seed = description.seed};
  generator.input.mean = description.input_mean;
  generator.output.mean = description.output_mean;
  if (description.generate > 0) {
    for (std::uint32_t i = 0; i < description.generate; ++i) {
      generator.models.push_back({fmt::format("model_{:02}", i), description.rate});
    }
  } else {
    auto named = named_models(models);
    if (!named)
      return fail_at("without --workload or --generate requests come from the model map", named.error());
    generator.models = *std::move(named);
  }
  return generate_workload(generator);
}

Result<std::vector<SimulatedModel>> describe_models(const LoadedPool& pool,
                                                    const std::vector<std::string>& names) {
  std::vector<SimulatedModel> models;
  for (const std::string& name : names) {
    const auto entry = find_entry(pool.models, name);
    if (!entry) return pass(entry.error());
    auto model = describe_model(**entry, name, pool.profile, pool.targets);
    if (!model) return pass(model.error());
    models.push_back(*std::move(model));
  }
  return models;
}

Result<Cluster> describe_cluster(const LoadedPool& pool, const std::vector<SimulatedModel>& models,
                                 std::uint32_t berths, const std::string& kv_memory) {
  std::uint64_t largest = 1;
  for (const SimulatedModel& model : models) largest = std::max(largest, model.spec.weight_bytes);
  std::uint32_t gpus = 1;
  for (const ModelEntry& entry : pool.models) gpus = std::max(gpus, entry.gpus);
  auto cluster = make_cluster(pool.accelerator, largest, berths, gpus);
  if (!cluster || kv_memory.empty()) return cluster;
  const auto bytes = simulate::parse_bytes(kv_memory);
  if (!bytes) return fail_at("--kv-memory", bytes.error());
  cluster->kv_bytes = *bytes;
  return cluster;
}

}  // namespace switchyard::cli
