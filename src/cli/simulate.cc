// `switchyard simulate` and `switchyard plan`: what a pool would do, without the pool.
#include <CLI/CLI.hpp>
#include <fstream>
#include <memory>
#include <sstream>

#include "cli/commands.h"
#include "cli/terminal.h"
#include "simulate/planner.h"
#include "simulate/report.h"

namespace switchyard::cli {
namespace {

using namespace simulate;

constexpr std::uintmax_t kMaxInputBytes = std::uintmax_t{1} << 31;

// What both commands take.
struct PoolDescription {
  std::string profile;
  std::string gpu;
  std::string models;
  std::string memory;
  std::string link;
  std::string ttft = "10s";
  std::string tbt = "100ms";
  double input_mean = 700;
  double output_mean = 290;
  double seconds = 300;
  std::uint64_t seed = 1;
  std::string json;
};

void add_options(CLI::App& command, PoolDescription& pool) {
  command.add_option("--profile", pool.profile, "CSV of measured step times");
  command.add_option("--gpu", pool.gpu, "Accelerator: its rows of the profile, its memory and link");
  command.add_option("--memory", pool.memory,
                     "Memory of an accelerator, where --gpu does not say it (80GiB)");
  command.add_option("--link", pool.link, "Bytes per second between host and accelerator, each way (40GB)");
  command.add_option("--ttft", pool.ttft, "Target for the first token (default: 10s)");
  command.add_option("--tbt", pool.tbt, "Target between tokens (default: 100ms)");
  command.add_option("--input-mean", pool.input_mean,
                     "Generated requests: mean prompt tokens (default: 700)");
  command.add_option("--output-mean", pool.output_mean,
                     "Generated requests: mean tokens to make (default: 290)");
  command.add_option("--seconds", pool.seconds, "Generated requests: length of the workload (default: 300)");
  command.add_option("--seed", pool.seed, "Of generated requests (default: 1)");
  command.add_option("--json", pool.json, "Write JSON to this file; - for standard output");
}

Result<std::string> read_file(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  if (error || !file) return fail(ErrorCode::not_found, "{}: cannot be read; is there such a file?", path);
  if (size > kMaxInputBytes)
    return fail(ErrorCode::invalid, "{}: larger than {} bytes", path, kMaxInputBytes);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

Status write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) return fail(ErrorCode::io, "{}: cannot be written", path);
  return {};
}

struct Loaded {
  std::vector<ModelEntry> models;
  Profile profile;
  Accelerator accelerator;
  schedule::Targets targets;
};

Result<Loaded> load(const PoolDescription& pool) {
  Loaded loaded;
  const auto map = read_file(pool.models);
  if (!map) return pass(map.error());
  auto entries = parse_model_map(*map);
  if (!entries) return fail_at(pool.models, entries.error());
  loaded.models = *std::move(entries);
  if (!pool.profile.empty()) {
    if (pool.gpu.empty())
      return fail(ErrorCode::invalid, "--profile needs --gpu: which of its accelerators?");
    const auto csv = read_file(pool.profile);
    if (!csv) return pass(csv.error());
    auto profile = parse_profile(*csv, pool.gpu);
    if (!profile) return fail_at(pool.profile, profile.error());
    loaded.profile = *std::move(profile);
  }
  if (const auto known = known_accelerator(pool.gpu)) loaded.accelerator = *known;
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
    return fail(ErrorCode::invalid, "accelerator '{}' is not known: give --memory and --link", pool.gpu);
  }
  const auto ttft = parse_duration(pool.ttft);
  if (!ttft) return fail_at("--ttft", ttft.error());
  const auto tbt = parse_duration(pool.tbt);
  if (!tbt) return fail_at("--tbt", tbt.error());
  loaded.targets = {*ttft, *tbt};
  return loaded;
}

struct SimulateArguments {
  PoolDescription pool;
  std::string workload;
  std::uint32_t generate = 0;
  double rate = 0.1;
  std::uint32_t prefill = 0;
  std::uint32_t decode = 0;
  std::uint32_t unified = 0;
  std::uint32_t berths = 2;
  std::vector<std::string> policies = {"quota"};
  std::string kv_memory;
  std::string longest_quota;
  bool shed = false;
  std::string plot;
};

