// What a policy asks for, carried out in numbers; complains where no machine could do it.
#include <algorithm>

#include "simulate/simulator_impl.h"

namespace switchyard::simulate {

using namespace schedule;

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

void Simulator::apply(const DropKv& action) {
  SimRequest& request = requests_[action.request];
  if (request.moving_to != kNowhere) hold(request.moving_to, action.request, -1);
  if (request.kv != kNowhere) hold(request.kv, action.request, -1);
  request.kv = request.moving_to = kNowhere;
  ++request.version;
}

}  // namespace switchyard::simulate
