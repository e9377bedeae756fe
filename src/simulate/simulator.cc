#include "simulate/simulator.h"

#include <algorithm>
#include <cmath>

#include "simulate/cluster_state.h"

namespace switchyard::simulate {
namespace {

using namespace schedule;

constexpr std::size_t kMaxViolations = 20;
constexpr double kBucketSeconds = 10;
constexpr std::size_t kMaxBuckets = 100'000;
// KV that crosses while it is made is late by one layer's share, and a message.
constexpr Nanos kHandOverTail = std::chrono::milliseconds(1);

class Simulator {
 public:
  explicit Simulator(const SimulationInput& input)
      : input_(input), costs_(input.models, input.cluster), requests_(input.workload.requests.size()) {}

  Result<SimulationResult> run();

 private:
  Status start();
  void dispatch(const Event& event);
  void act();
  void apply(const Admit&) {}
  void apply(const Shed& action) { requests_[action.request].shed = true; }
  void apply(const Load& action);
  void apply(const RunPrefill& action);
  void apply(const RunDecode& action);
  void apply(const Join& action);
  void apply(const Stop& action) { instances_[action.instance].stop = true; }
  void apply(const MoveKv& action);
  void apply(const DropKv& action);

  void prefill_done(InstanceId id);
  void step_done(InstanceId id);
  void end_turn(InstanceId id);
  void begin_step(InstanceId id, Nanos begin);
  void kv_done(RequestId id);
  void cancel(RequestId id);
  void cancel_if_quiet(RequestId id);
  void fail(const Failure& failure);
  Nanos begin_job(InstanceId id, ModelId model);
  void make_token(RequestId id);
  void end(RequestId id);
  void hold(InstanceId place, RequestId id, std::int64_t sign);
  std::uint64_t kv_bytes(RequestId id) const;
  void lane(InstanceId id, ModelId model, LaneKind kind, Nanos begin, Nanos end);
  void complain(std::string text);
  void summarize();

  const WorkloadRequest& asked(RequestId id) const { return input_.workload.requests[id]; }
  const ModelSpec& spec(ModelId model) const { return input_.models[model].spec; }

