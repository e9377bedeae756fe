// Loads, prefills and turns: how a policy's wish becomes an action that breaks no rule.
#include <algorithm>

#include "schedule/scheduler.h"

namespace switchyard::schedule {

bool Scheduler::has_failed(const Instance& instance, ModelId model) {
  return std::find(instance.failed.begin(), instance.failed.end(), model) != instance.failed.end();
}

bool Scheduler::can_serve(const Instance& instance, ModelId model) const {
  return spec(model).weight_bytes <= instance.spec.berth_bytes;
}

bool Scheduler::row_ready(const Instance& instance, const Request& request) {
  return request.phase == Phase::decoding && request.kv == instance.id && !request.moving();
}

bool Scheduler::runnable(const Instance& instance, const Batch& batch) const {
  if (has_failed(instance, batch.model)) return false;
  if (std::ranges::any_of(batch.rows, [&](const Request* row) { return row_ready(instance, *row); }))
    return true;
  // Others can go to host memory as far as that has room.
  const std::uint64_t staying = instance.kv_used - instance.kv_leaving;
  const std::uint64_t available =
      instance.spec.kv_bytes - staying + std::min(staying, options_.host_kv_bytes - host_used_);
  if (!batch.prompts.empty() && kv_need(*batch.prompts.front(), 1) <= available) return true;
  const std::uint64_t spare = 2 * spec(batch.model).kv_block_bytes;
  return std::ranges::any_of(batch.rows, [&](const Request* row) {
    return row->phase == Phase::decoding && row->kv == kHost && !row->moving() &&
           row->kv_bytes + spare <= available;
  });
}

Nanos Scheduler::step_time(const Instance& instance, const Batch& batch) const {
  std::uint64_t context = 0;
  for (const Request* row : batch.rows) context += row->context();
  const auto rows = static_cast<std::uint32_t>(std::max<std::size_t>(batch.rows.size(), 1));
  return costs_.step(batch.model, instance.id, rows, context);
}

double Scheduler::keep_value(const Instance& instance, ModelId model, const Moment&) const {
  const auto& resident = instance.resident;
  return static_cast<double>(std::find(resident.begin(), resident.end(), model) - resident.begin());
}

bool Scheduler::has_free_berth(const Instance& instance) const {
  return instance.resident.size() < instance.spec.berths;
}

bool Scheduler::load(Instance& instance, ModelId model, Moment& m, ModelId keep) {
  if (instance.is_resident(model)) return true;
  if (instance.loading != kNoModel || has_failed(instance, model)) return false;
  ModelId evict = kNoModel;
  if (!has_free_berth(instance)) {
    double least = 0;
    for (const ModelId candidate : instance.resident) {
      const bool busy = !instance.idle() && instance.batch->model == candidate;
      if (busy || candidate == keep || spec(candidate).pinned) continue;
      const double value = keep_value(instance, candidate, m);
      if (evict == kNoModel || value < least) {
        evict = candidate;
        least = value;
      }
    }
    if (evict == kNoModel) return false;
    std::erase(instance.resident, evict);
    if (instance.active == evict) instance.active = kNoModel;
  }
  instance.loading = model;
  m.out.push_back(Load{instance.id, model, evict});
  return false;
}

Batch& Scheduler::add_batch(Instance& instance, ModelId model) {
  instance.batches.push_back(std::make_unique<Batch>());
  instance.batches.back()->model = model;
  return *instance.batches.back();
}

void Scheduler::add_prompt(Instance& instance, Batch& batch, Request& request) {
  batch.prompts.push_back(&request);
  ++batch.accepted;
  request.prompt_batch = &batch;
  mark(instance);
}

void Scheduler::take_prompt(Request& request) {
  if (request.prompt_batch) std::erase(request.prompt_batch->prompts, &request);
  request.prompt_batch = nullptr;
}

bool Scheduler::start_prefill(Instance& instance, Batch& batch, Moment& m) {
  RunPrefill action{.instance = instance.id, .model = batch.model};
  std::uint64_t tokens = 0;
  for (Request* request : std::vector<Request*>(batch.prompts)) {
    if (!action.prompts.empty() && tokens + request->context() > options_.max_prefill_tokens) break;
    // The token that the prefill makes counts too.
    const std::uint64_t need = kv_need(*request, 1);
    if (!has_room(instance.id, need)) {
      if (action.prompts.empty()) {
        make_room(instance, need, &batch, false, m);
        instance.blocked = true;
      }
      break;
    }
    Batch* rows = request->row_batch ? request->row_batch : place_rows(*request, instance, m);
    if (!rows) break;
    Instance* home = &instance;
    if (std::ranges::none_of(instance.batches, [&](const auto& own) { return own.get() == rows; })) {
      for (const auto& other : instances_) {
        if (other &&
            std::ranges::any_of(other->batches, [&](const auto& own) { return own.get() == rows; })) {
          home = other.get();
        }
      }
    }
    InstanceId to = home->id;
    if (home != &instance) {
      if (!has_room(to, need + spec(batch.model).kv_block_bytes)) to = kHost;
      if (!has_room(to, need)) {
        home->blocked = true;
        instance.blocked = true;
        break;
      }
    }
    take_prompt(*request);
    if (std::find(rows->rows.begin(), rows->rows.end(), request) == rows->rows.end())
      rows->rows.push_back(request);
    request->row_batch = rows;
    request->home = home->id;
    request->phase = Phase::prefilling;
    request->in_job = true;
    request->kv = instance.id;
    request->kv_bytes = need;
    charge(instance.id, need);
    if (to != instance.id) {
      charge(to, need);
      request->moving_to = to;
      instance.kv_leaving += need;
    }
    tokens += request->context();
    instance.in_job.push_back(request);
    action.prompts.push_back({request->spec.id, request->context(), home->id, to});
  }
  if (action.prompts.empty()) return false;
  begin_job(instance, Job::prefill, batch, m);
  m.out.push_back(std::move(action));
  return true;
}

// The model of what runs now is the one that was used last.
void Scheduler::begin_job(Instance& instance, Job job, Batch& batch, const Moment& m) {
  instance.job = job;
  instance.batch = &batch;
  instance.job_start = m.now;
  instance.active = batch.model;
  std::erase(instance.resident, batch.model);
  instance.resident.push_back(batch.model);
}

Scheduler::TurnStart Scheduler::start_turn(Instance& instance, Batch& batch, TimePoint until, Moment& m) {
  shrink(instance, batch, m);
  fetch_rows(instance, batch, m);
  const std::uint64_t block = spec(batch.model).kv_block_bytes;
  std::vector<Request*> ready;
  for (Request* row : batch.rows) {
    if (row_ready(instance, *row)) ready.push_back(row);
  }
  if (ready.size() > options_.max_rows) {
    std::stable_sort(ready.begin(), ready.end(),
                     [](const Request* a, const Request* b) { return a->due() < b->due(); });
    ready.resize(options_.max_rows);
  }
  if (ready.empty()) {
    const bool coming = std::ranges::any_of(batch.rows, [&](const Request* row) {
      return row->phase == Phase::decoding &&
             (row->moving_to == instance.id || (row->kv == kHost && instance.kv_leaving > 0));
    });
    return coming ? TurnStart::coming : TurnStart::nothing;
  }
  if (free_kv(instance) < ready.size() * block) {
    instance.blocked = true;
    return instance.kv_leaving > 0 ? TurnStart::coming : TurnStart::nothing;
  }
  RunDecode action{.instance = instance.id, .model = batch.model, .until = until};
  for (Request* row : ready) {
    row->in_job = true;
    action.rows.push_back(row->spec.id);
  }
  instance.in_job = std::move(ready);
  begin_job(instance, Job::decode, batch, m);
  m.out.push_back(std::move(action));
  return TurnStart::begun;
}

void Scheduler::stop(Instance& instance, Moment& m) {
  if (instance.job != Job::decode) return;
  instance.job = Job::stopping;
  m.out.push_back(Stop{instance.id});
}

}  // namespace switchyard::schedule
