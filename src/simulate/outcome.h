// What became of requests, and their tokens against the times at which they were due. Simulated pools and
// real ones are counted by this alone, so that their figures mean the same. Values; not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "schedule/types.h"
#include "switchyard/time.h"

namespace switchyard::simulate {

struct ModelOutcome {
  std::uint64_t requests = 0;
  std::uint64_t ended = 0;
  std::uint64_t shed = 0;
  std::uint64_t tokens = 0;       // asked for
  std::uint64_t shed_tokens = 0;  // of them, by requests that were shed
  std::uint64_t in_time = 0;
  std::uint64_t strict = 0;  // requests without a late token
  std::uint64_t good = 0;    // requests with at least 90 % of their tokens in time
};

struct RequestOutcome {
  std::uint32_t tokens = 0;   // asked for
  std::uint32_t in_time = 0;  // of them; tokens that were never made are late
  bool shed = false;
  bool ended = false;
};

void add(ModelOutcome& outcome, const RequestOutcome& request);
ModelOutcome total_of(std::span<const ModelOutcome> models);

// Tokens by the times at which they were due.
class TokenClock {
 public:
  // Token `index` (from 0) of a request that arrived at `arrival` was there at `made`; times since the
  // beginning. True: no later than arrival + target for the first token + index * target between tokens.
  bool in_time(Nanos arrival, const schedule::Targets& targets, std::uint32_t index, Nanos made);
  // Shares of tokens in time by each 10 s in which they were due; 1 where none was.
  std::vector<double> attainment_by_10s() const;

 private:
  std::vector<std::uint64_t> due_, met_;
};

}  // namespace switchyard::simulate
