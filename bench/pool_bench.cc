#include "pool_bench.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "child_server.h"

namespace switchyard::bench {
namespace {

constexpr Nanos kAskLimit = std::chrono::seconds(5);
constexpr Nanos kReadyPoll = std::chrono::milliseconds(100);
constexpr Nanos kStopLimit = std::chrono::seconds(15);
constexpr double kTrustedSkew = 60;

class PoolBench {
 public:
  PoolBench(const PoolBenchOptions& options, std::vector<PoolRun>& runs) : options_(options), runs_(runs) {}

  Status run() {
    if (!options_.url.empty()) {
      auto server = ServerAddress::parse(options_.url);
      if (!server) return pass(server.error());
      return measure(*server, options_.policies.empty() ? "" : options_.policies.front(), nullptr);
    }
    const std::vector<std::string> policies =
        options_.policies.empty() ? std::vector<std::string>{""} : options_.policies;
    for (const std::string& policy : policies) {
      if (Status done = start_and_measure(policy); !done) return done;
      if (!runs_.empty() && runs_.back().replay.interrupted) return {};
    }
    return {};
  }

 private:
  Status start_and_measure(const std::string& policy) {
    const std::string name = policy.empty() ? "server" : policy;
    const bool traced = options_.trace || !policy.empty();
    const auto trace = traced ? options_.directory / (name + ".trace") : std::filesystem::path();
    std::vector<std::string> command = options_.command;
    const auto port = complete_command(command, policy, trace.string());
    if (!port) return pass(port.error());
    std::string shown;
    for (const std::string& word : command) shown += (shown.empty() ? "" : " ") + word;
    options_.tell("starting " + shown);
    auto child = ChildServer::start(command, options_.directory / (name + ".log"));
    if (!child) return pass(child.error());
    Status done = measure({.host = "127.0.0.1", .port = std::to_string(*port)}, policy, child->get());
    (*child)->stop(kStopLimit);
    // The trace is complete now.
    if (done && traced) read(trace, **child);
    return done;
  }

  Status measure(const ServerAddress& server, const std::string& policy, ChildServer* child) {
    const auto endpoints = resolve(server);
    if (!endpoints) return pass(endpoints.error());
    PoolRun run{.policy = policy};
    if (Status ready = wait_ready(server, *endpoints, child, run.shape); !ready) return ready;
    const auto listed = http_get(*endpoints, server, "/v1/models", options_.api_key, kAskLimit);
    if (!listed) return fail_at("/v1/models", listed.error());
    const auto models = parse_models(*listed);
    if (!models) return pass(models.error());
    auto fitted = fit(options_.workload, *models, options_.fit);
    if (!fitted) return pass(fitted.error());
    run.fitted = *std::move(fitted);
    const simulate::Workload& workload = run.fitted.workload;
    const auto targets = options_.targets(workload.models);
    if (!targets) return pass(targets.error());
    if (options_.predict) {
      // Before the replay, so that what is wrong with it shows early.
      const auto kind = schedule::parse_policy(policy.empty() ? "slack" : policy);
      if (!kind) return pass(kind.error());
      auto predicted = options_.predict(workload, *kind, run.shape);
      if (!predicted) return fail_at("the prediction", predicted.error());
      run.predicted = *std::move(predicted);
    }
    options_.tell(fmt::format(
        "{}replaying {} requests for {} models, {:.0f} s{}", policy.empty() ? "" : policy + ": ",
        workload.requests.size(), workload.models.size(), workload.seconds(),
        run.fitted.shortened == 0 ? "" : fmt::format(" ({} requests shortened)", run.fitted.shortened)));
    ReplayOptions asked{.server = server,
                        .api_key = options_.api_key,
                        .drain = options_.drain,
                        .silence_limit = options_.silence_limit,
                        .seed = options_.seed,
                        .stop = options_.stop};
    asked.progress = [&](const ReplayProgress& at) {
      options_.tell(fmt::format("{:.0f} s: {} of {} sent, {} open, {} ended, {} shed, {} failed", at.seconds,
                                at.sent, at.all, at.open, at.ended, at.shed, at.failed));
    };
    auto replayed = replay(workload, asked);
    if (!replayed) return pass(replayed.error());
    run.replay = *std::move(replayed);
    run.outcome = count(workload, *targets, run.replay);
    runs_.push_back(std::move(run));
    return {};
  }

