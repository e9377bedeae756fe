// `switchyard simulate` and `switchyard plan`: what a pool would do, without the pool.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "cli/pool_description.h"
#include "cli/terminal.h"
#include "simulate/planner.h"
#include "simulate/report.h"

namespace switchyard::cli {
namespace {

using namespace simulate;

struct SimulateArguments {
  PoolDescription pool;
  WorkloadDescription workload;
  std::uint32_t prefill = 0;
  std::uint32_t decode = 0;
  std::uint32_t unified = 0;
  std::uint32_t berths = 2;
  std::vector<std::string> policies = {"quota"};
  std::string kv_memory;
  std::string longest_quota;
  bool shed = false;
  std::string plot;
  std::string json;
};

// With names from the map's own entries ("chat-3"), which its patterns need not match.
Result<std::vector<SimulatedModel>> describe_own_models(const LoadedPool& pool, const Workload& workload) {
  std::vector<SimulatedModel> models;
  for (const ModelEntry& entry : pool.models) {
    if (entry.is_rest() && pool.models.size() > 1) continue;
    for (std::uint32_t i = 0; i < entry.count; ++i) {
      auto model = describe_model(entry, workload.models[models.size()], pool.profile, pool.targets);
      if (!model) return pass(model.error());
      models.push_back(*std::move(model));
    }
  }
  return models;
}

Status run_simulate(const SimulateArguments& arguments) {
  const auto loaded = load_pool(arguments.pool);
  if (!loaded) return pass(loaded.error());
  SimulationInput input;
  auto workload = make_workload(arguments.workload, loaded->models);
  if (!workload) return pass(workload.error());
  const bool own = arguments.workload.workload.empty() && arguments.workload.generate == 0;
  auto models = own ? describe_own_models(*loaded, *workload) : describe_models(*loaded, workload->models);
  if (!models) return pass(models.error());
  input.workload = *std::move(workload);
  input.models = *std::move(models);

  auto cluster = describe_cluster(*loaded, input.models, arguments.berths, arguments.kv_memory);
  if (!cluster) return pass(cluster.error());
  input.cluster = *cluster;
  input.cluster.prefill = arguments.prefill;
  input.cluster.decode = arguments.decode;
  input.cluster.unified = arguments.unified;
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
    if (Status written = write_text_file(path.string(), to_svg(input, *result)); !written) return written;
  }
  const std::string& target = arguments.json;
  const std::string dumped = (json.size() == 1 ? json[0] : json).dump(2) + "\n";
  if (target == "-") {
    fmt::print("{}", dumped);
    return {};
  }
  fmt::print("{}", text);
  return target.empty() ? Status{} : write_text_file(target, dumped);
}

struct PlanArguments {
  PoolDescription pool;
  WorkloadDescription workload;
  std::string json;
  std::string policy = "slack";
  double attainment = 0.9;
  bool each_model = false;
  std::uint32_t seeds = 3;
};

Status run_plan(const PlanArguments& arguments) {
  auto loaded = load_pool(arguments.pool);
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
                      .seconds = arguments.workload.seconds,
                      .seed = arguments.workload.seed,
                      .seeds = arguments.seeds};
  options.input.mean = arguments.workload.input_mean;
  options.output.mean = arguments.workload.output_mean;
  const auto plan = make_plan(options);
  if (!plan) return pass(plan.error());
  const std::string dumped = to_json(*plan, options).dump(2) + "\n";
  if (arguments.json == "-") {
    fmt::print("{}", dumped);
    return {};
  }
  fmt::print("{}", to_text(*plan, options));
  return arguments.json.empty() ? Status{} : write_text_file(arguments.json, dumped);
}

}  // namespace

void add_simulate(CLI::App& app, Chosen& chosen) {
  auto* command =
      app.add_subcommand("simulate", "Replay a workload on instances in numbers, under a scheduling policy");
  auto arguments = std::make_shared<SimulateArguments>();
  add_workload_options(*command, arguments->workload);
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
  add_machine_options(*command, arguments->pool);
  add_target_options(*command, arguments->pool);
  add_generator_options(*command, arguments->workload);
  command->add_option("--json", arguments->json, "Write JSON to this file; - for standard output");
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
  arguments->workload.seconds = 600;
  command->add_option("--mix", arguments->pool.models, "YAML: models with count, rate, profile, bytes, gpus")
      ->required();
  command->add_option("--policy", arguments->policy, "quota, request, static, slack (default: slack)");
  command->add_option("--attainment", arguments->attainment, "Share of tokens to be in time (default: 0.9)")
      ->check(CLI::Range(0.01, 1.0));
  command->add_flag("--each-model", arguments->each_model,
                    "Every model is to reach it, not only all together");
  command->add_option("--seeds", arguments->seeds, "Workloads that the plan must serve (default: 3)")
      ->check(CLI::Range(1, 100));
  add_machine_options(*command, arguments->pool);
  add_target_options(*command, arguments->pool);
  add_generator_options(*command, arguments->workload);
  command->add_option("--json", arguments->json, "Write JSON to this file; - for standard output");
  command->callback([&chosen, arguments] {
    chosen = [arguments] {
      const auto status = run_plan(*arguments);
      return status ? 0 : report(status.error());
    };
  });
}

}  // namespace switchyard::cli
