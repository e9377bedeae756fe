#include "schedule/static_policy.h"

#include <algorithm>

namespace switchyard::schedule {

bool StaticPolicy::allowed(const Instance& instance, ModelId model) const {
  if (instance.id >= areas_.size()) return false;
  const auto& models = areas_[instance.id].models;
  return std::find(models.begin(), models.end(), model) != models.end();
}

void StaticPolicy::place_model(ModelId model, bool (*fits)(const Instance&)) {
  Instance* best = nullptr;
  std::uint64_t most = 0;
  for (const auto& instance : instances_) {
    if (!instance || !fits(*instance)) continue;
    if (allowed(*instance, model)) return;
    const std::uint64_t free = instance->spec.berths * instance->spec.berth_bytes - areas_[instance->id].used;
    if (free >= spec(model).weight_bytes && (!best || free > most)) {
      best = instance.get();
      most = free;
    }
  }
  if (!best) return;
  areas_[best->id].models.push_back(model);
  areas_[best->id].used += spec(model).weight_bytes;
}

void StaticPolicy::population_changed(Moment&) {
  areas_.resize(instances_.size());
  for (std::size_t id = 0; id < instances_.size(); ++id) {
    Area& area = areas_[id];
    if (!instances_[id]) area = {};
    std::erase_if(area.models, [&](ModelId model) { return !models_[model].present; });
    area.used = 0;
    for (const ModelId model : area.models) area.used += spec(model).weight_bytes;
  }
  for (ModelId model = 0; model < models_.size(); ++model) {
    if (!models_[model].present) continue;
    const bool split = std::ranges::any_of(
        instances_, [](const auto& instance) { return instance && instance->spec.role == Role::prefill; });
    if (split) {
      place_model(model, [](const Instance& instance) { return instance.spec.role == Role::prefill; });
      place_model(model, [](const Instance& instance) { return instance.decodes(); });
    } else {
      place_model(model, [](const Instance& instance) { return instance.spec.role == Role::unified; });
    }
  }
}

Batch* StaticPolicy::place_batch(const Request& request, Moment&) {
  Instance* place = shortest_list(request.spec.model);
  return place ? &batch_on(*place, request) : nullptr;
}

void StaticPolicy::next_turn(Instance& instance, Moment& m) {
  std::erase_if(instance.batches,
                [](const auto& batch) { return batch->rows.empty() && batch->prompts.empty(); });
  // The one that has waited longest first.
  std::vector<Batch*> order;
  for (const auto& batch : instance.batches) order.push_back(batch.get());
  std::stable_sort(order.begin(), order.end(),
                   [](const Batch* a, const Batch* b) { return a->last_turn < b->last_turn; });
  for (Batch* batch : order) {
    if (!runnable(instance, *batch) || !load(instance, batch->model, m)) continue;
    if (!batch->prompts.empty() && start_prefill(instance, *batch, m)) return;
    if (start_turn(instance, *batch, m.now, m) != TurnStart::nothing) return;
  }
}

void StaticPolicy::prepare_turn(Instance& instance, Moment& m) {
  for (const auto& batch : instance.batches) load(instance, batch->model, m);
}

}  // namespace switchyard::schedule
