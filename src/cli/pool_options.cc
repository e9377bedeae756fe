#include "cli/pool_options.h"

#include <CLI/CLI.hpp>
#include <csignal>
#include <optional>

#include "cli/default_model.h"
#include "cli/terminal.h"
#include "model/image.h"

namespace switchyard::cli {
namespace {

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

int wait_for(const sigset_t& signals, Nanos limit) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(limit);
  const timespec wait{.tv_sec = seconds.count(), .tv_nsec = (limit - seconds).count()};
  return sigtimedwait(&signals, nullptr, &wait);
}

// "PATH", or "NAME=PATH" unless that is a path itself.
pool::ModelSettings named_model(const std::string& text, const pool::ModelSettings& defaults) {
  pool::ModelSettings settings = defaults;
  const auto equals = text.find('=');
  std::error_code ignored;
  if (equals == std::string::npos || equals == 0 || std::filesystem::exists(text, ignored)) {
    settings.path = text;
  } else {
    settings.id = text.substr(0, equals);
    settings.path = text.substr(equals + 1);
  }
  return settings;
}

// Thrown by the progress of work that knows no other way to end before its time; it lets go of what it had
// begun, and nobody but prepare_image() sees this.
struct Interrupted {};

// Builds the image if there is none. A stop signal ends that.
Status prepare_image(const std::filesystem::path& path, ProgressBar& bar) {
  const auto progress = [&bar](std::uint64_t done, std::uint64_t total) {
    if (stop_requested(Nanos::zero())) throw Interrupted();
    bar.update(done, total);
  };
  try {
    if (auto image = model::ModelImage::open(path, progress); !image) return pass(image.error());
  } catch (const Interrupted&) {
    return fail(ErrorCode::cancelled, "interrupted");
  }
  return {};
}

}  // namespace

void add_pool_options(CLI::App& command, PoolArguments& arguments) {
  command
      .add_option("-m,--model", arguments.models,
                  "Checkpoint, or NAME=CHECKPOINT: a GGUF file, or a directory with safetensors, config.json "
                  "and tokenizer.json (default: SmolLM2-135M-Instruct, fetched when it is not there)")
      ->allow_extra_args(false);
  command.add_flag("--unified", arguments.unified,
                   "One process for prefill and decode instead of one for each");
  command.add_option(
      "--fabric", arguments.fabric,
      "What carries KV blocks between processes: auto, shm, net, 'tcp;ofi_rxm' (see switchyard doctor)");
  command
      .add_option("--threads", arguments.threads, "Compute threads of each instance (default: one per core)")
      ->check(CLI::Range(0, 1024));
  command.add_option("--kv-memory", arguments.kv_memory,
                     "KV memory of each instance, as 512MiB (default: 1GiB)");
  command.add_option("--policy", arguments.policy,
                     "Who runs when, with several models: slack, quota, request, static (default: slack)");
  command.add_option("--trace", arguments.trace, "Write what the instances did to this file, as JSON lines");
  command.add_flag("--control-tls", arguments.control_tls,
                   "Encrypt the messages between processes (they authenticate each other always)");
}

Status apply_options(const PoolArguments& arguments, pool::PoolConfig& config,
                     const pool::ModelSettings& defaults) {
  if (!arguments.models.empty()) {
    config.models.clear();
    for (const std::string& text : arguments.models) config.models.push_back(named_model(text, defaults));
  }
  if (!arguments.fabric.empty()) config.fabric = arguments.fabric;
  if (arguments.threads >= 0) config.threads = static_cast<std::uint32_t>(arguments.threads);
  if (!arguments.kv_memory.empty()) {
    const auto bytes = pool::parse_bytes(arguments.kv_memory);
    if (!bytes) return fail_at("--kv-memory", bytes.error());
    config.kv_bytes = *bytes;
  }
  if (arguments.control_tls) config.control_tls = true;
  if (arguments.unified) {
    config.prefill = config.decode = 0;
    config.unified = 1;
  }
  if (!arguments.policy.empty()) {
    const auto policy = schedule::parse_policy(arguments.policy);
    if (!policy) return fail_at("--policy", policy.error());
    config.policy = *policy;
  }
  if (!arguments.trace.empty()) config.trace = arguments.trace;
  return {};
}

Status find_models(pool::PoolConfig& config, const pool::ModelSettings& defaults) {
  if (config.models.empty()) config.models.push_back(defaults);
  for (pool::ModelSettings& model : config.models) {
    auto path = model_or_default(model.path);
    if (!path) return pass(path.error());
    model.path = *std::move(path);
    if (model.id.empty()) model.id = pool::default_id(model.path);
  }
  return pool::validate(config);
}

Status apply(const PoolArguments& arguments, pool::PoolConfig& config, const pool::ModelSettings& defaults) {
  if (auto applied = apply_options(arguments, config, defaults); !applied) return applied;
  return find_models(config, defaults);
}

Result<std::unique_ptr<pool::Pool>> start_pool(const pool::PoolConfig& config) {
  hold_stop_signals();
  std::optional<ProgressBar> bar;
  for (const auto& model : config.models) {
    bar.reset();
    bar.emplace(config.models.size() == 1 ? "Preparing the model" : "Preparing " + model.id);
    const Status prepared = prepare_image(model.path, *bar);
    // Of several, one that cannot be opened is the pool's to report; it serves the others.
    const bool stopped = !prepared && prepared.error().code == ErrorCode::cancelled;
    if (stopped || (!prepared && config.models.size() == 1)) return pass(prepared.error());
  }
  bar.reset();
  if (stop_requested(Nanos::zero())) return fail(ErrorCode::cancelled, "interrupted");
  return pool::Pool::start(config, program_path());
}

Status wait_ready(pool::Pool& pool) {
  // The dispatcher gives up what does not get anywhere long before.
  constexpr Nanos kLimit = std::chrono::minutes(10);
  constexpr Nanos kPoll = std::chrono::milliseconds(50);
  const TimePoint limit = monotonic_now() + kLimit;
  while (true) {
    const Status ready = pool.wait_ready(monotonic_now() + kPoll);
    if (ready || ready.error().code != ErrorCode::timed_out || monotonic_now() > limit) return ready;
    if (stop_requested(Nanos::zero())) return fail(ErrorCode::cancelled, "interrupted");
  }
}

void hold_stop_signals() {
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

void wait_for_stop() {
  const sigset_t signals = stop_signals();
  int signal = 0;
  sigwait(&signals, &signal);
}

bool stop_requested(Nanos limit) { return wait_for(stop_signals(), limit) > 0; }

void hold_hangup() {
  sigset_t hangup;
  sigemptyset(&hangup);
  sigaddset(&hangup, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &hangup, nullptr);
}

int next_signal(Nanos limit) {
  sigset_t signals = stop_signals();
  sigaddset(&signals, SIGHUP);
  return std::max(wait_for(signals, limit), 0);
}

}  // namespace switchyard::cli
