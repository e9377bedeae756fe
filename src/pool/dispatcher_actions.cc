// What the policy asks for becomes orders to instances.
#include <algorithm>

#include "base/log.h"
#include "model/kv_layout.h"
#include "pool/dispatcher.h"

namespace switchyard::pool {
namespace {

std::uint32_t milliseconds(Nanos duration) {
  return static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

Error kv_gone() { return {ErrorCode::peer_lost, "its KV went with an instance"}; }

}  // namespace

// Carries out what there is to do, in order, until nothing follows from it any more.
void Dispatcher::settle() {
  for (;;) {
    if (!actions_.empty()) {
      for (const auto& action : std::exchange(actions_, {})) {
        std::visit([this](const auto& each) { carry_out(each); }, action);
      }
    } else if (!later_.empty()) {
      const auto next = std::move(later_.front());
      later_.pop_front();
      next();
    } else {
      return;
    }
  }
}

void Dispatcher::undeliverable(Instance& instance, const Error& why) {
  later_.push_back([this, id = instance.id, why] {
    if (Instance* same = find(id)) mark_lost(*same, why.message);
  });
}

// --- Models ---

void Dispatcher::carry_out(const schedule::Load& action) {
  Instance* instance = find(action.instance);
  if (instance == nullptr) return;
  if (action.evict != schedule::kNoModel) {
    instance->resident.erase(action.evict);
    send(*instance, EvictModel{action.evict});
  }
  if (models_[action.model]->damaged) {
    later_.push_back([this, action] {
      if (find(action.instance) != nullptr)
        policy_->load_failed(action.instance, action.model, monotonic_now(), actions_);
    });
    return;
  }
  instance->load = Load{.serial = next_load_++, .model = action.model, .begun = monotonic_now()};
  cache_.acquire(models_[action.model]->image,
                 [this, weak = std::weak_ptr<bool>(alive_), name = instance->status.name,
                  serial = instance->load->serial](Result<std::shared_ptr<const CachedImage>> image) {
                   if (const auto alive = weak.lock()) image_ready(name, serial, std::move(image));
                 });
}

void Dispatcher::image_ready(const std::string& name, std::uint64_t serial,
                             Result<std::shared_ptr<const CachedImage>> image) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = instances_.find(name);
    if (down_ || found == instances_.end() || !found->second.load || found->second.load->serial != serial)
      return;
    Load& load = *found->second.load;
    if (!image && image.error().code == ErrorCode::corrupt) {
      // Its requests wait: the policy asks again when the image is there.
      const ModelId model = std::exchange(found->second.load, std::nullopt)->model;
      policy_->load_failed(found->second.id, model, monotonic_now(), actions_);
      image_damaged(*models_[model], image.error());
    } else if (!image) {
      load_over(found->second, false, image.error());
    } else {
      load.image = *std::move(image);
      send(found->second, LoadModel{.serial = serial, .model = load.model, .image = load.image->memory()});
    }
    settle();
  }
  notify_lost();
}

void Dispatcher::load_over(Instance& instance, bool ready, const Error& why) {
  const Load load = *std::exchange(instance.load, std::nullopt);
  const TimePoint now = monotonic_now();
  if (ready) {
    instance.resident.insert(load.model);
    instance.loaded = load.model;
    instance.load_begun = load.begun;
    instance.load_ended = now;
    models_[load.model]->pause = {};
    models_[load.model]->failure.clear();
    models_[load.model]->repairs = 0;
    policy_->loaded(instance.id, load.model, now, actions_);
    return;
  }
  policy_->load_failed(instance.id, load.model, now, actions_);
  Model& model = *models_[load.model];
  model_failed(model,
               {why.code, fmt::format("it cannot be loaded on {}: {}", instance.status.name, why.message)});
}

// --- Jobs ---

void Dispatcher::begin_job(Instance& instance, Job job) {
  const TimePoint now = monotonic_now();
  job.id = next_job_++;
  job.begun = now;
  if (instance.active != job.model) {
    // What the load took of the time in which the instance had nothing else to do.
    Nanos wait{}, took{};
    if (instance.loaded == job.model) {
      took = instance.load_ended - instance.load_begun;
      wait = std::max(Nanos{}, instance.load_ended - std::max(instance.idle_since, instance.load_begun));
      instance.loaded = schedule::kNoModel;
    }
    ++instance.switches;
    if (wait == Nanos{}) ++instance.hidden_switches;
    instance.switch_wait += to_seconds(wait);
    const Model& model = *models_[job.model];
    const std::string from =
        instance.active == schedule::kNoModel ? "" : models_[instance.active]->settings.id;
    log::debug("{} switches from '{}' to '{}', {:.1f} ms waited", instance.status.name, from,
               model.settings.id, to_seconds(wait) * 1e3);
    if (trace_) {
      trace_->change({.instance = instance.status.name,
                      .model = model.settings.id,
                      .from = from,
                      .bytes = model.image->bytes().size(),
                      .load = took,
                      .wait = wait},
                     now);
    }
    instance.active = job.model;
    instance.status.model = model.settings.id;
  }
  instance.job = std::move(job);
}

