#include "cli/pool_options.h"

#include <CLI/CLI.hpp>
#include <csignal>

#include "cli/default_model.h"
#include "cli/terminal.h"

namespace switchyard::cli {
namespace {

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

void add_pool_options(CLI::App& command, PoolArguments& arguments) {
  command.add_option(
      "-m,--model", arguments.model,
      "Checkpoint: a GGUF file, or a directory with safetensors, config.json and tokenizer.json "
      "(default: SmolLM2-135M-Instruct, fetched when it is not there)");
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
  command.add_flag("--control-tls", arguments.control_tls,
                   "Encrypt the messages between processes (they authenticate each other always)");
}

Status apply(const PoolArguments& arguments, pool::PoolConfig& config) {
  if (!arguments.model.empty()) config.model = arguments.model;
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
  auto model = model_or_default(config.model);
  if (!model) return pass(model.error());
  config.model = *std::move(model);
  return {};
}

Result<std::unique_ptr<pool::Pool>> start_pool(const pool::PoolConfig& config) {
  {
    // Before signals are held: Ctrl-C may end this, however long it takes.
    ProgressBar bar("Preparing the model");
    if (auto image = model::ModelImage::open(config.model, bar.callback()); !image)
      return pass(image.error());
  }
  hold_stop_signals();
  return pool::Pool::start(config, program_path());
}

Status wait_ready(pool::Pool& pool) {
  constexpr Nanos kLimit = std::chrono::seconds(60);
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

bool stop_requested(Nanos limit) {
  const sigset_t signals = stop_signals();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(limit);
  const timespec wait{.tv_sec = seconds.count(), .tv_nsec = (limit - seconds).count()};
  return sigtimedwait(&signals, nullptr, &wait) > 0;
}

}  // namespace switchyard::cli
