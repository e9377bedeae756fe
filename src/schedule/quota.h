// The arithmetic of decode rounds: how long each batch of a round may run (Aegaeon, SOSP 2025, section 4.3).
// Pure; any thread.
#pragma once

#include <span>
#include <vector>

namespace switchyard::schedule {

struct RoundQuotas {
  double alpha = 0;             // how much too slow the round is: tokens in time are about min(1, 1 / alpha)
  std::vector<double> seconds;  // for each batch
};

// `headroom[i]`: target time between tokens over the step time of batch i (n in the paper). `switch_cost`: of
// all distinct models of the round together, seconds. `longest`: Q, the quota of the slowest batch, seconds.
//
//     alpha = max(switch_cost / (min n * Q) + sum 1/n, 0.5)
//     quota[i] = switch_cost / (n[i] * (alpha - sum 1/n))
//
// Without a cost of switching the quotas are those of a cost near nothing.
RoundQuotas round_quotas(std::span<const double> headroom, double switch_cost, double longest);

}  // namespace switchyard::schedule
