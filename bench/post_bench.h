// `switchyard bench post`: the engine's own instructions for a work request. Writes go over a rail that
// completes them at once and moves nothing, in this thread alone, so that a profiler can count; two runs of
// different length tell what one more work request costs.
#pragma once

#include <cstdint>

#include "switchyard/result.h"

namespace switchyard::bench {

struct PostBenchOptions {
  std::uint64_t writes = 100'000;  // work requests with data
  std::uint32_t pages = 1;         // of each transfer; 1: single writes
  bool ordered = true;             // what the rail says of itself
  bool counter = false;            // transfers are counted: the arrival costs work requests of its own
};

// Prints what was posted. Errors: the engine's, timed_out.
Status run_post_bench(const PostBenchOptions& options);

}  // namespace switchyard::bench
