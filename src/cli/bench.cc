// `switchyard bench NAME`: one program per system, in bench/.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/default_model.h"
#include "cli/pool_options.h"
#include "cli/terminal.h"
#include "kv_bench.h"
#include "model_bench.h"

namespace switchyard::cli {
namespace {

struct KvArguments {
  PoolArguments pool;
  bench::KvBenchOptions options;
};

int run_kv(KvArguments& arguments) {
  log::start("bench", "warn");
  setenv("SWITCHYARD_LOG", "warn", 0);
  if (auto applied = apply(arguments.pool, arguments.options.pool); !applied) return report(applied.error());
  arguments.options.program = program_path();
  const auto status = bench::run_kv_bench(arguments.options);
  return status ? 0 : report(status.error());
}

struct ModelArguments {
  std::string model;
  bench::ModelBenchOptions options;
};

int run_model(ModelArguments& arguments) {
  log::start("bench", "warn");
  auto model = model_or_default(arguments.model);
  if (!model) return report(model.error());
  arguments.options.model = *std::move(model);
  const auto status = bench::run_model_bench(arguments.options);
  return status ? 0 : report(status.error());
}

void add_kv(CLI::App& app, Chosen& chosen) {
  auto* kv = app.add_subcommand("kv", "Cost of handing KV from a prefill to a decode process");
  auto kv_arguments = std::make_shared<KvArguments>();
  kv->add_option("--tokens", kv_arguments->options.lengths, "Prompt lengths (default: 128 512 1500)");
  kv->add_option("--repeats", kv_arguments->options.repeats, "Pairs per length (default: 7)")
      ->check(CLI::Range(1, 1000));
  kv->add_flag("--json", kv_arguments->options.json, "Print JSON");
  add_pool_options(*kv, kv_arguments->pool);
  kv->callback([&chosen, kv_arguments] { chosen = [kv_arguments] { return run_kv(*kv_arguments); }; });
}

void add_model(CLI::App& app, Chosen& chosen) {
  auto* model = app.add_subcommand("model", "Speed of prefill and decode, beside what the machine allows");
  auto arguments = std::make_shared<ModelArguments>();
  bench::ModelBenchOptions& options = arguments->options;
  model->add_option("-m,--model", arguments->model, "Checkpoint (default: SmolLM2-135M-Instruct)");
  model->add_option("--threads", options.threads, "Compute threads (default: one per core)")
      ->check(CLI::Range(0, 1024));
  model->add_option("--prompts", options.prompts, "Tokens of prefills (default: 128 512 1500)");
  model->add_option("--batches", options.batches, "Requests of decode steps (default: 1 4 16)");
  model->add_option("--contexts", options.contexts, "Tokens of each request (default: 128 1024)");
  model->add_option("--seconds", options.seconds, "Length of each measurement, about (default: 1)")
      ->check(CLI::Range(0.01, 3600.0));
  model->add_flag("--json", options.json, "Print JSON");
  model->callback([&chosen, arguments] { chosen = [arguments] { return run_model(*arguments); }; });
}

}  // namespace

void add_bench(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("bench", "Measure this machine: bench kv, bench model");
  command->require_subcommand(1);
  add_kv(*command, chosen);
  add_model(*command, chosen);
}

}  // namespace switchyard::cli