  const SimulationInput& input_;
  SimulatedCosts costs_;
  EventQueue queue_;
  std::unique_ptr<Policy> policy_;
  std::vector<SimInstance> instances_;
  std::vector<SimRequest> requests_;
  std::vector<InstanceSpec> specs_up_;  // of instances that are going to be started again
  std::vector<std::uint64_t> due_, met_;
  Actions actions_, batch_;
  std::vector<Progress> progress_;
  Nanos now_{};
  Nanos last_end_{};
  Nanos wake_{Nanos::max()};
  double busy_ = 0;
  std::uint64_t host_kv_ = 0;
  SimulationResult result_;
};

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
    if (const auto wake = policy_->next_wake()) {
      const Nanos time = std::max(wake->time_since_epoch(), now_);
      if (time < wake_ || wake_ <= now_) {
        wake_ = time;
        queue_.push(time, EventKind::wake, 0);
      }
    }
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
    case EventKind::wake:
      wake_ = Nanos::max();
      policy_->wake(at(now_), actions_);
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

void Simulator::apply(const Load& action) {
  SimInstance& instance = instances_[action.instance];
  if (instance.loading != kNoModel) complain("two loads at once");
  if (action.evict != kNoModel) {
    if (instance.running && instance.model == action.evict) complain("a model is evicted while it runs");
    if (std::erase(instance.resident, action.evict) == 0) complain("a model is evicted that is not there");
    if (instance.active == action.evict) instance.active = kNoModel;
  }
  std::uint64_t bytes = spec(action.model).weight_bytes;
  for (const ModelId model : instance.resident) bytes += spec(model).weight_bytes;
  if (bytes > instance.spec.berths * instance.spec.berth_bytes ||
      (input_.policy != PolicyKind::fixed && instance.resident.size() + 1 > instance.spec.berths)) {
    complain("more models than berths");
  }
  instance.loading = action.model;
  instance.load_begin = now_;
  instance.load_end = std::max(now_, instance.in_free) + costs_.transfer(spec(action.model).weight_bytes);
  ++result_.loads;
  queue_.push(instance.load_end, EventKind::load_done, action.instance, ++instance.load_version);
}

// When the first step can begin: a switch costs what it waited for, and the activation.
Nanos Simulator::begin_job(InstanceId id, ModelId model) {
  SimInstance& instance = instances_[id];
  if (instance.running) complain("two jobs at once");
  if (std::find(instance.resident.begin(), instance.resident.end(), model) == instance.resident.end()) {
    complain("a job for a model that is not resident");
  }
  instance.running = true;
  instance.stop = false;
  instance.model = model;
  instance.job_begin = now_;
  // Models that stay where they are keep all they need beside each other.
  if (instance.active == model || input_.policy == PolicyKind::fixed) return now_;
  instance.active = model;
  Nanos lost = input_.cluster.activate;
  if (instance.loaded == model && instance.loaded_end == now_) {
    lost += now_ - std::max(instance.job_end, instance.loaded_begin);
  }
  ++result_.switches;
  result_.switch_seconds.push_back(to_seconds(lost));
  return now_ + input_.cluster.activate;
}

void Simulator::apply(const RunPrefill& action) {
  SimInstance& instance = instances_[action.instance];
  const Nanos begin = begin_job(action.instance, action.model);
  instance.decoding = false;
  instance.rows.clear();
  std::uint64_t tokens = 0;
  for (const Prompt& prompt : action.prompts) tokens += prompt.tokens;
  const Nanos end = begin + costs_.prefill(action.model, action.instance, tokens);
  for (const Prompt& prompt : action.prompts) {
    SimRequest& request = requests_[prompt.request];
    if (request.kv != kNowhere || request.ended || request.cancelled)
      complain("a prefill of a request that has its KV");
    if (prompt.tokens != asked(prompt.request).input_tokens + request.made)
      complain("a prefill of the wrong length");
    if (asked(prompt.request).model != action.model) complain("a prefill with the wrong model");
    if (request.started) ++result_.replayed;
    request.started = true;
    request.prefilling = true;
    request.kv = action.instance;
    hold(request.kv, prompt.request, 1);
    if (prompt.to != action.instance) {
      request.moving_to = prompt.to;
      hold(prompt.to, prompt.request, 1);
      request.move_end = std::max(end, begin + costs_.transfer(kv_bytes(prompt.request))) + kHandOverTail;
      ++request.version;
      result_.kv_bytes_moved += kv_bytes(prompt.request);
    }
    instance.rows.push_back(prompt.request);
  }
  instance.step_begin = begin;
  queue_.push(end, EventKind::prefill_done, action.instance, ++instance.version);
}

void Simulator::apply(const RunDecode& action) {
  SimInstance& instance = instances_[action.instance];
  const Nanos begin = begin_job(action.instance, action.model);
  instance.decoding = true;
  instance.rows.clear();
  instance.until = action.until;
  for (const RequestId row : action.rows) {
    const SimRequest& request = requests_[row];
    if (request.kv != action.instance || request.moving_to != kNowhere || request.ended ||
        request.prefilling || asked(row).model != action.model) {
      complain("a decode step with a row that is not ready");
    }
    instance.rows.push_back(row);
  }
  ++instance.version;
  begin_step(action.instance, begin);
}

void Simulator::apply(const Join& action) {
  SimInstance& instance = instances_[action.instance];
  if (!instance.running || !instance.decoding || requests_[action.request].kv != action.instance) {
    complain("a row joins a turn where it cannot");
  }
  instance.rows.push_back(action.request);
}

void Simulator::begin_step(InstanceId id, Nanos begin) {
  SimInstance& instance = instances_[id];
  std::uint64_t context = 0;
  for (const RequestId row : instance.rows) context += asked(row).input_tokens + requests_[row].made;
  instance.step_begin = begin;
  const auto rows = static_cast<std::uint32_t>(instance.rows.size());
  queue_.push(begin + costs_.step(instance.model, id, rows, context), EventKind::step_done, id,
              instance.version);
  ++result_.steps;
  instance.step_rows = rows;  // those that join wait for the next step
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

void Simulator::apply(const MoveKv& action) {
  SimRequest& request = requests_[action.request];
  if (request.kv != action.from || request.moving_to != kNowhere) complain("KV moves from where it is not");
  for (const SimInstance& instance : instances_) {
    if (instance.running &&
        std::find(instance.rows.begin(), instance.rows.end(), action.request) != instance.rows.end()) {
      complain("KV moves while its row runs");
    }
  }
  const std::uint64_t bytes = kv_bytes(action.request);
  const Nanos time = costs_.transfer(bytes);
  Nanos begin = now_;
  if (action.from < kHost) begin = std::max(begin, instances_[action.from].out_free);
  if (action.to < kHost) begin = std::max(begin, instances_[action.to].in_free);
  const Nanos end = begin + time;
  if (action.from < kHost) instances_[action.from].out_free = end;
  if (action.to < kHost) {
    SimInstance& instance = instances_[action.to];
    instance.in_free = end;
    // KV goes before weights that are on their way.
    if (instance.loading != kNoModel) instance.load_end += time;
  }
  request.moving_to = action.to;
  hold(action.to, action.request, 1);
  ++result_.kv_moves;
  result_.kv_bytes_moved += bytes;
  queue_.push(end, EventKind::kv_done, action.request, ++request.version);
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

void Simulator::apply(const DropKv& action) {
  SimRequest& request = requests_[action.request];
  if (request.moving_to != kNowhere) hold(request.moving_to, action.request, -1);
  if (request.kv != kNowhere) hold(request.kv, action.request, -1);
  request.kv = request.moving_to = kNowhere;
  ++request.version;
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
  const Targets& targets = spec(order.model).targets;
  const Nanos due = order.time + targets.first_token + request.made * targets.between_tokens;
  const auto bucket = std::min(static_cast<std::size_t>(to_seconds(due) / kBucketSeconds), kMaxBuckets - 1);
  if (bucket >= due_.size()) {
    due_.resize(bucket + 1);
    met_.resize(bucket + 1);
  }
  ++due_[bucket];
  if (now_ <= due) {
    ++request.in_time;
    ++met_[bucket];
  }
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

void Simulator::summarize() {
  result_.models.resize(input_.models.size());
  for (RequestId id = 0; id < requests_.size(); ++id) {
    const SimRequest& request = requests_[id];
    if (request.cancelled) continue;
    ModelOutcome& outcome = result_.models[asked(id).model];
    const std::uint32_t tokens = asked(id).output_tokens;
    ++outcome.requests;
    outcome.tokens += tokens;
    outcome.shed += request.shed;
    outcome.ended += request.ended;
    outcome.in_time += request.in_time;
    outcome.strict += request.in_time == tokens;
    outcome.good += request.in_time * 10ull >= tokens * 9ull;
    if (!request.shed && !request.ended) ++result_.unfinished;
  }
  for (const ModelOutcome& outcome : result_.models) {
    ModelOutcome& total = result_.total;
    total.requests += outcome.requests;
    total.tokens += outcome.tokens;
    total.shed += outcome.shed;
    total.ended += outcome.ended;
    total.in_time += outcome.in_time;
    total.strict += outcome.strict;
    total.good += outcome.good;
  }
  result_.seconds = to_seconds(last_end_);
  const double span = input_.workload.seconds() * static_cast<double>(instances_.size());
  result_.busy = span > 0 ? busy_ / span : 0;
  for (std::size_t i = 0; i < due_.size(); ++i) {
    result_.attainment_by_10s.push_back(
        due_[i] == 0 ? 1 : static_cast<double>(met_[i]) / static_cast<double>(due_[i]));
  }
}

Status check(const SimulationInput& input) {
  const Cluster& cluster = input.cluster;
  const std::uint64_t instances = std::uint64_t{cluster.prefill} + cluster.decode + cluster.unified;
  if (instances == 0 || instances > 10'000) {
    return fail(ErrorCode::invalid, "{} instances cannot be simulated (1 to 10000)", instances);
  }
  if ((cluster.prefill == 0) != (cluster.decode == 0)) {
    return fail(ErrorCode::invalid, "prefill and decode instances need each other; or use unified ones");
  }
  if (cluster.prefill > 0 && cluster.unified > 0) {
    return fail(ErrorCode::invalid, "a pool has prefill and decode instances or unified ones, not both");
  }
  if (!(cluster.link_bytes_per_second > 0) || cluster.activate < Nanos{}) {
    return fail(ErrorCode::invalid, "the link between host and instance needs a rate above zero");
  }
  if (input.models.size() != input.workload.models.size()) {
    return fail(ErrorCode::invalid, "{} models are described, the workload has {}", input.models.size(),
                input.workload.models.size());
  }
  for (const SimulatedModel& model : input.models) {
    if (model.spec.weight_bytes > cluster.berth_bytes) {
      return fail(ErrorCode::invalid, "model '{}' has {} bytes, a berth {}: give instances larger berths",
                  model.spec.name, model.spec.weight_bytes, cluster.berth_bytes);
    }
  }
  if (input.workload.requests.empty()) return fail(ErrorCode::invalid, "the workload has no requests");
  for (const Cancellation& cancellation : input.cancellations) {
    if (cancellation.request >= input.workload.requests.size()) {
      return fail(ErrorCode::invalid, "request {} is cancelled, but there is none", cancellation.request);
    }
  }
  return {};
}

}  // namespace

double SimulationResult::attainment() const {
  return total.tokens == 0 ? 1 : static_cast<double>(total.in_time) / static_cast<double>(total.tokens);
}

double SimulationResult::strict_attainment() const {
  return total.requests == 0 ? 1 : static_cast<double>(total.strict) / static_cast<double>(total.requests);
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto rank =
      std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(rank), values.end());
  return values[rank];
}

Result<SimulationResult> simulate(const SimulationInput& input) {
  if (const Status status = check(input); !status) return pass(status.error());
  return Simulator(input).run();
}

}  // namespace switchyard::simulate
