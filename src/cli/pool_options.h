// Options that every command with a pool of its own takes.
#pragma once

#include <CLI/App.hpp>
#include <memory>
#include <string>

#include "pool/config.h"
#include "pool/pool.h"

namespace switchyard::cli {

struct PoolArguments {
  std::string model;
  std::string fabric;
  std::string kv_memory;
  int threads = -1;
  bool unified = false;
  bool control_tls = false;
};

void add_pool_options(CLI::App& command, PoolArguments& arguments);

// Writes what was given over `config`; finds (and pulls) the default model when none is named.
Status apply(const PoolArguments& arguments, pool::PoolConfig& config);

// Starts the pool, with a bar while the model image is built. Holds stop signals from then on.
Result<std::unique_ptr<pool::Pool>> start_pool(const pool::PoolConfig& config);

// Waits until all instances take requests. Errors: cancelled (a stop signal came), io and timed_out, saying
// why.
Status wait_ready(pool::Pool& pool);

// Blocks SIGINT and SIGTERM in this thread and those that it starts, so that wait_for_stop() gets them.
// Ignores SIGPIPE. Call first.
void hold_stop_signals();
// Waits for one of them.
void wait_for_stop();
// Waits for one of them, no longer than `limit`.
bool stop_requested(Nanos limit);

}  // namespace switchyard::cli
