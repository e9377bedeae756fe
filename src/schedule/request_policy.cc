#include "schedule/request_policy.h"

#include <algorithm>

namespace switchyard::schedule {

// The batch at the front of the list is the one that is served.
bool RequestPolicy::closed(const Instance& instance, const Batch& batch, const Moment& m) const {
  if (instance.batches.empty() || instance.batches.front().get() != &batch) return false;
  const auto waits = [&](const Request* request) {
    return m.now - request->spec.arrival > request->targets.first_token / 2;
  };
  return std::ranges::any_of(instance.batches, [&](const auto& other) {
    return other.get() != &batch &&
           (std::ranges::any_of(other->prompts, waits) || std::ranges::any_of(other->rows, waits));
  });
}

Batch* RequestPolicy::place_batch(const Request& request, Moment& m) {
  const ModelId model = request.spec.model;
  for (const auto& instance : instances_) {
    if (!instance || !instance->decodes() || has_failed(*instance, model)) continue;
    for (const auto& batch : instance->batches) {
      if (batch->model != model || closed(*instance, *batch, m)) continue;
      if (has_kv_room(*instance, *batch, request) && has_time(*instance, *batch)) return batch.get();
    }
  }
  Instance* shortest = shortest_list(model);
  return shortest ? &add_batch(*shortest, model) : nullptr;
}

void RequestPolicy::next_turn(Instance& instance, Moment& m) {
  std::erase_if(instance.batches,
                [](const auto& batch) { return batch->rows.empty() && batch->prompts.empty(); });
  // A batch that was begun is ended, even while its rows are still on their way.
  const bool begun = !instance.batches.empty() && instance.batches.front()->last_turn != TimePoint{};
  for (auto& batch : instance.batches) {
    if (!runnable(instance, *batch)) {
      const bool coming = std::ranges::any_of(
          batch->rows, [](const Request* row) { return row->phase == Phase::prefilling || row->moving(); });
      if (coming && begun && &batch == &instance.batches.front() && !has_failed(instance, batch->model))
        return;
      continue;
    }
    if (!load(instance, batch->model, m)) return;
    const bool started = (!batch->prompts.empty() && start_prefill(instance, *batch, m)) ||
                         start_turn(instance, *batch, TimePoint::max(), m) != TurnStart::nothing;
    if (started) {
      const auto place = instance.batches.begin() + (&batch - instance.batches.data());
      std::rotate(instance.batches.begin(), place, place + 1);
      return;
    }
  }
}

void RequestPolicy::prepare_turn(Instance& instance, Moment& m) {
  for (const auto& next : instance.batches) {
    if (next->model == instance.batch->model || !runnable(instance, *next)) continue;
    load(instance, next->model, m);
    return;
  }
}

}  // namespace switchyard::schedule
