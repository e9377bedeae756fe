#include "schedule/grouped_policy.h"

#include <algorithm>

namespace switchyard::schedule {
namespace {

constexpr double kFullStep = 0.7;

}  // namespace

// Estimated seconds of execution and switching until all groups are done.
double GroupedPolicy::prefill_load(const Instance& instance) const {
  Nanos sum{};
  ModelId previous = instance.active;
  for (const auto& group : instance.batches) {
    for (const Request* prompt : group->prompts)
      sum += costs_.prefill(group->model, instance.id, prompt->context());
    if (group->prompts.empty() && instance.batch != group.get()) continue;
    if (group->model != previous) sum += costs_.load(group->model, instance.id);
    previous = group->model;
  }
  return to_seconds(sum);
}

bool GroupedPolicy::place_prompt(Request& request, Moment& m) {
  const ModelId model = request.spec.model;
  Instance* best = nullptr;
  double least = 0;
  bool decodable = false;
  for (const auto& instance : instances_) {
    if (!instance || !allowed(*instance, model)) continue;
    decodable = decodable || instance->decodes();
    if (instance->spec.role != Role::prefill) continue;
    for (const auto& group : instance->batches) {
      if (group->model == model && group->accepted < options_.group_requests &&
          !has_failed(*instance, model)) {
        add_prompt(*instance, *group, request);
        return true;
      }
    }
    const double load = prefill_load(*instance) + (has_failed(*instance, model) ? 1e9 : 0);
    if (!best || load < least) {
      best = instance.get();
      least = load;
    }
  }
  if (!decodable) return false;
  if (best) {
    add_prompt(*best, add_batch(*best, model), request);
    return true;
  }
  Batch* batch = place_batch(request, m);
  if (!batch) return false;
  for (const auto& instance : instances_) {
    if (!instance || instance->spec.role != Role::unified) continue;
    if (std::ranges::any_of(instance->batches, [&](const auto& own) { return own.get() == batch; })) {
      add_prompt(*instance, *batch, request);
      return true;
    }
  }
  return false;  // decode instances only
}

Batch* GroupedPolicy::place_rows(Request& request, Instance& at, Moment& m) {
  if (at.spec.role == Role::unified && request.prompt_batch) return request.prompt_batch;
  return place_batch(request, m);
}

void GroupedPolicy::next_job(Instance& instance, Moment& m) {
  if (instance.spec.role == Role::prefill) {
    next_prefill(instance, m);
  } else {
    next_turn(instance, m);
  }
}

void GroupedPolicy::next_prefill(Instance& instance, Moment& m) {
  std::erase_if(instance.batches, [](const auto& group) { return group->prompts.empty(); });
  for (const auto& group : instance.batches) {
    if (!runnable(instance, *group)) continue;
    if (load(instance, group->model, m)) start_prefill(instance, *group, m);
    return;
  }
}

void GroupedPolicy::prepare_next(Instance& instance, Moment& m) {
  if (instance.idle()) return;
  if (instance.spec.role != Role::prefill) {
    prepare_turn(instance, m);
    return;
  }
  for (const auto& group : instance.batches) {
    if (group->model == instance.batch->model || !runnable(instance, *group)) continue;
    load(instance, group->model, m);
    return;
  }
}

void GroupedPolicy::after_step(Instance& instance, Moment& m) {
  // Prompts of the running model on a unified instance go first, as in continuous batching.
  if (!instance.batch->prompts.empty()) stop(instance, m);
}

bool GroupedPolicy::has_kv_room(const Instance& instance, const Batch& batch, const Request& request) const {
  if (batch.rows.size() + batch.prompts.size() >= options_.max_rows) return false;
  std::uint64_t bytes = kv_need(request, 1);
  for (const Request* row : batch.rows) bytes += kv_need(*row) + spec(batch.model).kv_block_bytes;
  for (const Request* prompt : batch.prompts) bytes += kv_need(*prompt) + spec(batch.model).kv_block_bytes;
  return bytes <= instance.spec.kv_bytes;
}

bool GroupedPolicy::has_time(const Instance& instance, const Batch& batch) const {
  return to_seconds(step_time(instance, batch)) <
         kFullStep * to_seconds(spec(batch.model).targets.between_tokens);
}

Batch& GroupedPolicy::batch_on(Instance& instance, const Request& request) {
  for (const auto& batch : instance.batches) {
    if (batch->model == request.spec.model && has_kv_room(instance, *batch, request)) return *batch;
  }
  return add_batch(instance, request.spec.model);
}

Instance* GroupedPolicy::shortest_list(ModelId model) const {
  const bool unified_only = std::ranges::none_of(
      instances_, [](const auto& instance) { return instance && instance->spec.role == Role::prefill; });
  Instance* best = nullptr;
  const auto key = [&](const Instance& instance) {
    const auto used = std::ranges::count_if(
        instance.batches, [](const auto& batch) { return !batch->rows.empty() || !batch->prompts.empty(); });
    return std::tuple(has_failed(instance, model), used, instance.kv_used);
  };
  for (const auto& instance : instances_) {
    if (!instance || !instance->decodes() || !allowed(*instance, model)) continue;
    if (unified_only && instance->spec.role != Role::unified) continue;
    if (!best || key(*instance) < key(*best)) best = instance.get();
  }
  return best;
}

}  // namespace switchyard::schedule
