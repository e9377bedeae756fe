// `switchyard simtest`: random tests of the transfer engine on a simulated network.
#include "sim/simtest.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/terminal.h"

namespace switchyard::cli {
namespace {

struct SimtestArguments {
  std::uint64_t seeds = 1000;
  std::uint64_t first = 1;
  std::uint32_t threads = std::max(1u, std::thread::hardware_concurrency());
  std::size_t events = 60;
  bool verbose = false;
};

void describe(const sim::SimtestResult& result) {
  fmt::print("seed {}: {}\n  {} operations, {} ok; {} bytes; {} failovers; {} events, hash {:016x}\n",
             result.seed, result.scenario, result.operations, result.operations_ok, result.bytes_landed,
             result.failovers, result.events, result.trace_hash);
}

void describe_failure(const sim::SimtestResult& result) {
  fmt::print("\nseed {} fails at {:.6f} ms of virtual time: {}\n  {}\n  the latest events:\n", result.seed,
             to_seconds(result.when.time_since_epoch()) * 1e3, *result.violation, result.scenario);
  for (const std::string& line : result.latest_events) fmt::print("    {}\n", line);
  fmt::print("  again: switchyard simtest --first-seed {} --seeds 1 --events 1000\n", result.seed);
}

int run(const SimtestArguments& arguments) {
  log::start("simtest", "off");
  const TimePoint start = monotonic_now();
  std::atomic<std::uint64_t> next{0};
  std::mutex mutex;  // all below
  std::uint64_t done = 0, failed = 0, operations = 0, failovers = 0, again = 0;
  ProgressBar bar("Simulating", "seeds");
  auto work = [&] {
    for (std::uint64_t i; (i = next.fetch_add(1)) < arguments.seeds;) {
      const auto result = sim::run_simtest(arguments.first + i, arguments.events);
      std::lock_guard lock(mutex);
      ++done;
      operations += result.operations;
      failovers += result.failovers;
      again += result.requests_sent_again;
      if (arguments.verbose || arguments.seeds == 1) describe(result);
      if (result.violation) {
        ++failed;
        describe_failure(result);
      }
      if (!arguments.verbose) bar.update(done, arguments.seeds);
    }
  };
  {
    std::vector<std::jthread> threads;
    const auto count = std::min<std::uint64_t>(arguments.threads, arguments.seeds);
    for (std::uint64_t i = 1; i < count; ++i) threads.emplace_back(work);
    work();
  }
  const double seconds = to_seconds(monotonic_now() - start);
  fmt::print(
      "{} seeds from {} on: {} failed. {} operations, {} paths broken, {} writes sent again. {:.1f} s, "
      "{:.0f} seeds/s\n",
      arguments.seeds, arguments.first, failed, operations, failovers, again, seconds,
      static_cast<double>(arguments.seeds) / std::max(seconds, 1e-9));
  return failed == 0 ? 0 : 1;
}

}  // namespace

void add_simtest(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("simtest", "Test the transfer engine on random simulated networks");
  auto arguments = std::make_shared<SimtestArguments>();
  command->add_option("--seeds", arguments->seeds, "How many (default: 1000)")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 40));
  command->add_option("--first-seed,--seed", arguments->first, "The first one (default: 1)");
  command->add_option("--threads", arguments->threads, "At the same time (default: one per core)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--events", arguments->events, "Events to show of a failure (default: 60)");
  command->add_flag("--verbose", arguments->verbose, "A line for every seed");
  command->callback([&chosen, arguments, command] {
    // A seed that is named is run alone.
    if (command->count("--seeds") == 0 && command->count("--first-seed") != 0) arguments->seeds = 1;
    chosen = [arguments] { return run(*arguments); };
  });
}

}  // namespace switchyard::cli