Result<Workload> make_workload(const SimulateArguments& arguments, const Loaded& loaded) {
  const PoolDescription& pool = arguments.pool;
  if (!arguments.workload.empty()) {
    if (arguments.generate > 0)
      return fail(ErrorCode::invalid, "--workload and --generate exclude each other");
    const auto csv = read_file(arguments.workload);
    if (!csv) return pass(csv.error());
    auto workload = parse_workload(*csv);
    if (!workload) return fail_at(arguments.workload, workload.error());
    return workload;
  }
  GeneratorOptions generator{.seconds = pool.seconds, .seed = pool.seed};
  generator.input.mean = pool.input_mean;
  generator.output.mean = pool.output_mean;
  if (arguments.generate > 0) {
    for (std::uint32_t i = 0; i < arguments.generate; ++i) {
      generator.models.push_back({fmt::format("model_{:02}", i), arguments.rate});
    }
  } else {
    auto models = named_models(loaded.models);
    if (!models)
      return fail_at("without --workload or --generate requests come from the model map", models.error());
    generator.models = *std::move(models);
  }
  return generate_workload(generator);
}

// With names from the map's own entries ("chat-3"), which its patterns need not match.
Result<std::vector<SimulatedModel>> describe_models(const SimulateArguments& arguments, const Loaded& loaded,
                                                    const Workload& workload) {
  std::vector<SimulatedModel> models;
  const auto add = [&](const ModelEntry& entry, const std::string& name) -> Status {
    auto model = describe_model(entry, name, loaded.profile, loaded.targets);
    if (!model) return pass(model.error());
    models.push_back(*std::move(model));
    return {};
  };
  if (arguments.workload.empty() && arguments.generate == 0) {
    for (const ModelEntry& entry : loaded.models) {
      for (std::uint32_t i = 0; i < entry.count; ++i) {
        if (auto added = add(entry, workload.models[models.size()]); !added) return pass(added.error());
      }
    }
    return models;
  }
  for (const std::string& name : workload.models) {
    const auto entry = find_entry(loaded.models, name);
    if (!entry) return pass(entry.error());
    if (auto added = add(**entry, name); !added) return pass(added.error());
  }
  return models;
}

Status run_simulate(const SimulateArguments& arguments) {
  const auto loaded = load(arguments.pool);
  if (!loaded) return pass(loaded.error());
  SimulationInput input;
  auto workload = make_workload(arguments, *loaded);
  if (!workload) return pass(workload.error());
  auto models = describe_models(arguments, *loaded, *workload);
  if (!models) return pass(models.error());
  input.workload = *std::move(workload);
  input.models = *std::move(models);

  std::uint64_t largest = 1;
  for (const SimulatedModel& model : input.models) largest = std::max(largest, model.spec.weight_bytes);
  std::uint32_t gpus = 1;
  for (const ModelEntry& entry : loaded->models) gpus = std::max(gpus, entry.gpus);
  auto cluster = make_cluster(loaded->accelerator, largest, arguments.berths, gpus);
  if (!cluster) return pass(cluster.error());
  input.cluster = *cluster;
  input.cluster.prefill = arguments.prefill;
  input.cluster.decode = arguments.decode;
  input.cluster.unified = arguments.unified;
  if (!arguments.kv_memory.empty()) {
    const auto bytes = simulate::parse_bytes(arguments.kv_memory);
    if (!bytes) return fail_at("--kv-memory", bytes.error());
    input.cluster.kv_bytes = *bytes;
  }
  if (!arguments.longest_quota.empty()) {
    const auto quota = parse_duration(arguments.longest_quota);
    if (!quota) return fail_at("--longest-quota", quota.error());
    input.options.longest_quota = *quota;
  }
  input.options.admission.shed_overload = arguments.shed;
  input.record_lanes = !arguments.plot.empty();

  auto json = nlohmann::ordered_json::array();
  std::string text;
  for (const std::string& name : arguments.policies) {
    const auto policy = schedule::parse_policy(name);
    if (!policy) return pass(policy.error());
    input.policy = *policy;
    const auto result = simulate::simulate(input);
    if (!result) return pass(result.error());
    json.push_back(to_json(input, *result));
    text += (text.empty() ? "" : "\n") + to_text(input, *result);
    if (arguments.plot.empty()) continue;
    std::filesystem::path path = arguments.plot;
    if (arguments.policies.size() > 1)
      path.replace_filename(path.stem().string() + "-" + name + path.extension().string());
    if (Status written = write_file(path.string(), to_svg(input, *result)); !written) return written;
  }
  const std::string& target = arguments.pool.json;
  const std::string dumped = (json.size() == 1 ? json[0] : json).dump(2) + "\n";
  if (target == "-") {
    fmt::print("{}", dumped);
    return {};
  }
  fmt::print("{}", text);
  return target.empty() ? Status{} : write_file(target, dumped);
}

