#include "schedule/quota.h"

#include <algorithm>

namespace switchyard::schedule {

RoundQuotas round_quotas(std::span<const double> headroom, double switch_cost, double longest) {
  RoundQuotas quotas;
  if (headroom.empty()) return quotas;
  double least = headroom.front();
  double sum = 0;
  for (const double n : headroom) {
    least = std::min(least, n);
    sum += 1 / n;
  }
  switch_cost = std::max(switch_cost, 1e-6);
  quotas.alpha = std::max(switch_cost / (least * longest) + sum, 0.5);
  quotas.seconds.reserve(headroom.size());
  for (const double n : headroom) quotas.seconds.push_back(switch_cost / (n * (quotas.alpha - sum)));
  return quotas;
}

}  // namespace switchyard::schedule
