// Options that every command with a pool of its own takes.
#pragma once

#include <CLI/App.hpp>
#include <memory>
#include <string>
#include <vector>

#include "pool/config.h"
#include "pool/pool.h"

namespace switchyard::cli {

struct PoolArguments {
  std::vector<std::string> models;  // "PATH" or "NAME=PATH"
  std::string policy;
  std::string trace;
  std::string fabric;
  std::string kv_memory;
  int threads = -1;
  bool unified = false;
  bool control_tls = false;
};

void add_pool_options(CLI::App& command, PoolArguments& arguments);

// Writes what was given over `config`; models that are named replace all of the configuration's, with
// `defaults` for the rest of their settings. Errors: invalid.
Status apply_options(const PoolArguments& arguments, pool::PoolConfig& config,
                     const pool::ModelSettings& defaults = {});
// Finds (and pulls) the default model where none is named, and names models after their files. Errors:
// invalid, those of the pull, cancelled (a stop signal came).
Status find_models(pool::PoolConfig& config, const pool::ModelSettings& defaults = {});
// Both.
Status apply(const PoolArguments& arguments, pool::PoolConfig& config,
             const pool::ModelSettings& defaults = {});

// Starts the pool, with a bar while model images are built. Holds stop signals from then on; one that comes
// while images are built leaves none half built. Errors: cancelled (a stop signal came), those of
// Pool::start.
Result<std::unique_ptr<pool::Pool>> start_pool(const pool::PoolConfig& config);

// Waits until all instances take requests. Errors: cancelled (a stop signal came), io and timed_out, saying
// why.
Status wait_ready(pool::Pool& pool);

// Blocks SIGINT and SIGTERM in this thread and those that it starts, so that wait_for_stop() gets them.
// Ignores SIGPIPE. Call first.
void hold_stop_signals();
// Waits for one of them.
void wait_for_stop();
// Blocks SIGHUP besides, so that next_signal() gets it.
void hold_hangup();
// Waits for one of SIGINT, SIGTERM and SIGHUP, no longer than `limit`; 0: none came.
int next_signal(Nanos limit);
// Waits for one of them, no longer than `limit`.
bool stop_requested(Nanos limit);

}  // namespace switchyard::cli