  Status wait_ready(const ServerAddress& server, const Endpoints& endpoints, ChildServer* child,
                    PoolShape& shape) {
    const TimePoint limit = monotonic_now() + (child == nullptr ? kAskLimit : options_.ready_limit);
    while (true) {
      const auto health = http_get(endpoints, server, "/health", options_.api_key, kAskLimit);
      if (health) {
        shape = parse_shape(*health);
        return {};
      }
      // Servers of other makers may have no /health; what they serve shows at /v1/models.
      if (child == nullptr && health.error().message.starts_with("status 404")) return {};
      if (options_.stop && options_.stop())
        return fail(ErrorCode::cancelled, "interrupted before the server was ready");
      if (child != nullptr && !child->running())
        return fail(ErrorCode::io, "the server {}", child->last_words());
      if (monotonic_now() > limit) {
        return fail(ErrorCode::timed_out, "the server at {}:{} is not ready: {}{}", server.host, server.port,
                    health.error().message, child == nullptr ? "" : "; it " + child->last_words());
      }
      std::this_thread::sleep_for(kReadyPoll);
    }
  }

  void read(const std::filesystem::path& path, const ChildServer& child) {
    PoolRun& run = runs_.back();
    std::ifstream file(path, std::ios::binary);
    if (!file) {
      options_.tell(fmt::format("{}: the server wrote no trace", path.string()));
      return;
    }
    std::ostringstream text;
    text << file.rdbuf();
    const std::string lines = std::move(text).str();
    // The trace's clock began a little after the process.
    double start = to_seconds(run.replay.begin - child.started());
    Nanos first = Nanos::max();
    for (const ReplayRecord& record : run.replay.records) {
      if (!record.tokens.empty()) first = std::min(first, record.tokens.front());
    }
    const auto turn = first_prefill(lines);
    if (turn && first != Nanos::max() && std::abs(*turn - to_seconds(first) - start) < kTrustedSkew) {
      start = *turn - to_seconds(first);
    }
    run.trace = read_trace(lines, start, run.fitted.workload.models);
  }

  const PoolBenchOptions& options_;
  std::vector<PoolRun>& runs_;
};

// The value of an option on a command line, as "--port 80" or "--port=80".
std::optional<std::string> option_value(const std::vector<std::string>& command,
                                        std::initializer_list<std::string_view> names) {
  for (std::size_t i = 1; i < command.size(); ++i) {
    for (const std::string_view name : names) {
      if (command[i] == name) return i + 1 < command.size() ? command[i + 1] : "";
      if (command[i].starts_with(std::string(name) + "=")) return command[i].substr(name.size() + 1);
    }
  }
  return std::nullopt;
}

}  // namespace

Result<std::uint16_t> complete_command(std::vector<std::string>& command, const std::string& policy,
                                       const std::string& trace_file) {
  std::uint16_t port = 0;
  if (const auto given = option_value(command, {"--port", "-p"})) {
    const auto [end, error] = std::from_chars(given->data(), given->data() + given->size(), port);
    if (error != std::errc() || end != given->data() + given->size() || port == 0) {
      return fail(ErrorCode::invalid, "--port {}: name the port, or leave it out to take a free one", *given);
    }
  } else {
    const auto free = free_port();
    if (!free) return pass(free.error());
    port = *free;
    command.insert(command.end(), {"--port", std::to_string(port)});
  }
  if (!policy.empty()) command.insert(command.end(), {"--policy", policy});
  if (!trace_file.empty()) command.insert(command.end(), {"--trace", trace_file});
  return port;
}

PoolShape parse_shape(std::string_view health) {
  PoolShape shape;
  const auto json = nlohmann::json::parse(health, nullptr, false);
  if (!json.is_object() || !json.contains("instances") || !json["instances"].is_array()) return shape;
  for (const auto& instance : json["instances"]) {
    if (!instance.is_object() || !instance.contains("role")) continue;
    shape.prefill += instance["role"] == "prefill";
    shape.decode += instance["role"] == "decode";
    shape.unified += instance["role"] == "unified";
  }
  return shape;
}

Status run_pool_bench(const PoolBenchOptions& options, std::vector<PoolRun>& runs) {
  if (options.url.empty() == options.command.empty())
    return fail(ErrorCode::invalid, "give either the address of a server or a command that starts one");
  if (!options.url.empty() && options.policies.size() > 1) {
    return fail(ErrorCode::invalid, "a running server has one policy; give a command to compare several");
  }
  return PoolBench(options, runs).run();
}

}  // namespace switchyard::bench
