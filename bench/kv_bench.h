// `switchyard bench kv`: what handing KV over costs. Time to first token with prefill and decode in two
// processes over the same in one process, measured in pairs, and the share of transfer time that hides behind
// compute.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pool/config.h"

namespace switchyard::bench {

struct KvBenchOptions {
  pool::PoolConfig pool;          // model, fabric, threads, KV memory; the instances are the benchmark's
  std::filesystem::path program;  // what instances are started with
  std::vector<std::uint32_t> lengths = {128, 512, 1500};  // prompt tokens
  std::uint32_t repeats = 7;
  bool json = false;
};

// Prints a table, or JSON; progress goes to standard error. Errors: the pool's, timed_out.
Status run_kv_bench(const KvBenchOptions& options);

}  // namespace switchyard::bench
