// `switchyard bench model`: how fast the runtime computes, and how far that is from what the machine allows.
//
// Prefill is compared with the rate of fused multiply-adds, decode with the bandwidth of reading memory; both
// floors are measured in the same run with the same threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::bench {

struct ModelBenchOptions {
  std::filesystem::path model;
  std::uint32_t threads = 0;                              // 0: one per core
  std::vector<std::uint32_t> prompts = {128, 512, 1500};  // tokens of prefills
  std::vector<std::uint32_t> batches = {1, 4, 16};        // requests of decode steps
  std::vector<std::uint32_t> contexts = {128, 1024};      // tokens of each of them
  double seconds = 1.0;                                   // of each measurement, about
  bool json = false;
};

// Prints a table, or JSON; progress goes to standard error. Errors: those of opening the model and of the
// runtime.
Status run_model_bench(const ModelBenchOptions& options);

}  // namespace switchyard::bench