void Dispatcher::introduce(Instance& instance, Request& request) {
  const GenerationRequest& wanted = request.wanted;
  send(instance, Introduce{.ticket = request.ticket(),
                           .model = request.model,
                           .shape = models_[request.model]->shape,
                           .prompt = wanted.prompt,
                           .output = request.output,
                           .sampling = wanted.sampling,
                           .max_tokens = wanted.max_tokens,
                           .end_tokens = wanted.end_tokens});
  request.holders.push_back({instance.id, request.output.size()});
}

void Dispatcher::expect(Instance& instance, const Instance& from, Request& request, std::uint32_t tokens) {
  introduce(instance, request);
  request.landing = instance.id;
  request.landing_known = false;
  request.source = from.id;
  send(instance, Expect{.ticket = request.ticket(),
                        .tokens = tokens,
                        .from = from.address.serialize(),
                        .limit_ms = milliseconds(kHandOverLimit)});
}

bool Dispatcher::holds(const Instance& instance, const Request& request) {
  return std::ranges::find(request.holders, instance.id, &Holder::instance) != request.holders.end();
}

void Dispatcher::lose(const Request& request, const Error& why) {
  later_.push_back([this, ticket = request.ticket(), why] {
    Request* same = find_request(ticket);
    if (same == nullptr) return;
    depart(*same, false);
    // Where memory is merely full, others make room by ending.
    if (why.code != ErrorCode::exhausted) attempt_failed(ticket.id, why, false);
    policy_->kv_lost(ticket.id, monotonic_now(), actions_);
  });
}

Row Dispatcher::row_of(Instance& instance, Request& request) {
  Row row{.ticket = request.ticket(), .news = {}};
  const auto holder = std::ranges::find(request.holders, instance.id, &Holder::instance);
  row.news.assign(request.output.begin() + static_cast<std::ptrdiff_t>(holder->known), request.output.end());
  holder->known = request.output.size();
  return row;
}

void Dispatcher::carry_out(const schedule::RunPrefill& action) {
  Instance* instance = find(action.instance);
  if (instance == nullptr) return;
  Job job{.prefill = true, .model = action.model};
  job.order.model = action.model;
  for (const schedule::Prompt& asked : action.prompts) {
    const auto entry = requests_.find(asked.request);
    if (entry == requests_.end()) continue;
    Request& request = entry->second;
    if (request.attempt > 0) depart(request, false);
    ++request.attempt;
    request.prefiller = instance->id;
    introduce(*instance, request);
    // A token may have been made of which the policy never heard, because an instance ended.
    const auto tokens = static_cast<std::uint32_t>(request.wanted.prompt.size() + request.output.size());
    RunPrefill::Prompt prompt{.ticket = request.ticket()};
    job.requests.insert(request.id);
    if (asked.to == schedule::kHost) {
      Model& model = *models_[action.model];
      auto blocks = host_->take(model.block_bytes, model::KvLayout::blocks_for(tokens));
      if (blocks) {
        prompt.target = KvTarget::host;
        prompt.host_blocks = request.host_blocks = *std::move(blocks);
        request.move = Move::to_host;
        request.mover = instance->id;
      } else {
        job.lost.push_back(request.id);
        job.crowded.insert(request.id);
      }
    } else if (asked.to != action.instance) {
      if (Instance* landing = find(asked.to)) {
        prompt.target = KvTarget::peer;
        prompt.peer = landing->address.serialize();
        expect(*landing, *instance, request, tokens);
        ++job.expecting;
      } else {
        job.lost.push_back(request.id);
      }
    }
    job.order.prompts.push_back(std::move(prompt));
  }
  begin_job(*instance, std::move(job));
  send_prefill_later(instance->id);
}

// After the actions that came with this one.
void Dispatcher::send_prefill_later(InstanceId id) {
  later_.push_back([this, id] {
    if (Instance* instance = find(id)) send_prefill_if_ready(*instance);
  });
}

// The instance that was to have the KV of a prompt is out: the prompt stays where it is computed, if that has
// not been ordered yet.
void Dispatcher::keep_where_computed(const Request& request) {
  Job* job = prefill_of(request);
  if (job == nullptr || job->sent) return;
  if (!request.landing_known) --job->expecting;
  const auto prompt = std::ranges::find(job->order.prompts, request.ticket(), &RunPrefill::Prompt::ticket);
  if (prompt != job->order.prompts.end()) *prompt = {.ticket = request.ticket()};
  send_prefill_later(request.prefiller);
}

