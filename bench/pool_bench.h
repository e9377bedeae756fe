// `switchyard bench pool`: a workload against real servers, counted as the simulator counts.
//
// Either one server that runs, or one that is started for each policy. On the caller's thread; as long as the
// workload, and a little for starting and draining.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "replay_outcome.h"
#include "schedule/policy.h"
#include "server_trace.h"

namespace switchyard::bench {

// Instances, as /health lists them.
struct PoolShape {
  std::uint32_t prefill = 0;
  std::uint32_t decode = 0;
  std::uint32_t unified = 0;
};
// Nothing in it where the body is no such list.
PoolShape parse_shape(std::string_view health);

using Predict = std::function<Result<simulate::SimulationResult>(const simulate::Workload&,
                                                                 schedule::PolicyKind, const PoolShape&)>;
using TargetsOf =
    std::function<Result<std::vector<schedule::Targets>>(const std::vector<std::string>& models)>;

struct PoolBenchOptions {
  simulate::Workload workload;
  FitOptions fit;
  std::string url;                   // of a running server; else
  std::vector<std::string> command;  // what to start, once for each policy; with --port, --policy and --trace
  std::vector<std::string> policies;  // for `url`: at most one, its own
  bool trace = false;                 // also without policies
  std::string api_key;
  TargetsOf targets;
  Predict predict;  // empty: no prediction
  Nanos ready_limit = std::chrono::seconds(180);
  Nanos drain = std::chrono::seconds(120);
  Nanos silence_limit = std::chrono::seconds(120);
  std::uint64_t seed = 1;
  std::filesystem::path directory;  // for the servers' output and traces
  std::function<bool()> stop;
  std::function<void(const std::string&)> tell;  // progress, a line at a time
};

struct PoolRun {
  std::string policy;  // empty: the server's own
  PoolShape shape;
  FittedWorkload fitted;
  Replay replay;
  ReplayOutcome outcome;
  std::optional<ServerTrace> trace;
  std::optional<simulate::SimulationResult> predicted;
};

// Appends a run for each policy; those that are there are good also when an error is returned, or when it was
// interrupted. Errors: not_found, io, timed_out (a server is not ready in time), corrupt (its answers),
// invalid, cancelled (interrupted before a replay began).
Status run_pool_bench(const PoolBenchOptions& options, std::vector<PoolRun>& runs);

// The command with what is missing: an own port, the policy, the trace file. Returns the port.
// Pure but for choosing a free port. Errors: io.
Result<std::uint16_t> complete_command(std::vector<std::string>& command, const std::string& policy,
                                       const std::string& trace_file);

}  // namespace switchyard::bench
