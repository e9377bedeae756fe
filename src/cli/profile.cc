// `switchyard profile`: measures this machine for `switchyard simulate`.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/default_model.h"
#include "cli/pool_description.h"
#include "cli/terminal.h"
#include "model/image.h"
#include "pool/catalogue.h"
#include "profile_bench.h"

namespace switchyard::cli {
namespace {

struct ProfileArguments {
  std::vector<std::string> checkpoints;
  bench::ProfileOptions options;
  std::string gpu = "cpu";
  std::string kv_memory = "1GiB";
  std::string csv = "profile.csv";
  std::string map = "models.yaml";
  bool quick = false;
};

Result<std::vector<bench::ProfileCheckpoint>> find_checkpoints(const std::vector<std::string>& paths) {
  std::vector<bench::ProfileCheckpoint> found;
  std::set<std::string> names;
  for (const std::string& path : paths.empty() ? std::vector<std::string>{""} : paths) {
    auto model = model_or_default(path);
    if (!model) return pass(model.error());
    std::string name = simulate::table_name(pool::default_id(*model));
    if (!names.insert(name).second) {
      return fail(ErrorCode::invalid,
                  "two checkpoints are called '{}': their names tell them apart in the profile", name);
    }
    found.push_back({*std::move(model), std::move(name)});
  }
  return found;
}

void print(const bench::MachineProfile& profile) {
  fmt::print("{:<32} {:>8} {:>8} {:>14} {:>14}\n", "model", "tokens", "requests", "prefill, ms",
             "decode, ms");
  const auto cell = [](double ms) { return ms > 0 ? fmt::format("{:.2f}", ms) : std::string(); };
  for (const simulate::ProfiledModel& model : profile.models) {
    for (const simulate::MeasuredStep& step : model.steps) {
      fmt::print("{:<32} {:>8} {:>8} {:>14} {:>14}\n", model.name.substr(0, 32), step.input_tokens,
                 step.batch, cell(step.prefill_ms), cell(step.decode_ms));
    }
  }
  for (const simulate::ProfiledModel& model : profile.models) {
    fmt::print("{}: image of {:.1f} MB, {} bytes of KV per token\n", model.name,
               static_cast<double>(model.bytes) / 1e6, model.kv_bytes_per_token);
  }
  fmt::print("copies from memory to memory: {:.1f} GB/s\n", profile.accelerator.link_bytes_per_second / 1e9);
  for (const std::string& left_out : profile.left_out) fmt::print("left out: {}\n", left_out);
}

Status run_profile(ProfileArguments& arguments) {
  bench::ProfileOptions& options = arguments.options;
  if (arguments.quick) options.make_quick();
  const auto kv = simulate::parse_bytes(arguments.kv_memory);
  if (!kv) return fail_at("--kv-memory", kv.error());
  options.kv_bytes = *kv;
  auto checkpoints = find_checkpoints(arguments.checkpoints);
  if (!checkpoints) return pass(checkpoints.error());
  options.models = *std::move(checkpoints);
  for (const bench::ProfileCheckpoint& checkpoint : options.models) {
    ProgressBar bar("Preparing " + checkpoint.name);
    if (auto image = model::ModelImage::open(checkpoint.path, bar.callback()); !image)
      return pass(image.error());
  }
  const auto progress = [](const std::string& what, std::size_t done, std::size_t total) {
    fmt::print(stderr, "[{}/{}] {}\n", done + 1, total, what);
  };
  const auto profile = bench::measure_profile(options, progress);
  if (!profile) return pass(profile.error());
  const std::string gpu = simulate::table_name(arguments.gpu);
  const std::string csv = simulate::profile_csv(profile->models, gpu);
  const std::string map = simulate::model_map_yaml(profile->models, gpu, profile->accelerator);
  // Both at the end: an interrupted run leaves what was there before.
  if (Status written = write_text_file(arguments.csv, csv); !written) return written;
  if (Status written = write_text_file(arguments.map, map); !written) return written;
  print(*profile);
  fmt::print(
      "\nWritten: {0} and {1}. For example:\n"
      "  switchyard simulate --profile {0} --models {1} --generate 4 --input-mean 100 --output-mean 50 "
      "--unified 1 --policy slack\n",
      arguments.csv, arguments.map);
  return {};
}

}  // namespace

void add_profile(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand(
      "profile", "Measure prefill, decode and loads of models on this machine, for switchyard simulate");
  auto arguments = std::make_shared<ProfileArguments>();
  bench::ProfileOptions& options = arguments->options;
  const auto count = CLI::Range(1u, 1u << 20);
  command->add_option("checkpoints,-m,--model", arguments->checkpoints,
                      "Checkpoints (default: SmolLM2-135M-Instruct)");
  command->add_option("--threads", options.threads, "Compute threads (default: one per core)")
      ->check(CLI::Range(0, 1024));
  auto* prompts =
      command->add_option("--prompts", options.prompts, "Tokens of prefills (default: 16 64 256 1024 2048)")
          ->check(count);
  auto* rows =
      command->add_option("--rows", options.rows, "Requests of decode steps (default: 1 2 4 8 16 32)")
          ->check(CLI::Range(1, 512));
  auto* contexts =
      command->add_option("--contexts", options.contexts, "Tokens of each request (default: 64 512 1024)")
          ->check(count);
  command->add_option("--chunk", options.chunk, "Tokens of a prefill's steps (default: 256)")
      ->check(CLI::Range(1, 1 << 16));
  auto* seconds =
      command->add_option("--seconds", options.seconds, "Length of each measurement, about (default: 0.3)")
          ->check(CLI::Range(0.001, 3600.0));
  auto* limit = command
                    ->add_option("--limit", options.limit,
                                 "Seconds per model; what is left then is left out (default: 120)")
                    ->check(CLI::Range(1.0, 86400.0));
  command
      ->add_flag("--quick", arguments->quick,
                 "Few and short measurements, some seconds for a model of 100 MB")
      ->excludes(prompts)
      ->excludes(rows)
      ->excludes(contexts)
      ->excludes(seconds)
      ->excludes(limit);
  command->add_option("--kv-memory", arguments->kv_memory,
                      "KV memory of an instance; larger measurements are left out (default: 1GiB)");
  command->add_option("--name", arguments->gpu, "What to call this machine's accelerator (default: cpu)");
  command->add_option("--output", arguments->csv, "File for the step times (default: profile.csv)");
  command->add_option("--map", arguments->map, "File for the model map (default: models.yaml)");
  command->callback([&chosen, arguments] {
    chosen = [arguments] {
      log::start("profile", "warn");
      const auto status = run_profile(*arguments);
      return status ? 0 : report(status.error());
    };
  });
}

}  // namespace switchyard::cli