void Dispatcher::send_prefill_if_ready(Instance& instance) {
  if (!instance.job || !instance.job->prefill || instance.job->sent || instance.job->expecting > 0) return;
  Job& job = *instance.job;
  job.sent = true;
  if (job.order.prompts.empty()) {
    job.empty = true;
    return end_if_empty(instance);
  }
  job.order.job = job.id;
  send(instance, job.order);
  job.order = {};
}

// A job of which everything was cancelled ends when the policy has heard of that.
void Dispatcher::end_if_empty(Instance& instance) {
  if (!instance.job || !instance.job->empty || !instance.job->leaving.empty()) return;
  const bool prefill = instance.job->prefill;
  instance.job.reset();
  instance.idle_since = monotonic_now();
  if (prefill) {
    policy_->prefilled(instance.id, {}, instance.idle_since, actions_);
  } else {
    policy_->turn_ended(instance.id, instance.idle_since, actions_);
  }
}

void Dispatcher::carry_out(const schedule::RunDecode& action) {
  Instance* instance = find(action.instance);
  if (instance == nullptr) return;
  RunDecode order{.model = action.model};
  for (const RequestId id : action.rows) {
    const auto entry = requests_.find(id);
    if (entry == requests_.end()) {
      // It is departing, and the policy hears of its end in time. If not, it must not ask for it for ever.
      const bool departing = std::ranges::any_of(departures_, [id](const auto& departure) {
        return departure.second.tell_policy && departure.second.request == id;
      });
      if (!departing) later_.push_back([this, id] { policy_->cancelled(id, monotonic_now(), actions_); });
      continue;
    }
    if (holds(*instance, entry->second)) {
      order.rows.push_back(row_of(*instance, entry->second));
    } else {
      lose(entry->second, kv_gone());
    }
  }
  begin_job(*instance, {.sent = true, .model = action.model});
  if (order.rows.empty()) {
    instance->job->empty = true;
    for (const auto& [ticket, left] : departures_) {
      if (left.tell_policy && std::ranges::find(action.rows, left.request) != action.rows.end())
        instance->job->leaving.insert(left.request);
    }
    later_.push_back([this, id = instance->id] {
      if (Instance* same = find(id)) end_if_empty(*same);
    });
    return;
  }
  order.job = instance->job->id;
  order.limit = std::max(Nanos{}, action.until - monotonic_now());
  send(*instance, order);
}

void Dispatcher::carry_out(const schedule::Join& action) {
  Instance* instance = find(action.instance);
  const auto entry = requests_.find(action.request);
  if (instance == nullptr || entry == requests_.end() || !instance->job) return;
  if (!holds(*instance, entry->second)) return lose(entry->second, kv_gone());
  send(*instance, Join{.job = instance->job->id, .row = row_of(*instance, entry->second)});
}

void Dispatcher::carry_out(const schedule::Stop& action) {
  Instance* instance = find(action.instance);
  if (instance != nullptr && instance->job) send(*instance, StopJob{instance->job->id});
}

// --- KV ---

void Dispatcher::carry_out(const schedule::MoveKv& action) {
  const auto entry = requests_.find(action.request);
  if (entry == requests_.end()) return;
  Request& request = entry->second;
  const Model& model = *models_[request.model];
  const auto tokens = static_cast<std::uint32_t>(request.wanted.prompt.size() + request.output.size() - 1);
  if (action.to == schedule::kHost) {
    Instance* from = find(action.from);
    if (from == nullptr || !holds(*from, request)) return lose(request, kv_gone());
    auto blocks = host_->take(model.block_bytes, model::KvLayout::blocks_for(tokens));
    if (!blocks) return lose(request, blocks.error());
    request.host_blocks = *std::move(blocks);
    request.move = Move::to_host;
    request.mover = from->id;
    send(*from, MoveOut{request.ticket(), request.host_blocks});
    return;
  }
  Instance* to = find(action.to);
  if (to == nullptr) return;  // the policy will hear that it ended
  if (action.from == schedule::kHost) {
    if (request.host_blocks.empty()) return lose(request, kv_gone());
    introduce(*to, request);
    request.move = Move::from_host;
    request.mover = to->id;
    send(*to, MoveIn{request.ticket(), request.host_blocks});
    return;
  }
  Instance* from = find(action.from);
  if (from == nullptr || !holds(*from, request)) return lose(request, kv_gone());
  request.push_wanted = true;
  expect(*to, *from, request, tokens);
}

void Dispatcher::carry_out(const schedule::DropKv& action) {
  ++drops_;
  const auto entry = requests_.find(action.request);
  if (entry != requests_.end()) depart(entry->second, false);
}

}  // namespace switchyard::pool
