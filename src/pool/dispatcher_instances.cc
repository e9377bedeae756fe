// Instances: how they come and go, and what they report.
#include <algorithm>

#include "base/log.h"
#include "pool/dispatcher.h"
#include "pool/role.h"

namespace switchyard::pool {
namespace {

template <class T>
void add_once(std::vector<T>& values, const T& value) {
  if (std::ranges::find(values, value) == values.end()) values.push_back(value);
}

}  // namespace

void Dispatcher::on_message(const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload) {
  {
    const std::lock_guard lock(mutex_);
    switch (static_cast<OrderType>(type)) {
      case OrderType::hello:
        if (const auto hello = parse<InstanceHello>(payload)) {
          said_hello(from, *hello);
        } else {
          log::error("{}", hello.error().message);
        }
        break;
      case OrderType::loaded:
        handle<Loaded>(from, payload);
        break;
      case OrderType::expecting:
        handle<Expecting>(from, payload);
        break;
      case OrderType::kv_here:
        handle<KvHere>(from, payload);
        break;
      case OrderType::tokens:
        handle<Tokens>(from, payload);
        break;
      case OrderType::job_ended:
        handle<JobEnded>(from, payload);
        break;
      case OrderType::kv_moved:
        handle<KvMoved>(from, payload);
        break;
      case OrderType::kv_lost:
        handle<KvLost>(from, payload);
        break;
      case OrderType::released:
        handle<Released>(from, payload);
        break;
      case OrderType::stats:
        handle<Stats>(from, payload);
        break;
      default:
        log::error("the dispatcher got a message of type {}", static_cast<int>(type));
    }
    settle();
  }
  notify_lost();
}

template <class M>
void Dispatcher::handle(const PeerAddress& from, std::span<const std::byte> payload) {
  Instance* instance = find(from);
  if (instance == nullptr) return;  // of a life that is over
  auto message = parse<M>(payload);
  if (!message) return mark_lost(*instance, message.error().message);
  instance->heard = monotonic_now();
  reported(*instance, *std::move(message));
}

void Dispatcher::said_hello(const PeerAddress& from, const InstanceHello& hello) {
  const auto found = instances_.find(hello.name);
  if (found == instances_.end() || found->second.role != hello.role) {
    log::warn("an unknown instance '{}' was refused", hello.name);
    return;
  }
  Instance& instance = found->second;
  if (instance.ready) mark_lost(instance, "it was started again");
  host_->release(hello.name);
  instance.address = from;
  instance.id = static_cast<InstanceId>(lives_.size());
  const std::uint64_t slabs = options_.slab_bytes == 0 ? 0 : hello.kv_bytes / options_.slab_bytes;
  const TimePoint now = monotonic_now();
  const Status up =
      hello.slab_bytes != options_.slab_bytes
          ? Status(fail(ErrorCode::invalid, "its slabs have {} bytes", hello.slab_bytes))
          : policy_->instance_up(instance.id,
                                 {.role = hello.role,
                                  .kv_bytes = (slabs - spare_slabs(slabs)) * options_.slab_bytes,
                                  .berths = hello.berths,
                                  .berth_bytes = hello.berth_bytes},
                                 now, actions_);
  if (!up) {
    log::error("{} cannot be used: {}", hello.name, up.error().message);
    instance.id = kNone;
    lost_.push_back({hello.name, instance.status.process, up.error().message});
    return;
  }
  lives_.push_back(&instance);
  instance.ready = true;
  instance.start = {};
  instance.status.state = "ready";
  instance.status.detail.clear();
  instance.status.model.clear();
  instance.stats = {};
  instance.heard = instance.idle_since = now;
  send(instance, Welcome{host_->name()});
  changed_.notify_all();
  for (const RequestId id : std::exchange(unsent_, {})) {
    const auto entry = requests_.find(id);
    if (entry != requests_.end()) admit(entry->second);
  }
}

// --- Reports ---

void Dispatcher::reported(Instance& instance, const Loaded& report) {
  if (!instance.load || instance.load->serial != report.serial) return;
  if (report.ready) costs_.loaded(report.model, report.bytes, report.took);
  load_over(instance, report.ready, report.error);
}

void Dispatcher::reported(Instance& instance, const Expecting& report) {
  Request* request = find_request(report.ticket);
  if (request == nullptr || request->landing != instance.id || request->landing_known) return;
  request->landing_known = true;
  if (Job* job = prefill_of(*request); job != nullptr && !job->sent) {
    const auto prompt = std::ranges::find(job->order.prompts, report.ticket, &RunPrefill::Prompt::ticket);
    if (prompt != job->order.prompts.end()) prompt->destination = report.destination;
    --job->expecting;
    if (Instance* at = find(request->prefiller)) send_prefill_if_ready(*at);
  } else if (std::exchange(request->push_wanted, false)) {
    Instance* source = find(request->source);
    if (source == nullptr) return;
    send(*source, PushKv{report.ticket, instance.address.serialize(), report.destination});
  }
}

void Dispatcher::reported(Instance& instance, const KvHere& report) {
  Request* request = find_request(report.ticket);
  if (request == nullptr || request->landing != instance.id) return landed(report.ticket, instance.id);
  std::erase_if(request->holders, [&](const Holder& holder) { return holder.instance == request->source; });
  request->source = request->landing = kNone;
  if (Job* job = prefill_of(*request)) {
    job->arrived.push_back(request->id);
  } else {
    policy_->kv_arrived(request->id, monotonic_now(), actions_);
  }
}

void Dispatcher::reported(Instance& instance, const KvMoved& report) {
  Request* request = find_request(report.ticket);
  if (request == nullptr || request->move == Move::none || request->mover != instance.id)
    return let_go(report.ticket, instance.id, false);
  const TimePoint now = monotonic_now();
  const bool out = request->move == Move::to_host;
  request->move = Move::none;
  request->mover = kNone;
  if (trace_) {
    trace_->move({.request = request->id,
                  .from = out ? std::string_view(instance.status.name) : "host",
                  .to = out ? "host" : std::string_view(instance.status.name),
                  .bytes = report.bytes,
                  .took = report.took},
                 now);
  }
  if (out) {
    std::erase_if(request->holders, [&](const Holder& holder) { return holder.instance == instance.id; });
  } else {
    host_->give_back(models_[request->model]->block_bytes, std::exchange(request->host_blocks, {}));
  }
  if (Job* job = prefill_of(*request)) {
    job->arrived.push_back(request->id);
  } else {
    policy_->kv_arrived(request->id, now, actions_);
  }
}

void Dispatcher::reported(Instance& instance, const KvLost& report) {
  Request* request = find_request(report.ticket);
  if (request == nullptr || !holds(instance, *request)) return let_go(report.ticket, instance.id, false);
  log::debug("KV of request {} is lost on {}: {}", report.ticket.id, instance.status.name,
             report.why.message);
  kv_lost(*request, instance, report.why);
}

void Dispatcher::kv_lost(Request& request, Instance& at, const Error& why) {
  std::erase_if(request.holders, [&](const Holder& holder) { return holder.instance == at.id; });
  if (request.source == at.id) {
    request.source = kNone;
    request.writer_stopped = true;
  }
  Job* job = prefill_of(request);
  if (job != nullptr) {
    // The prefill goes on without it, or without its destination; the policy hears of it afterwards.
    add_once(job->lost, request.id);
    std::erase(job->arrived, request.id);
    if (request.landing == at.id) {
      request.landing = kNone;
      keep_where_computed(request);
    }
    return;
  }
  if (request.landing == at.id) request.landing = kNone;
  depart(request, false);
  attempt_failed(request.id, why, false);
  policy_->kv_lost(request.id, monotonic_now(), actions_);
}

void Dispatcher::reported(Instance& instance, const Released& report) {
  let_go(report.ticket, instance.id, false);
}

void Dispatcher::reported(Instance& instance, Stats report) { instance.stats = std::move(report); }

void Dispatcher::reported(Instance& instance, const Tokens& report) {
  if (!instance.job || instance.job->id != report.job) return;
  Job& job = *instance.job;
  const TimePoint now = monotonic_now();
  std::vector<schedule::Progress> progress;
  for (const Tokens::Entry& entry : report.entries) {
    Request* request = find_request(entry.ticket);
    if (request == nullptr) continue;
    for (const model::SampledToken& token : entry.tokens) take_token(*request, token, now);
    const auto holder = std::ranges::find(request->holders, instance.id, &Holder::instance);
    if (holder != request->holders.end()) holder->known = request->output.size();
    const bool ended = entry.outcome != RowOutcome::running;
    progress.push_back({request->id, static_cast<std::uint32_t>(entry.tokens.size()), ended});
    if (!ended) continue;
    job.requests.erase(request->id);
    std::erase(job.lost, request->id);
    // The instance has forgotten it; KV on its way elsewhere still lands.
    depart(*request, false, instance.id);
    const auto found = requests_.find(request->id);
    switch (entry.outcome) {
      case RowOutcome::end_token:
        forget(found, FinishReason::end_token, {});
        break;
      case RowOutcome::length:
        forget(found, FinishReason::length, {});
        break;
      default:
        forget(found, FinishReason::failed, entry.error);
    }
  }
  if (job.prefill) {
    job.made.insert(job.made.end(), progress.begin(), progress.end());
  } else {
    policy_->stepped(instance.id, progress, now, actions_);
  }
}

void Dispatcher::reported(Instance& instance, const JobEnded& report) {
  if (!instance.job || instance.job->id != report.job) return;
  const TimePoint now = monotonic_now();
  const Job job = *std::exchange(instance.job, std::nullopt);
  instance.idle_since = now;
  if (job.prefill) {
    costs_.prefilled(job.model, report.tokens, report.took);
  } else {
    costs_.stepped(job.model, report.steps, report.rows, report.context, report.took);
  }
  if (trace_) {
    trace_->turn({.instance = instance.status.name,
                  .model = models_[job.model]->settings.id,
                  .kind = job.prefill ? "prefill" : "decode",
                  .took = now - job.begun,
                  .rows = report.rows,
                  .tokens = job.prefill ? report.tokens : report.rows,
                  .reused = report.reused},
                 now);
  }
  if (!job.prefill) return policy_->turn_ended(instance.id, now, actions_);

  policy_->prefilled(instance.id, job.made, now, actions_);
  std::vector<RequestId> lost = job.lost;
  for (const RequestId id : job.requests) {
    const bool made = std::ranges::find(job.made, id, &schedule::Progress::request) != job.made.end();
    if (!made) add_once(lost, id);
  }
  for (const RequestId id : lost) {
    const auto entry = requests_.find(id);
    if (entry == requests_.end()) continue;
    depart(entry->second, false);
    // Where memory is merely full, others make room by ending.
    if (!job.crowded.contains(id)) attempt_failed(id, {ErrorCode::io, "its KV was lost"}, false);
    policy_->kv_lost(id, now, actions_);
  }
  for (const RequestId id : job.arrived) {
    if (std::ranges::find(lost, id) == lost.end()) policy_->kv_arrived(id, now, actions_);
  }
}

// --- Coming and going ---

void Dispatcher::on_peer_lost(const PeerAddress& peer, const Error& why) {
  {
    const std::lock_guard lock(mutex_);
    if (Instance* instance = find(peer)) mark_lost(*instance, why.message);
    settle();
  }
  notify_lost();
}

void Dispatcher::mark_lost(Instance& instance, const std::string& why) {
  if (!instance.ready) return;
  log::warn("{} is lost: {}", instance.status.name, why);
  const InstanceId id = instance.id;
  instance.ready = false;
  instance.status.state = "restarting";
  instance.status.detail = why;
  instance.status.model.clear();
  instance.stats = {};
  const ModelId at_work = instance.job ? instance.job->model : schedule::kNoModel;
  const auto prompts = instance.job ? instance.job->requests : std::set<RequestId>{};
  instance.job.reset();
  instance.load.reset();
  instance.resident.clear();
  instance.active = instance.loaded = schedule::kNoModel;
  lives_[id] = nullptr;
  lost_.push_back({instance.status.name, instance.status.process, why});

  const Error reason{ErrorCode::peer_lost, fmt::format("{} ended: {}", instance.status.name, why)};
  for (auto& [request_id, request] : requests_) {
    if (std::erase_if(request.holders, [id](const Holder& holder) { return holder.instance == id; }) == 0)
      continue;
    attempt_failed(request_id, reason, request.model == at_work);
    if (request.move != Move::none && request.mover == id) {
      // What it was writing to is not anybody's before its process is gone. What it was reading stays.
      if (request.move == Move::to_host) {
        host_->give_back_after(instance.status.name, models_[request.model]->block_bytes,
                               std::exchange(request.host_blocks, {}));
      }
      request.move = Move::none;
      request.mover = kNone;
    }
    if (request.landing == id) {
      keep_where_computed(request);
      request.landing = request.source = kNone;
      request.push_wanted = false;
    } else if (request.source == id) {
      request.source = kNone;
      depart(request, false);
    }
  }
  // Prompts whose KV has landed elsewhere already begin again, too: their first token is lost.
  for (const RequestId prompt : prompts) {
    const auto entry = requests_.find(prompt);
    if (entry == requests_.end()) continue;
    if (!entry->second.holders.empty() || !entry->second.host_blocks.empty()) depart(entry->second, false);
  }
  std::vector<Ticket> left;
  for (const auto& [ticket, departure] : departures_) {
    if (departure.holders.contains(id)) left.push_back(ticket);
  }
  for (const Ticket& ticket : left) let_go(ticket, id, true);
  instance.id = kNone;
  policy_->instance_down(id, monotonic_now(), actions_);
}

void Dispatcher::notify_lost() {
  std::vector<Lost> lost;
  {
    const std::lock_guard lock(mutex_);
    lost.swap(lost_);
  }
  for (const Lost& each : lost) instance_lost_(each.name, each.process, each.why);
}

void Dispatcher::instance_changed(const std::string& name, schedule::Role role, const std::string& state,
                                  const std::string& detail, int process, std::uint64_t restarts) {
  // Whoever calls holds its own lock: losses of others are told by the next tick().
  const std::lock_guard lock(mutex_);
  Instance& instance = instances_[name];
  mark_lost(instance, detail);
  std::erase_if(lost_, [&](const Lost& lost) { return lost.name == name; });  // whoever calls knows
  host_->release(name);
  instance.role = role;
  instance.status = {.name = name,
                     .role = std::string(to_string(role)),
                     .state = state,
                     .model = "",
                     .detail = detail,
                     .process = process,
                     .restarts = restarts};
  instance.start = StartWatch(process, monotonic_now());
  changed_.notify_all();
  settle();
}

Dispatcher::Instance* Dispatcher::find(const PeerAddress& address) {
  for (auto& [name, instance] : instances_) {
    if (instance.ready && key_of(instance.address) == key_of(address)) return &instance;
  }
  return nullptr;
}

Dispatcher::Instance* Dispatcher::find(InstanceId id) { return id < lives_.size() ? lives_[id] : nullptr; }

Dispatcher::Request* Dispatcher::find_request(const Ticket& ticket) {
  const auto entry = requests_.find(ticket.id);
  return entry != requests_.end() && entry->second.attempt == ticket.attempt ? &entry->second : nullptr;
}

Dispatcher::Job* Dispatcher::prefill_of(const Request& request) {
  Instance* instance = find(request.prefiller);
  if (instance == nullptr || !instance->job || !instance->job->requests.contains(request.id)) return nullptr;
  return &*instance->job;
}

std::vector<InstanceStatus> Dispatcher::instances() const {
  const std::lock_guard lock(mutex_);
  std::vector<InstanceStatus> result;
  for (const auto& [name, instance] : instances_) result.push_back(instance.status);
  return result;
}

Status Dispatcher::wait_ready(TimePoint deadline) const {
  std::unique_lock lock(mutex_);
  const auto is_ready = [](const auto& entry) { return entry.second.ready; };
  const auto is_hopeless = [](const auto& entry) {
    return !entry.second.ready && entry.second.status.restarts >= kHopeless;
  };
  const bool settled = changed_.wait_until(lock, deadline, [&] {
    return std::ranges::all_of(instances_, is_ready) || std::ranges::any_of(instances_, is_hopeless);
  });
  if (settled && std::ranges::all_of(instances_, is_ready)) return {};
  if (settled) {
    const auto& status = std::ranges::find_if(instances_, is_hopeless)->second.status;
    return fail(ErrorCode::io, "{} does not start ({}); its own words are above", status.name, status.detail);
  }
  std::string missing;
  for (const auto& [name, instance] : instances_) {
    if (instance.ready) continue;
    const auto& status = instance.status;
    missing += fmt::format("{}{} ({}{}{})", missing.empty() ? "" : ", ", name, status.state,
                           status.detail.empty() ? "" : ": ", status.detail);
  }
  return fail(ErrorCode::timed_out, "not ready in time: {}", missing);
}

void Dispatcher::tick() {
  {
    const std::lock_guard lock(mutex_);
    const TimePoint now = monotonic_now();
    for (auto& [name, instance] : instances_) {
      if (instance.ready && instance.job && now - instance.heard > kSilence)
        mark_lost(instance, "it does not answer");
      if (instance.ready) continue;
      if (auto why = instance.start.look(now, options_.start)) {
        log::error("{} (process {}): {}; it is ended", name, instance.status.process, *why);
        lost_.push_back({name, instance.status.process, *std::move(why)});
      }
    }
    for (const auto& model : models_) {
      if (model->state == ModelState::failed && !model->permanent && now >= model->retry_at)
        try_again(*model);
      remove_if_idle(*model);
    }
    settle();
    if (trace_) trace_->flush();
  }
  notify_lost();
}

}  // namespace switchyard::pool
