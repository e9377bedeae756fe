#include "simulate/simulator.h"

#include <algorithm>
#include <cmath>

#include "simulate/simulator_impl.h"

namespace switchyard::simulate {
using namespace schedule;

namespace {

constexpr std::size_t kMaxViolations = 20;

}  // namespace

Status Simulator::start() {
  const Cluster& cluster = input_.cluster;
  auto policy = make_policy(input_.policy, input_.options, costs_);
  if (!policy) return pass(policy.error());
  policy_ = *std::move(policy);
  for (ModelId id = 0; id < input_.models.size(); ++id) {
    if (Status added = policy_->add_model(id, spec(id), at(now_), actions_); !added) return added;
  }
  const auto add = [&](Role role, std::uint32_t count) -> Status {
    for (std::uint32_t i = 0; i < count; ++i) {
      SimInstance& instance = instances_.emplace_back();
      instance.up = true;
      instance.spec = {role, cluster.kv_bytes, cluster.berths, cluster.berth_bytes};
      const auto id = static_cast<InstanceId>(instances_.size() - 1);
      if (Status up = policy_->instance_up(id, instance.spec, at(now_), actions_); !up) return up;
    }
    return {};
  };
  if (Status up = add(Role::prefill, cluster.prefill); !up) return up;
  if (Status up = add(Role::decode, cluster.decode); !up) return up;
  if (Status up = add(Role::unified, cluster.unified); !up) return up;
  act();
  if (!input_.workload.requests.empty()) queue_.push(asked(0).time, EventKind::arrival, 0);
  for (std::size_t i = 0; i < input_.failures.size(); ++i)
    queue_.push(input_.failures[i].time, EventKind::failure, i);
  for (const Cancellation& cancellation : input_.cancellations) {
    queue_.push(cancellation.time, EventKind::cancel, cancellation.request);
  }
  return {};
}

Result<SimulationResult> Simulator::run() {
  if (Status started = start(); !started) return pass(started.error());
  const Nanos limit =
      (input_.workload.requests.empty() ? Nanos{} : input_.workload.requests.back().time) + input_.drain;
  while (!queue_.empty()) {
    const Event event = queue_.pop();
    if (event.time > limit) break;
    now_ = event.time;
    dispatch(event);
    act();
  }
  summarize();
  return std::move(result_);
}

void Simulator::dispatch(const Event& event) {
  const auto id = event.subject;
  switch (event.kind) {
    case EventKind::arrival: {
      const WorkloadRequest& request = asked(id);
      requests_[id].arrived = true;
      if (id + 1 < requests_.size()) queue_.push(asked(id + 1).time, EventKind::arrival, id + 1);
      policy_->arrived({.id = id,
                        .model = request.model,
                        .prompt_tokens = request.input_tokens,
                        .max_new_tokens = request.output_tokens,
                        .arrival = at(now_)},
                       at(now_), actions_);
      return;
    }
    case EventKind::cancel:
      return cancel(id);
    case EventKind::failure:
      return fail(input_.failures[id]);
    case EventKind::instance_up: {
      SimInstance& instance = instances_.emplace_back();
      instance.up = true;
      instance.spec = specs_up_[id];
      const auto up = policy_->instance_up(static_cast<InstanceId>(instances_.size() - 1), instance.spec,
                                           at(now_), actions_);
      if (!up) complain(up.error().message);
      return;
    }
    case EventKind::load_done: {
      SimInstance& instance = instances_[id];
      if (!instance.up || event.version != instance.load_version) return;
      if (now_ < instance.load_end) {  // KV went first
        queue_.push(instance.load_end, EventKind::load_done, id, event.version);
        return;
      }
      instance.resident.push_back(instance.loading);
      instance.loaded = instance.loading;
      instance.loaded_begin = instance.load_begin;
      instance.loaded_end = now_;
      instance.loading = kNoModel;
      lane(static_cast<InstanceId>(id), instance.loaded, LaneKind::load, instance.load_begin, now_);
      policy_->loaded(static_cast<InstanceId>(id), instance.loaded, at(now_), actions_);
      return;
    }
    case EventKind::prefill_done:
      if (instances_[id].up && event.version == instances_[id].version)
        prefill_done(static_cast<InstanceId>(id));
      return;
    case EventKind::step_done:
      if (instances_[id].up && event.version == instances_[id].version)
        step_done(static_cast<InstanceId>(id));
      return;
    case EventKind::kv_done:
      if (event.version == requests_[id].version) kv_done(id);
      return;
  }
}

void Simulator::act() {
  while (!actions_.empty()) {
    batch_.swap(actions_);
    for (const Action& action : batch_) std::visit([&](const auto& one) { apply(one); }, action);
    batch_.clear();
  }
}

void Simulator::prefill_done(InstanceId id) {
  SimInstance& instance = instances_[id];
  busy_ += to_seconds(std::min(now_, asked(requests_.size() - 1).time) -
                      std::min(instance.step_begin, asked(requests_.size() - 1).time));
  lane(id, instance.model, LaneKind::prefill, instance.step_begin, now_);
  progress_.clear();
  std::vector<RequestId> moving;
  for (const RequestId row : instance.rows) {
    SimRequest& request = requests_[row];
    request.prefilling = false;
    make_token(row);
    const bool ended = request.made >= asked(row).output_tokens;
    progress_.push_back({row, 1, ended});
    if (ended) {
      end(row);
    } else if (request.moving_to != kNowhere) {
      moving.push_back(row);
    }
  }
  instance.running = false;
  instance.job_end = now_;
  const std::vector<RequestId> rows = std::move(instance.rows);
  instance.rows.clear();
  for (const RequestId row : moving) {
    queue_.push(std::max(now_, requests_[row].move_end), EventKind::kv_done, row, requests_[row].version);
  }
  policy_->prefilled(id, progress_, at(now_), actions_);
  act();
  for (const RequestId row : rows) cancel_if_quiet(row);
}

void Simulator::step_done(InstanceId id) {
  SimInstance& instance = instances_[id];
  const Nanos last_arrival = asked(requests_.size() - 1).time;
  busy_ += to_seconds(std::min(now_, last_arrival) - std::min(instance.step_begin, last_arrival));
  progress_.clear();
  std::size_t kept = 0;
  for (std::size_t i = 0; i < instance.rows.size(); ++i) {
    const RequestId row = instance.rows[i];
    SimRequest& request = requests_[row];
    bool stays = true;
    if (i < instance.step_rows) {
      make_token(row);
      const bool ended = request.made >= asked(row).output_tokens;
      progress_.push_back({row, 1, ended});
      if (ended) {
        end(row);
        stays = false;
      }
    }
    if (stays && request.cancel_wanted) {
      stays = false;
    }
    if (stays) instance.rows[kept++] = row;
  }
  instance.rows.resize(kept);
  policy_->stepped(id, progress_, at(now_), actions_);
  act();
  for (const Progress& row : progress_) {
    if (!row.ended) cancel_if_quiet(row.request);
  }
  if (instances_[id].stop || instances_[id].rows.empty() || at(now_) >= instances_[id].until) {
    end_turn(id);
  } else {
    begin_step(id, now_);
  }
}

void Simulator::end_turn(InstanceId id) {
  SimInstance& instance = instances_[id];
  lane(id, instance.model, LaneKind::decode, instance.job_begin, now_);
  const std::vector<RequestId> rows = std::move(instance.rows);
  instance.rows.clear();
  instance.running = false;
  instance.job_end = now_;
  policy_->turn_ended(id, at(now_), actions_);
  act();
  for (const RequestId row : rows) cancel_if_quiet(row);
}

void Simulator::kv_done(RequestId id) {
  SimRequest& request = requests_[id];
  if (request.moving_to == kNowhere) return;
  hold(request.kv, id, -1);
  request.kv = request.moving_to;
  request.moving_to = kNowhere;
  if (request.cancel_wanted) return cancel_if_quiet(id);
  policy_->kv_arrived(id, at(now_), actions_);
}

void Simulator::cancel(RequestId id) {
  SimRequest& request = requests_[id];
  if (!request.arrived || request.shed || request.ended || request.cancelled) return;
  request.cancel_wanted = true;
  cancel_if_quiet(id);
}

// The policy hears of it when the request is out of its step and its KV lies still.
void Simulator::cancel_if_quiet(RequestId id) {
  SimRequest& request = requests_[id];
  if (!request.cancel_wanted || request.cancelled || request.ended) return;
  if (request.prefilling || request.moving_to != kNowhere) return;
  for (const SimInstance& instance : instances_) {
    if (instance.up && instance.running &&
        std::find(instance.rows.begin(), instance.rows.end(), id) != instance.rows.end()) {
      return;
    }
  }
  request.cancelled = true;
  ++result_.cancelled;
  if (request.kv != kNowhere) hold(request.kv, id, -1);
  request.kv = kNowhere;
  ++request.version;
  policy_->cancelled(id, at(now_), actions_);
  act();
}

void Simulator::fail(const Failure& failure) {
  if (failure.instance >= instances_.size() || !instances_[failure.instance].up) return;
  SimInstance& instance = instances_[failure.instance];
  instance.up = false;
  instance.running = false;
  ++instance.version;
  ++instance.load_version;
  for (RequestId id = 0; id < requests_.size(); ++id) {
    SimRequest& request = requests_[id];
    if (request.kv == failure.instance) {
      if (request.moving_to != kNowhere) hold(request.moving_to, id, -1);
      request.kv = request.moving_to = kNowhere;
      request.prefilling = false;
      ++request.version;
    } else if (request.moving_to == failure.instance) {
      request.moving_to = kNowhere;
      ++request.version;
    }
  }
  policy_->instance_down(failure.instance, at(now_), actions_);
  act();
  for (RequestId id = 0; id < requests_.size(); ++id) cancel_if_quiet(id);
  if (failure.restart > Nanos{}) {
    specs_up_.push_back(instances_[failure.instance].spec);
    queue_.push(now_ + failure.restart, EventKind::instance_up, specs_up_.size() - 1);
  }
}

std::uint64_t Simulator::kv_bytes(RequestId id) const {
  const std::uint64_t tokens = asked(id).input_tokens + requests_[id].made;
  return (tokens + kBlockTokens - 1) / kBlockTokens * spec(asked(id).model).kv_block_bytes;
}

void Simulator::hold(InstanceId place, RequestId id, std::int64_t sign) {
  const std::uint64_t bytes = kv_bytes(id);
  std::uint64_t& used = place == kHost ? host_kv_ : instances_[place].kv_bytes;
  used += sign > 0 ? bytes : -bytes;
  if (place == kHost ? used > input_.options.host_kv_bytes
                     : instances_[place].up && used > instances_[place].spec.kv_bytes) {
    complain("more KV than memory");
  }
}

void Simulator::make_token(RequestId id) {
  SimRequest& request = requests_[id];
  const WorkloadRequest& order = asked(id);
  request.in_time += clock_.in_time(order.time, spec(order.model).targets, request.made, now_);
  if (request.made == 0) result_.first_token_seconds.push_back(to_seconds(now_ - order.time));
  // The block that the token begins.
  const std::uint64_t before = kv_bytes(id);
  ++request.made;
  const std::uint64_t grown = kv_bytes(id) - before;
  if (grown == 0) return;
  for (const InstanceId place : {request.kv, request.moving_to}) {
    if (place == kNowhere) continue;
    std::uint64_t& used = place == kHost ? host_kv_ : instances_[place].kv_bytes;
    used += grown;
    if (place != kHost && used > instances_[place].spec.kv_bytes) complain("more KV than memory");
  }
}

void Simulator::end(RequestId id) {
  SimRequest& request = requests_[id];
  if (request.moving_to != kNowhere) hold(request.moving_to, id, -1);
  if (request.kv != kNowhere) hold(request.kv, id, -1);
  request.kv = request.moving_to = kNowhere;
  ++request.version;
  request.ended = true;
  last_end_ = now_;
}

void Simulator::lane(InstanceId id, ModelId model, LaneKind kind, Nanos begin, Nanos end) {
  if (!input_.record_lanes) return;
  result_.lanes.push_back({id, model, kind, to_seconds(begin), to_seconds(end)});
}

void Simulator::complain(std::string text) {
  if (result_.violations.size() < kMaxViolations) {
    result_.violations.push_back(fmt::format("{:.3f} s: {}", to_seconds(now_), text));
  }
}

Result<SimulationResult> simulate(const SimulationInput& input) {
  if (const Status status = check(input); !status) return pass(status.error());
  return Simulator(input).run();
}

}  // namespace switchyard::simulate
