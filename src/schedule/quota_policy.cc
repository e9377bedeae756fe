#include "schedule/quota_policy.h"

#include <algorithm>

#include "schedule/quota.h"

namespace switchyard::schedule {

void QuotaPolicy::population_changed(Moment&) {
  rounds_.resize(instances_.size());
  for (std::size_t id = 0; id < instances_.size(); ++id) {
    if (!instances_[id]) rounds_[id] = {};
  }
}

Batch* QuotaPolicy::place_batch(const Request& request, Moment&) {
  const ModelId model = request.spec.model;
  for (const auto& instance : instances_) {
    if (!instance || !instance->decodes() || has_failed(*instance, model)) continue;
    for (const auto& batch : instance->batches) {
      if (batch->model == model && has_kv_room(*instance, *batch, request) && has_time(*instance, *batch)) {
        return batch.get();
      }
    }
  }
  Instance* shortest = shortest_list(model);
  return shortest ? &batch_on(*shortest, request) : nullptr;
}

// False: there is nothing to go round.
bool QuotaPolicy::begin_round(Instance& instance) {
  Round& round = rounds_[instance.id];
  round = {};
  std::erase_if(instance.batches,
                [](const auto& batch) { return batch->rows.empty() && batch->prompts.empty(); });
  for (const auto& batch : instance.batches) {
    if (runnable(instance, *batch)) round.order.push_back(batch.get());
  }
  if (round.order.empty()) return false;
  // Batches of one model side by side, otherwise as they came.
  for (auto place = round.order.begin(); place != round.order.end();) {
    const ModelId model = (*place)->model;
    place = std::stable_partition(place, round.order.end(),
                                  [&](const Batch* batch) { return batch->model == model; });
  }
  std::vector<double> headroom;
  double switch_cost = 0;
  ModelId previous = kNoModel;
  for (const Batch* batch : round.order) {
    headroom.push_back(to_seconds(spec(batch->model).targets.between_tokens) /
                       std::max(to_seconds(step_time(instance, *batch)), 1e-9));
    if (batch->model != previous) switch_cost += to_seconds(costs_.load(batch->model, instance.id));
    previous = batch->model;
  }
  const RoundQuotas quotas = round_quotas(headroom, switch_cost, to_seconds(options_.longest_quota));
  round.alpha = quotas.alpha;
  for (std::size_t i = 0; i < round.order.size(); ++i) {
    round.order[i]->quota = Nanos(static_cast<std::int64_t>(quotas.seconds[i] * 1e9));
    round.order[i]->until = {};
  }
  return true;
}

void QuotaPolicy::next_turn(Instance& instance, Moment& m) {
  Round& round = rounds_[instance.id];
  for (bool fresh = false;;) {
    if (round.position >= round.order.size()) {
      if (fresh || !begin_round(instance)) return;
      fresh = true;
    }
    Batch& batch = *round.order[round.position];
    const bool over = batch.until != TimePoint{} && m.now >= batch.until;
    if (!over && runnable(instance, batch)) {
      if (!load(instance, batch.model, m)) return;
      if (batch.until == TimePoint{}) batch.until = m.now + batch.quota;
      if (!batch.prompts.empty() && start_prefill(instance, batch, m)) return;
      if (start_turn(instance, batch, batch.until, m) != TurnStart::nothing) return;
    }
    ++round.position;
  }
}

void QuotaPolicy::prepare_turn(Instance& instance, Moment& m) {
  const Round& round = rounds_[instance.id];
  for (std::size_t i = 1; i < round.order.size(); ++i) {
    Batch& next = *round.order[(round.position + i) % round.order.size()];
    if (next.model == instance.batch->model || !runnable(instance, next)) continue;
    if (load(instance, next.model, m)) fetch_rows(instance, next, m);
    return;
  }
  for (const auto& next : instance.batches) {
    if (next->model == instance.batch->model || !runnable(instance, *next)) continue;
    if (load(instance, next->model, m)) fetch_rows(instance, *next, m);
    return;
  }
}

double QuotaPolicy::expected_in_time(const RequestSpec& request, const Moment&) const {
  double best = 0;
  for (const auto& instance : instances_) {
    if (!instance || !instance->decodes() || !allowed(*instance, request.model)) continue;
    std::vector<double> headroom;
    double switch_cost = 0;
    const auto add = [&](ModelId model, Nanos step) {
      headroom.push_back(to_seconds(spec(model).targets.between_tokens) / std::max(to_seconds(step), 1e-9));
      switch_cost += to_seconds(costs_.load(model, instance->id));
    };
    bool there = false;
    for (const auto& batch : instance->batches) {
      if (batch->rows.empty() && batch->prompts.empty()) continue;
      there = there || batch->model == request.model;
      add(batch->model, step_time(*instance, *batch));
    }
    if (!there) add(request.model, costs_.step(request.model, instance->id, 1, request.prompt_tokens));
    const auto quotas = round_quotas(headroom, switch_cost, to_seconds(options_.longest_quota));
    // A request comes on average in the middle of a round; what is due before its first turn is late.
    double round = switch_cost;
    for (const double quota : quotas.seconds) round += quota;
    const Targets& targets = spec(request.model).targets;
    const double late =
        std::max(0.0, round / 2 - to_seconds(targets.first_token)) / to_seconds(targets.between_tokens);
    const double in_time =
        std::min(1.0, 1 / quotas.alpha) * std::max(0.0, 1 - late / std::max(request.max_new_tokens, 1u));
    if (there) return in_time;
    best = std::max(best, in_time);
  }
  return best;
}

}  // namespace switchyard::schedule
