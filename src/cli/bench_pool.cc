// `switchyard bench pool`: a workload against real servers, beside what the simulator says.
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/pool_description.h"
#include "cli/pool_options.h"
#include "cli/terminal.h"
#include "pool_bench.h"
#include "pool_report.h"

namespace switchyard::cli {
namespace {

struct PoolBenchArguments {
  PoolDescription pool;
  WorkloadDescription workload;
  bench::PoolBenchOptions options;
  std::vector<std::string> command;  // behind --
  std::vector<std::string> policies;
  std::string serve_config;
  std::string kv_memory;
  std::uint32_t berths = 2;
  double drain = 120;
  double silence = 120;
  std::string json;
  std::string plot;
  std::string records;
  std::string directory;
};

std::vector<std::string> split(const std::vector<std::string>& lists) {
  std::vector<std::string> words;
  for (const std::string& list : lists) {
    for (std::size_t begin = 0; begin <= list.size();) {
      const std::size_t end = std::min(list.find(',', begin), list.size());
      if (end > begin) words.push_back(list.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return words;
}

Status choose_server(PoolBenchArguments& arguments) {
  bench::PoolBenchOptions& options = arguments.options;
  options.policies = split(arguments.policies);
  for (const std::string& policy : options.policies) {
    if (auto known = schedule::parse_policy(policy); !known) return pass(known.error());
  }
  if (!arguments.serve_config.empty()) {
    if (!arguments.command.empty())
      return fail(ErrorCode::invalid, "--serve-config and a command exclude each other");
    arguments.command = {"switchyard", "serve", "--config", arguments.serve_config};
  }
  if (arguments.command.empty()) {
    if (options.policies.size() > 1) {
      return fail(
          ErrorCode::invalid,
          "comparing policies takes a server for each: give -- switchyard serve ..., or --serve-config");
    }
    if (options.url.empty()) options.url = "http://127.0.0.1:8000";
    return {};
  }
  if (!options.url.empty()) return fail(ErrorCode::invalid, "--url and a command exclude each other");
  options.command = arguments.command;
  if (options.command.front() == "switchyard") options.command.front() = program_path().string();
  return {};
}

// What the simulator is asked: the same workload on instances as the server has them.
void choose_prediction(PoolBenchArguments& arguments, const std::shared_ptr<LoadedPool>& pool) {
  bench::PoolBenchOptions& options = arguments.options;
  options.targets = [pool](const std::vector<std::string>& models) -> Result<std::vector<schedule::Targets>> {
    std::vector<schedule::Targets> targets(models.size(), pool->targets);
    if (pool->models.empty()) return targets;
    const auto described = describe_models(*pool, models);
    if (!described) return pass(described.error());
    for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = (*described)[i].spec.targets;
    return targets;
  };
  if (pool->models.empty()) return;
  options.predict = [pool, berths = arguments.berths, kv_memory = arguments.kv_memory](
                        const simulate::Workload& workload, schedule::PolicyKind policy,
                        const bench::PoolShape& shape) -> Result<simulate::SimulationResult> {
    simulate::SimulationInput input;
    input.workload = workload;
    auto models = describe_models(*pool, workload.models);
    if (!models) return pass(models.error());
    input.models = *std::move(models);
    auto cluster = describe_cluster(*pool, input.models, berths, kv_memory);
    if (!cluster) return pass(cluster.error());
    input.cluster = *cluster;
    input.cluster.prefill = shape.prefill;
    input.cluster.decode = shape.decode;
    input.cluster.unified = shape.unified;
    input.policy = policy;
    return simulate::simulate(input);
  };
}

// A folder for the servers' output and traces; ours to remove when nobody named it.
class Folder {
 public:
  static Result<std::unique_ptr<Folder>> make(const std::string& named) {
    std::error_code error;
    if (!named.empty()) {
      std::filesystem::create_directories(named, error);
      if (error) return fail(ErrorCode::io, "{}: cannot be made: {}", named, error.message());
      return std::unique_ptr<Folder>(new Folder(named, false));
    }
    std::string path = (std::filesystem::temp_directory_path(error) / "switchyard-bench.XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) return fail(ErrorCode::io, "{}: cannot be made", path);
    return std::unique_ptr<Folder>(new Folder(path, true));
  }
  ~Folder() {
    std::error_code ignored;
    if (own_) std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  Folder(std::filesystem::path path, bool own) : path_(std::move(path)), own_(own) {}
  std::filesystem::path path_;
  bool own_;
};

Status print(const PoolBenchArguments& arguments, const std::vector<bench::PoolRun>& runs) {
  if (runs.empty()) return {};
  const std::string json = bench::to_json(runs).dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
  fmt::print("{}", arguments.json == "-" ? json + "\n" : bench::to_table(runs));
  if (!arguments.json.empty() && arguments.json != "-") {
    if (Status written = write_text_file(arguments.json, json + "\n"); !written) return written;
  }
  if (!arguments.plot.empty()) {
    if (Status written = write_text_file(arguments.plot, bench::to_svg(runs)); !written) return written;
  }
  if (!arguments.records.empty()) {
    std::string lines;
    for (const bench::PoolRun& run : runs) lines += bench::record_lines(run.fitted.workload, run.replay);
    if (Status written = write_text_file(arguments.records, lines); !written) return written;
  }
  return {};
}

Status run_pool(PoolBenchArguments& arguments) {
  bench::PoolBenchOptions& options = arguments.options;
  if (Status chosen = choose_server(arguments); !chosen) return chosen;
  auto pool = std::make_shared<LoadedPool>();
  if (!arguments.pool.models.empty()) {
    if (arguments.pool.profile.empty())
      return fail(ErrorCode::invalid, "--models describes models for --simulate PROFILE.csv; give both");
    auto loaded = load_pool(arguments.pool);
    if (!loaded) return pass(loaded.error());
    *pool = *std::move(loaded);
  } else if (!arguments.pool.profile.empty()) {
    return fail(ErrorCode::invalid,
                "--simulate needs --models, the map that switchyard profile wrote with it");
  } else {
    const auto targets = read_targets(arguments.pool);
    if (!targets) return pass(targets.error());
    pool->targets = *targets;
  }
  choose_prediction(arguments, pool);
  options.fit.seconds = arguments.workload.seconds;
  if (arguments.workload.workload.empty()) {
    if (arguments.workload.generate == 0 && pool->models.empty())
      return fail(ErrorCode::invalid, "nothing to replay: give --workload FILE.csv or --generate MODELS");
    // The workload is as long as its replay.
    const double seconds = arguments.workload.seconds > 0 ? arguments.workload.seconds : 300;
    arguments.workload.seconds = seconds * options.fit.speed;
  }
  auto workload = make_workload(arguments.workload, pool->models);
  if (!workload) return pass(workload.error());
  options.workload = *std::move(workload);
  options.seed = arguments.workload.seed;
  options.drain = std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(arguments.drain));
  options.silence_limit = std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(arguments.silence));
  options.trace = !arguments.plot.empty();
  auto folder = Folder::make(arguments.directory);
  if (!folder) return pass(folder.error());
  options.directory = (*folder)->path();
  hold_stop_signals();
  bool stopped = false;
  options.stop = [&stopped] { return stopped = stopped || stop_requested(Nanos::zero()); };
  options.tell = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  std::vector<bench::PoolRun> runs;
  const Status done = bench::run_pool_bench(options, runs);
  const Status printed = print(arguments, runs);
  return done ? printed : done;
}

}  // namespace

void add_bench_pool(CLI::App& bench, Chosen& chosen) {
  auto* command = bench.add_subcommand(
      "pool", "Replay a workload against a server, or a server for each policy; count as simulate does");
  auto arguments = std::make_shared<PoolBenchArguments>();
  arguments->workload.seconds = 0;
  command->add_option("--url", arguments->options.url,
                      "A running server (default: http://127.0.0.1:8000, where no command is given)");
  command->add_option("--api-key", arguments->options.api_key, "Key that the server asks for");
  command->add_option("--policies,--policy", arguments->policies,
                      "quota,slack,request,static: start a server for each; or the running server's own");
  command->add_option("--serve-config", arguments->serve_config,
                      "YAML file: as -- switchyard serve --config FILE");
  command->add_option("command", arguments->command,
                      "Behind --: what to start, as switchyard serve ARGS; gets --port, --policy, --trace");
  add_workload_options(*command, arguments->workload);
  add_generator_options(*command, arguments->workload,
                        "Length of the replay; later requests are left out (default: all; generated: 300)");
  command->add_option("--speed", arguments->options.fit.speed, "Replay so many times as fast (default: 1)")
      ->check(CLI::Range(1e-3, 1e3));
  command->add_option("--max-tokens", arguments->options.fit.max_tokens, "Most tokens to make per request");
  command->add_option("--max-prompt", arguments->options.fit.max_prompt, "Most prompt tokens per request");
  add_target_options(*command, arguments->pool);
  command->add_option("--simulate", arguments->pool.profile,
                      "CSV of step times (switchyard profile): print the simulator's prediction beside");
  command->add_option("--models", arguments->pool.models, "YAML: the model map for --simulate");
  command->add_option("--gpu", arguments->pool.gpu, "For --simulate: accelerator (default: the model map's)");
  command->add_option("--memory", arguments->pool.memory, "For --simulate: memory of an accelerator");
  command->add_option("--link", arguments->pool.link, "For --simulate: bytes per second of loads");
  command->add_option("--kv-memory", arguments->kv_memory, "For --simulate: KV memory per instance");
  command->add_option("--berths", arguments->berths, "For --simulate: model images per instance (default: 2)")
      ->check(CLI::Range(1, 64));
  command
      ->add_option("--drain", arguments->drain,
                   "Seconds after the last request; what is open then has failed (default: 120)")
      ->check(CLI::Range(0.0, 86400.0));
  command
      ->add_option("--silence", arguments->silence,
                   "Seconds without a byte after which a request has failed (default: 120)")
      ->check(CLI::Range(0.1, 86400.0));
  command->add_option("--json", arguments->json, "Write JSON to this file; - for standard output");
  command->add_option("--plot", arguments->plot, "Write an SVG: attainment, and who held each instance when");
  command->add_option("--records", arguments->records, "Write a line of JSON for each request");
  command->add_option("--directory", arguments->directory,
                      "Keep the started servers' output and traces there (default: a temporary one)");
  command->callback([&chosen, arguments] {
    chosen = [arguments] {
      log::start("bench", "warn");
      const auto status = run_pool(*arguments);
      return status ? 0 : report(status.error());
    };
  });
}

}  // namespace switchyard::cli
