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
#include "post_bench.h"
#include "transfer_bench.h"

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

struct TransferArguments {
  bench::TransferBenchOptions options;
  std::string serve;
};

int run_transfer(TransferArguments& arguments) {
  log::start("bench", "warn");
  const auto status = arguments.serve.empty() ? bench::run_transfer_bench(arguments.options)
                                              : bench::serve_transfer_bench_at(arguments.serve);
  return status ? 0 : report(status.error());
}

void add_transfer(CLI::App& app, Chosen& chosen) {
  auto* transfer = app.add_subcommand(
      "transfer", "Writes and messages between two processes, beside the bare rails and libfabric");
  auto arguments = std::make_shared<TransferArguments>();
  bench::TransferBenchOptions& options = arguments->options;
  const auto sizes = CLI::AsSizeValue(false);
  transfer->add_option("--fabric", options.fabrics,
                       "Fabrics, one after the other; \"net,net\" is one of two rails (default: what works)");
  transfer->add_option("--sizes", options.sizes, "Bytes of writes, as 64k or 1M (default: 4k to 4M)")
      ->transform(sizes);
  transfer->add_option("--depths", options.depths, "Writes under way (default: 1 16)")
      ->check(CLI::Range(1, 256));
  transfer->add_option("--pages", options.pages, "Bytes of pages in lists (default: 4k 16k 64k)")
      ->transform(sizes);
  transfer
      ->add_option("--span", options.span, "Memory that writes move through (default: one place for each)")
      ->transform(sizes);
  transfer->add_option("--seconds", options.seconds, "Length of one measurement, about (default: 0.1)")
      ->check(CLI::Range(0.001, 60.0));
  transfer->add_option("--repeats", options.repeats, "Measurements of each kind, in turns (default: 5)")
      ->check(CLI::Range(1, 1000));
  transfer->add_flag("--writes-only", options.writes_only, "Only single writes");
  transfer->add_option("--json", options.json, "File to write everything to");
  transfer->add_option("--plot", options.plot, "File for a picture (SVG)");
  auto* peer = transfer->add_option("--peer", options.peer,
                                    "HOST:PORT of 'bench transfer --serve' (default: a child process)");
  transfer->add_option("--serve", arguments->serve, "Be the other side of one benchmark, at HOST:PORT")
      ->excludes(peer);
  transfer->callback([&chosen, arguments] { chosen = [arguments] { return run_transfer(*arguments); }; });
}

void add_post(CLI::App& app, Chosen& chosen) {
  auto* post = app.add_subcommand("post", "Posts over a rail that does nothing, for counting instructions");
  auto options = std::make_shared<bench::PostBenchOptions>();
  post->add_option("--writes", options->writes, "Work requests (default: 100000)")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 40));
  post->add_option("--pages", options->pages, "Pages of one transfer (default: 1)")
      ->check(CLI::Range(1u, 1u << 20));
  post->add_flag("!--unordered", options->ordered, "The rail keeps no order");
  post->add_flag("--counter", options->counter, "Transfers are counted by the other side");
  post->callback([&chosen, options] {
    chosen = [options] {
      log::start("bench", "warn");
      const auto status = bench::run_post_bench(*options);
      return status ? 0 : report(status.error());
    };
  });
}

}  // namespace

void add_bench(CLI::App& app, Chosen& chosen) {
  auto* command =
      app.add_subcommand("bench", "Measure this machine, or a server: bench kv, model, transfer, post, pool");
  command->require_subcommand(1);
  add_kv(*command, chosen);
  add_model(*command, chosen);
  add_transfer(*command, chosen);
  add_post(*command, chosen);
  add_bench_pool(*command, chosen);
}

}  // namespace switchyard::cli
