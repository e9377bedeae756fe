// Events: what happened goes into the books, then every instance that it concerns is looked at again.
#include "schedule/scheduler.h"

#include <algorithm>

namespace switchyard::schedule {
namespace {

constexpr Nanos kRetryWithoutInstance = std::chrono::seconds(5);

void erase_value(auto& values, const auto& value) {
  values.erase(std::remove(values.begin(), values.end(), value), values.end());
}

Status check_wishes(const ModelSpec& spec) {
  if (spec.targets.first_token <= Nanos{0} || spec.targets.between_tokens <= Nanos{0} || !(spec.weight > 0)) {
    return fail(ErrorCode::invalid, "model '{}': targets and weight are to be above zero", spec.name);
  }
  return {};
}

bool contains(const auto& values, const auto& value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

}  // namespace

bool Instance::is_resident(ModelId model) const { return contains(resident, model); }

Scheduler::Scheduler(const PolicyOptions& options, const Costs& costs)
    : options_(options), costs_(costs), admission_(options.admission) {}

Status Scheduler::add_model(ModelId id, const ModelSpec& spec, TimePoint now, Actions& out) {
  if (id >= kMaxId) return fail(ErrorCode::invalid, "model id {} is too large (below {})", id, kMaxId);
  if (id < models_.size() && models_[id].present) {
    return fail(ErrorCode::invalid, "model id {} is taken by '{}'", id, models_[id].spec.name);
  }
  if (spec.kv_block_bytes == 0) {
    return fail(ErrorCode::invalid, "model '{}' has KV blocks of no bytes", spec.name);
  }
  if (auto valid = check_wishes(spec); !valid) return valid;
  if (id >= models_.size()) models_.resize(id + 1);
  models_[id] = Model{.spec = spec, .present = true};
  admission_.add_model(id, spec);
  for (const auto& instance : instances_) {
    if (instance) erase_value(instance->failed, id);
  }
  Moment m{now, out};
  population_changed(m);
  settle(m);
  return {};
}

Status Scheduler::update_model(ModelId id, const ModelSpec& spec, TimePoint now, Actions& out) {
  if (id >= models_.size() || !models_[id].present)
    return fail(ErrorCode::not_found, "there is no model {}", id);
  const ModelSpec& present = models_[id].spec;
  if (spec.weight_bytes != present.weight_bytes || spec.kv_block_bytes != present.kv_block_bytes) {
    return fail(ErrorCode::invalid, "model '{}': other weights are another model", spec.name);
  }
  if (auto valid = check_wishes(spec); !valid) return valid;
  models_[id].spec = spec;
  admission_.remove_model(id);
  admission_.add_model(id, spec);
  for (const auto& instance : instances_) {
    if (!instance || !contains(instance->failed, id)) continue;
    erase_value(instance->failed, id);
    mark(*instance);
  }
  Moment m{now, out};
  settle(m);
  return {};
}

Status Scheduler::remove_model(ModelId id, TimePoint now, Actions& out) {
  if (id >= models_.size() || !models_[id].present)
    return fail(ErrorCode::not_found, "there is no model {}", id);
  if (models_[id].requests > 0) {
    return fail(ErrorCode::exhausted,
                "model '{}' has {} requests; cancel them or let them end before it is removed",
                models_[id].spec.name, models_[id].requests);
  }
  models_[id] = Model{};
  admission_.remove_model(id);
  for (const auto& instance : instances_) {
    if (instance) erase_value(instance->resident, id);
  }
  Moment m{now, out};
  population_changed(m);
  settle(m);
  return {};
}

Status Scheduler::instance_up(InstanceId id, const InstanceSpec& spec, TimePoint now, Actions& out) {
  if (id >= kMaxId) return fail(ErrorCode::invalid, "instance id {} is too large (below {})", id, kMaxId);
  if (id < instances_.size() && instances_[id])
    return fail(ErrorCode::invalid, "instance id {} is taken", id);
  if (spec.berths < 1 || spec.kv_bytes == 0 || spec.berth_bytes == 0) {
    return fail(ErrorCode::invalid, "instance {} needs at least one berth, and memory for weights and KV",
                id);
  }
  if (id >= instances_.size()) instances_.resize(id + 1);
  instances_[id] = std::make_unique<Instance>();
  instances_[id]->id = id;
  instances_[id]->spec = spec;
  Moment m{now, out};
  population_changed(m);
  mark(*instances_[id]);
  const auto stranded = std::exchange(stranded_, {});
  for (const RequestId request : stranded) {
    Request* found = find_request(request);
    if (!found) continue;
    if (found->kv == kNowhere) {
      place(*found, m);
    } else {
      find_home(*found, m);
    }
  }
  settle(m);
  return {};
}

void Scheduler::instance_down(InstanceId id, TimePoint now, Actions& out) {
  Instance* found = find(id);
  if (!found) return;
  Moment m{now, out};
  const std::unique_ptr<Instance> dead = std::move(instances_[id]);
  std::vector<Request*> replay, homeless;
  for (auto& [request_id, request] : requests_) {
    const bool prompt_there =
        request.prompt_batch && std::ranges::any_of(dead->batches, [&](const auto& batch) {
          return batch.get() == request.prompt_batch;
        });
    if (request.kv == id || prompt_there) {
      replay.push_back(&request);
      continue;
    }
    if (request.moving_to == id) {
      if (request.kv < kHost) instances_[request.kv]->kv_leaving -= request.kv_bytes;
      request.moving_to = kNowhere;
    }
    if (request.home == id) homeless.push_back(&request);
  }
  population_changed(m);
  for (Request* request : replay) {
    if (request->moving_to == id) request->moving_to = kNowhere;
    if (request->home == id) {
      request->home = kNowhere;
      request->row_batch = nullptr;
    }
    if (request->kv == id) request->in_job = false;
    restart(*request, m);
  }
  for (Request* request : homeless) {
    request->home = kNowhere;
    request->row_batch = nullptr;
    find_home(*request, m);
  }
  memory_freed_ = true;
  settle(m);
}

void Scheduler::arrived(const RequestSpec& spec, TimePoint now, Actions& out) {
  Moment m{now, out};
  const auto shed = [&](ShedReason reason, Nanos retry) { out.push_back(Shed{spec.id, reason, retry}); };
  if (spec.model >= models_.size() || !models_[spec.model].present) return shed(ShedReason::no_instance, {});
  if (requests_.contains(spec.id)) return;
  Model& model = models_[spec.model];

  Request request;
  request.spec = spec;
  request.targets = model.spec.targets;
  request.worth = model.spec.weight;
  bool prefills = false, prefill_fits = false, prefill_placed = false;
  bool decodes = false, decode_fits = false, decode_placed = false;
  const std::uint64_t most = kv_need(request, spec.max_new_tokens) + model.spec.kv_block_bytes;
  for (const auto& instance : instances_) {
    if (!instance) continue;
    erase_value(instance->failed, spec.model);
    const bool fits = instance->spec.kv_bytes >= most, placed = has_place(*instance, spec.model);
    if (instance->prefills()) {
      prefills = true;
      prefill_fits |= fits;
      prefill_placed |= placed;
    }
    if (instance->decodes()) {
      decodes = true;
      decode_fits |= fits;
      decode_placed |= placed;
    }
  }
  if (!prefills || !decodes) return shed(ShedReason::no_instance, kRetryWithoutInstance);
  if (!prefill_placed || !decode_placed) return shed(ShedReason::no_place, {});
  if (spec.prompt_tokens == 0 || !prefill_fits || !decode_fits) return shed(ShedReason::too_large, {});

  double weights = 0;
  for (const Model& other : models_) {
    if (other.waiting > 0 || &other == &model) weights += other.spec.weight;
  }
  AdmissionState state{.waiting_total = waiting_,
                       .waiting_of_model = model.waiting,
                       .weight_share = model.spec.weight / weights};
  if (options_.admission.shed_overload) {
    // On the safe side by half: whoever sheds too late does so at the cost of all that it has admitted.
    const Nanos late = prompt_wait(spec) * 3 / 2 - request.targets.first_token;
    state.expected_wait = std::max(Nanos{}, late);
    const double share_late = to_seconds(state.expected_wait) / (to_seconds(request.targets.between_tokens) *
                                                                 std::max(spec.max_new_tokens, 1u));
    state.expected_in_time = expected_in_time(spec, m) * std::max(0.0, 1 - share_late);
  }
  if (const auto refusal = admission_.refuse(spec, state, now))
    return shed(refusal->reason, refusal->retry_after);

  Request& entry = requests_.emplace(spec.id, request).first->second;
  if (!place_prompt(entry, m)) {
    requests_.erase(spec.id);
    return shed(ShedReason::no_instance, kRetryWithoutInstance);
  }
  ++model.requests;
  ++model.waiting;
  ++waiting_;
  // An answer comes before what is done with the request.
  out.push_back(Admit{spec.id});
  settle(m);
}

// Until a prompt that came now would have been computed, behind all that wait. In what order they are taken
// is the policy's choice; this is right for one that comes in the middle.
Nanos Scheduler::prompt_wait(const RequestSpec& spec) const {
  std::uint32_t instances = 0;
  InstanceId one = kNowhere;
  for (const auto& instance : instances_) {
    if (!instance || !instance->prefills() || !can_serve(*instance, spec.model)) continue;
    ++instances;
    one = instance->id;
  }
  if (instances == 0) return {};
  Nanos before{};
  for (const auto& [id, request] : requests_) {
    if (request.phase != Phase::decoding)
      before += costs_.prefill(request.spec.model, one, request.context());
  }
  return before / instances + costs_.prefill(spec.model, one, spec.prompt_tokens);
}

void Scheduler::loaded(InstanceId id, ModelId model, TimePoint now, Actions& out) {
  end_load(id, model, true, now, out);
}

void Scheduler::load_failed(InstanceId id, ModelId model, TimePoint now, Actions& out) {
  end_load(id, model, false, now, out);
}

void Scheduler::end_load(InstanceId id, ModelId model, bool ready, TimePoint now, Actions& out) {
  Instance* instance = find(id);
  if (!instance || instance->loading != model) return;
  Moment m{now, out};
  instance->loading = kNoModel;
  if (!ready) {
    instance->failed.push_back(model);
  } else if (models_[model].present) {  // else it was removed meanwhile
    instance->resident.push_back(model);
  }
  mark(*instance);
  settle(m);
}

void Scheduler::add_tokens(Instance& instance, std::span<const Progress> progress) {
  for (const Progress& step : progress) {
    Request* request = find_request(step.request);
    if (!request || !request->in_job || request->kv != instance.id) continue;
    request->made += step.tokens;
    if (step.ended) {
      erase_value(instance.in_job, request);
      erase(*request);
    } else {
      grow(*request);
    }
  }
}

void Scheduler::prefilled(InstanceId id, std::span<const Progress> progress, TimePoint now, Actions& out) {
  Instance* instance = find(id);
  if (!instance || instance->job != Job::prefill) return;
  Moment m{now, out};
  for (Request* request : instance->in_job) {
    request->phase = Phase::decoding;
    --models_[request->spec.model].waiting;
    --waiting_;
  }
  add_tokens(*instance, progress);
  for (Request* request : std::vector<Request*>(instance->in_job)) {
    request->in_job = false;
    if (!request->moving() && request->home != id) {
      if (request->home == kNowhere) {
        find_home(*request, m);  // its home went away meanwhile
      } else {
        send_home(*request, m);
      }
    }
  }
  end_job(*instance, m);
  settle(m);
}

void Scheduler::stepped(InstanceId id, std::span<const Progress> progress, TimePoint now, Actions& out) {
  Instance* instance = find(id);
  if (!instance || (instance->job != Job::decode && instance->job != Job::stopping)) return;
  Moment m{now, out};
  add_tokens(*instance, progress);
  if (instance->job == Job::decode && !instance->in_job.empty()) {
    const std::uint64_t block = spec(instance->batch->model).kv_block_bytes;
    if (free_kv(*instance) < instance->in_job.size() * block) {
      stop(*instance, m);
    } else {
      after_step(*instance, m);
    }
  }
  settle(m);
}

void Scheduler::turn_ended(InstanceId id, TimePoint now, Actions& out) {
  Instance* instance = find(id);
  if (!instance || (instance->job != Job::decode && instance->job != Job::stopping)) return;
  Moment m{now, out};
  for (Request* request : instance->in_job) request->in_job = false;
  end_job(*instance, m);
  settle(m);
}

void Scheduler::end_job(Instance& instance, Moment& m) {
  Batch& batch = *instance.batch;
  batch.last_turn = m.now;
  instance.in_job.clear();
  instance.job = Job::idle;
  instance.batch = nullptr;
  after_job(instance, batch, m);
  mark(instance);
}

void Scheduler::kv_arrived(RequestId id, TimePoint now, Actions& out) {
  Request* request = find_request(id);
  if (!request || !request->moving() || request->phase != Phase::decoding) return;
  Moment m{now, out};
  const InstanceId from = request->kv;
  release(from, request->kv_bytes);
  if (from < kHost && instances_[from]) instances_[from]->kv_leaving -= request->kv_bytes;
  request->kv = request->moving_to;
  request->moving_to = kNowhere;
  if (Instance* home = find(request->home)) {
    const std::uint64_t block = spec(request->spec.model).kv_block_bytes;
    if (home->job == Job::decode && home->batch == request->row_batch) {
      if (request->kv == kHost) {
        fetch_rows(*home, *home->batch, m);
      } else if (home->in_job.size() < options_.max_rows &&
                 free_kv(*home) >= (home->in_job.size() + 1) * block) {
        request->in_job = true;
        home->in_job.push_back(request);
        out.push_back(Join{home->id, id});
      }
    }
    mark(*home);
  }
  settle(m);
}

void Scheduler::kv_lost(RequestId id, TimePoint now, Actions& out) {
  Request* request = find_request(id);
  if (!request || request->phase != Phase::decoding) return;
  Moment m{now, out};
  for (const InstanceId place : {request->kv, request->home}) {
    if (Instance* instance = find(place)) {
      erase_value(instance->in_job, request);
      mark(*instance);
    }
  }
  restart(*request, m);
  settle(m);
}

void Scheduler::cancelled(RequestId id, TimePoint now, Actions& out) {
  Request* request = find_request(id);
  if (!request) return;
  Moment m{now, out};
  if (request->phase != Phase::decoding) {
    --models_[request->spec.model].waiting;
    --waiting_;
  }
  for (const InstanceId place : {request->kv, request->home}) {
    if (Instance* instance = find(place)) {
      erase_value(instance->in_job, request);
      mark(*instance);
    }
  }
  erase(*request);
  settle(m);
}

PolicyView Scheduler::view() const {
  PolicyView view{.requests = requests_.size(), .waiting = waiting_, .host_kv_bytes = host_used_};
  for (const auto& instance : instances_) view.kv_bytes.push_back(instance ? instance->kv_used : 0);
  return view;
}

Instance* Scheduler::find(InstanceId id) { return id < instances_.size() ? instances_[id].get() : nullptr; }

Request* Scheduler::find_request(RequestId id) {
  const auto found = requests_.find(id);
  return found == requests_.end() ? nullptr : &found->second;
}

void Scheduler::mark(Instance& instance) {
  if (instance.dirty) return;
  instance.dirty = true;
  dirty_.push_back(instance.id);
}

void Scheduler::settle(Moment& m) {
  for (;;) {
    if (memory_freed_) {
      memory_freed_ = false;
      for (const auto& instance : instances_) {
        if (!instance || !instance->blocked) continue;
        instance->blocked = false;
        mark(*instance);
      }
      for (const RequestId id : std::exchange(unmoved_, {})) {
        Request* request = find_request(id);
        if (request && !request->moving() && request->phase == Phase::decoding) send_home(*request, m);
      }
    }
    if (dirty_.empty()) return;
    for (const InstanceId id : std::exchange(dirty_, {})) {
      Instance* instance = find(id);
      if (!instance) continue;
      instance->dirty = false;
      if (instance->idle()) next_job(*instance, m);
      prepare_next(*instance, m);
    }
  }
}

void Scheduler::place(Request& request, Moment& m) {
  if (!place_prompt(request, m)) stranded_.push_back(request.spec.id);
}

// From the beginning: its KV is lost, its tokens are not.
void Scheduler::restart(Request& request, Moment& m) {
  if (request.phase == Phase::decoding) {
    ++models_[request.spec.model].waiting;
    ++waiting_;
  }
  if (request.in_job && request.kv < kHost && instances_[request.kv]) {
    erase_value(instances_[request.kv]->in_job, &request);
  }
  request.in_job = false;
  detach(request);
  request.phase = Phase::waiting;
  place(request, m);
}

void Scheduler::detach(Request& request) {
  forget(request);
  std::erase(stranded_, request.spec.id);
  std::erase(unmoved_, request.spec.id);
  take_prompt(request);
  if (request.row_batch) erase_value(request.row_batch->rows, &request);
  request.row_batch = nullptr;
  request.home = kNowhere;
  release_kv(request);
}

void Scheduler::erase(Request& request) {
  --models_[request.spec.model].requests;
  const InstanceId home = request.home;
  detach(request);
  requests_.erase(request.spec.id);
  if (Instance* instance = find(home)) mark(*instance);
}

// A request that has its KV, but nobody to decode it.
void Scheduler::find_home(Request& request, Moment& m) {
  Instance* at = request.kv < kHost ? find(request.kv) : nullptr;
  if (!at) {
    for (const auto& instance : instances_) {
      if (instance && !at) at = instance.get();
    }
  }
  Batch* batch = at ? place_rows(request, *at, m) : nullptr;
  if (!batch) {
    stranded_.push_back(request.spec.id);
    return;
  }
  if (std::find(batch->rows.begin(), batch->rows.end(), &request) == batch->rows.end())
    batch->rows.push_back(&request);
  request.row_batch = batch;
  for (const auto& instance : instances_) {
    if (!instance) continue;
    for (const auto& own : instance->batches) {
      if (own.get() == batch) request.home = instance->id;
    }
  }
  if (request.phase == Phase::decoding && !request.moving() && request.kv < kHost &&
      request.kv != request.home) {
    send_home(request, m);
  }
  mark(*instances_[request.home]);
}

// KV that lies on another instance goes to the home, or to host memory.
void Scheduler::send_home(Request& request, Moment& m) {
  if (request.home == kNowhere || request.kv >= kHost || request.kv == request.home) return;
  const std::uint64_t block = spec(request.spec.model).kv_block_bytes;
  if (has_room(request.home, request.kv_bytes + block)) {
    move(request, request.home, m);
  } else if (has_room(kHost, request.kv_bytes)) {
    move(request, kHost, m);
  } else {
    unmoved_.push_back(request.spec.id);
  }
}

}  // namespace switchyard::schedule