struct PlanArguments {
  PoolDescription pool;
  std::string policy = "slack";
  double attainment = 0.9;
  bool each_model = false;
  std::uint32_t seeds = 3;
};

Status run_plan(const PlanArguments& arguments) {
  auto loaded = load(arguments.pool);
  if (!loaded) return pass(loaded.error());
  const auto policy = schedule::parse_policy(arguments.policy);
  if (!policy) return pass(policy.error());
  PlanOptions options{.models = std::move(loaded->models),
                      .profile = std::move(loaded->profile),
                      .accelerator = loaded->accelerator,
                      .policy = *policy,
                      .targets = loaded->targets,
                      .attainment = arguments.attainment,
                      .each_model = arguments.each_model,
                      .seconds = arguments.pool.seconds,
                      .seed = arguments.pool.seed,
                      .seeds = arguments.seeds};
  options.input.mean = arguments.pool.input_mean;
  options.output.mean = arguments.pool.output_mean;
  const auto plan = make_plan(options);
  if (!plan) return pass(plan.error());
  const std::string dumped = to_json(*plan, options).dump(2) + "\n";
  if (arguments.pool.json == "-") {
    fmt::print("{}", dumped);
    return {};
  }
  fmt::print("{}", to_text(*plan, options));
  return arguments.pool.json.empty() ? Status{} : write_file(arguments.pool.json, dumped);
}

}  // namespace

void add_simulate(CLI::App& app, Chosen& chosen) {
  auto* command =
      app.add_subcommand("simulate", "Replay a workload on instances in numbers, under a scheduling policy");
  auto arguments = std::make_shared<SimulateArguments>();
  command->add_option("--workload", arguments->workload, "CSV: time, model, input_tokens, output_tokens");
  command
      ->add_option("--generate", arguments->generate,
                   "So many models model_00 ... with --rate, instead of a CSV")
      ->check(CLI::Range(1, 10000));
  command->add_option("--rate", arguments->rate,
                      "Requests per second of each generated model (default: 0.1)");
  command
      ->add_option("--models", arguments->pool.models, "YAML: profile, bytes and KV of the workload's models")
      ->required();
  command->add_option("--prefill", arguments->prefill, "Prefill instances")->check(CLI::Range(0, 10000));
  command->add_option("--decode", arguments->decode, "Decode instances")->check(CLI::Range(0, 10000));
  command->add_option("--unified", arguments->unified, "Instances that do both")->check(CLI::Range(0, 10000));
  command->add_option("--policy", arguments->policies,
                      "quota, request, static, slack; several run one after the other");
  command->add_option("--berths", arguments->berths, "Model images per instance (default: 2)")
      ->check(CLI::Range(1, 64));
  command->add_option("--kv-memory", arguments->kv_memory,
                      "KV memory per instance (default: what berths leave)");
  command->add_option("--longest-quota", arguments->longest_quota, "Of the quota policy (default: 4s)");
  command->add_flag("--shed", arguments->shed, "Shed requests that would not be served in time");
  command->add_option("--plot", arguments->plot, "Write an SVG of who held each instance when");
  add_options(*command, arguments->pool);
  command->callback([&chosen, arguments] {
    chosen = [arguments] {
      const auto status = run_simulate(*arguments);
      return status ? 0 : report(status.error());
    };
  });
}

void add_plan(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("plan", "Find the fewest accelerators for a mix of models");
  auto arguments = std::make_shared<PlanArguments>();
  arguments->pool.seconds = 600;
  command->add_option("--mix", arguments->pool.models, "YAML: models with count, rate, profile, bytes, gpus")
      ->required();
  command->add_option("--policy", arguments->policy, "quota, request, static, slack (default: slack)");
  command->add_option("--attainment", arguments->attainment, "Share of tokens to be in time (default: 0.9)")
      ->check(CLI::Range(0.01, 1.0));
  command->add_flag("--each-model", arguments->each_model,
                    "Every model is to reach it, not only all together");
  command->add_option("--seeds", arguments->seeds, "Workloads that the plan must serve (default: 3)")
      ->check(CLI::Range(1, 100));
  add_options(*command, arguments->pool);
  command->callback([&chosen, arguments] {
    chosen = [arguments] {
      const auto status = run_plan(*arguments);
      return status ? 0 : report(status.error());
    };
  });
}

}  // namespace switchyard::cli
