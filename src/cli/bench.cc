// `switchyard bench NAME`: one program per system, in bench/.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/default_model.h"
#include "cli/pool_options.h"
#include "cli/terminal.h"
#include "kv_bench.h"

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

}  // namespace

void add_bench(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("bench", "Measure this machine: bench kv, bench model");
  command->require_subcommand(1);

  auto* kv = command->add_subcommand("kv", "Cost of handing KV from a prefill to a decode process");
  auto kv_arguments = std::make_shared<KvArguments>();
  kv->add_option("--tokens", kv_arguments->options.lengths, "Prompt lengths (default: 128 512 1500)");
  kv->add_option("--repeats", kv_arguments->options.repeats, "Pairs per length (default: 7)")
      ->check(CLI::Range(1, 1000));
  kv->add_flag("--json", kv_arguments->options.json, "Print JSON");
  add_pool_options(*kv, kv_arguments->pool);
  kv->callback([&chosen, kv_arguments] { chosen = [kv_arguments] { return run_kv(*kv_arguments); }; });
}

}  // namespace switchyard::cli
