#include "schedule/slack_policy.h"

#include <algorithm>
#include <cmath>

namespace switchyard::schedule {
namespace {

// A turn is looked at again after this long, not after every step.
constexpr Nanos kCheckInterval = std::chrono::milliseconds(15);
constexpr Nanos kLongestTurn = std::chrono::seconds(2);
constexpr double kFullLoad = 0.9;  // share of an instance's time that decoding may need
constexpr double kSplitGain =
    0.4;  // by how much less another must have to do, for a model to be served by both
constexpr double kLongestLateness = 20;  // seconds; bringing up to date is reckoned to take no longer
constexpr double kShortestService = 1;   // seconds of tokens; a turn is not worth its beginning for less
constexpr double kLongestPatience = 30;  // seconds; later requests press ever harder, so that none starves
constexpr std::uint64_t kSharedTokens =
    8192;  // prompts of one model that are worth a second prefill instance

}  // namespace

void SlackPolicy::population_changed(Moment&) {
  while (pools_.size() < models_.size()) {
    pools_.push_back(std::make_unique<Batch>());
    pools_.back()->model = static_cast<ModelId>(pools_.size() - 1);
  }
  checked_.resize(instances_.size());
  split_ = std::ranges::any_of(
      instances_, [](const auto& instance) { return instance && instance->spec.role == Role::prefill; });
}

// Share of the instance's time that the batch needs to keep up.
double SlackPolicy::share(const Instance& instance, const Batch& batch) const {
  return to_seconds(step_time(instance, batch)) / to_seconds(spec(batch.model).targets.between_tokens);
}

double SlackPolicy::load_of(const Instance& instance) const {
  double sum = 0;
  for (const auto& batch : instance.batches) {
    if (!batch->rows.empty() || !batch->prompts.empty()) sum += share(instance, *batch);
  }
  return sum;
}

// Where the model is decoded already, unless that instance has more to do than time and another has time to
// spare; else where there is least to do. More rows than a step takes share the steps, those due first before
// others: that is where a model goes when there is no other instance for it.
Batch* SlackPolicy::home_of(ModelId model, const Moment&) {
  Instance* best = nullptr;
  double least = 0;
  Batch* joined = nullptr;
  double joined_load = 0;
  Batch* crowded = nullptr;
  double crowded_load = 0;
  for (const auto& instance : instances_) {
    if (!instance || !instance->decodes() || !can_serve(*instance, model)) continue;
    if (!split_ && instance->spec.role != Role::unified) continue;
    const bool failed = has_failed(*instance, model);
    const double load = load_of(*instance);
    bool there = false;
    for (const auto& batch : instance->batches) {
      if (batch->model != model || (batch->rows.empty() && batch->prompts.empty())) continue;
      there = true;
      if (failed) continue;
      if (batch->rows.size() + batch->prompts.size() >= options_.max_rows) {
        if (!crowded || load < crowded_load) {
          crowded = batch.get();
          crowded_load = load;
        }
        continue;
      }
      if (!joined || load < joined_load) {
        joined = batch.get();
        joined_load = load;
      }
    }
    const double price = load - (instance->is_resident(model) ? 0.05 : 0) + (failed ? 1e9 : 0);
    if (!there && (!best || price < least)) {
      best = instance.get();
      least = price;
    }
  }
  if (joined && (!best || joined_load < kFullLoad || least > joined_load - kSplitGain)) return joined;
  if (!best) return joined ? joined : crowded;
  for (const auto& batch : best->batches) {
    if (batch->model == model) return batch.get();
  }
  return &add_batch(*best, model);
}

bool SlackPolicy::place_prompt(Request& request, Moment& m) {
  const ModelId model = request.spec.model;
  if (split_) {
    const auto serves = [&](bool (Instance::*role)() const) {
      return std::ranges::any_of(instances_, [&](const auto& instance) {
        return instance && (instance.get()->*role)() && can_serve(*instance, model);
      });
    };
    if (!serves(&Instance::prefills) || !serves(&Instance::decodes)) return false;
    pools_[model]->prompts.push_back(&request);
    request.prompt_batch = pools_[model].get();
    for (const auto& instance : instances_) {
      if (instance && instance->prefills()) mark(*instance);
    }
    return true;
  }
  Batch* batch = home_of(model, m);
  if (!batch) return false;
  for (const auto& instance : instances_) {
    if (!instance) continue;
    for (const auto& own : instance->batches) {
      if (own.get() != batch) continue;
      add_prompt(*instance, *batch, request);
      return true;
    }
  }
  return false;
}

Batch* SlackPolicy::place_rows(Request& request, Instance&, Moment& m) {
  if (!split_ && request.prompt_batch) return request.prompt_batch;
  return home_of(request.spec.model, m);
}

// Tokens that are lost per second of waiting, weighted by how soon that begins, over the seconds of service.
double SlackPolicy::index(const Instance& instance, const Batch& batch, const Moment& m) const {
  const bool running = instance.batch == &batch;
  double lead = 0;
  if (!instance.is_resident(batch.model)) {
    lead = to_seconds(costs_.load(batch.model, instance.id));
  } else if (!running) {
    lead = to_seconds(costs_.activate(batch.model, instance.id));
  }
  const double scale = to_seconds(options_.look_ahead);
  double pressure = 0;
  double behind = 0;  // seconds of its tokens that a request lacks, of all requests
  double count = 0;
  std::uint64_t prompt_tokens = 0;
  const auto add = [&](const Request& request) {
    const double slack = to_seconds(request.due() - m.now) - lead;
    const double late = std::max(0.0, -slack - kLongestPatience) / kLongestPatience;
    const double impatience = late + late * late * late;
    pressure += request.worth / to_seconds(request.targets.between_tokens) *
                (std::exp(-std::max(0.0, slack) / scale) + impatience);
    // It can lack no more than it still wants.
    const double rest = to_seconds(request.targets.between_tokens) *
                        static_cast<double>(request.spec.max_new_tokens - request.made);
    behind += std::min(to_seconds(options_.ahead) - std::max(slack, -kLongestLateness), rest);
    count += 1;
  };
  for (const Request* prompt : batch.prompts) {
    add(*prompt);
    prompt_tokens += prompt->context();
  }
  for (const Request* row : batch.rows) {
    if (row->phase == Phase::decoding) add(*row);
  }
  if (count == 0) return 0;
  double service = lead;
  if (prompt_tokens > 0) service += to_seconds(costs_.prefill(batch.model, instance.id, prompt_tokens));
  if (!batch.rows.empty()) {
    service += std::max(kShortestService, behind / count) * share(instance, batch);
  }
  return pressure / std::max(service, 1e-4);
}

// Another prefill instance has the model, and can do with these prompts as well.
bool SlackPolicy::claimed(const Instance& instance, const Batch& pool) const {
  if (instance.is_resident(pool.model)) return false;
  std::uint64_t tokens = 0;
  for (const Request* prompt : pool.prompts) tokens += prompt->context();
  if (tokens > kSharedTokens) return false;
  return std::ranges::any_of(instances_, [&](const auto& other) {
    return other && other.get() != &instance && other->spec.role == Role::prefill &&
           (other->loading == pool.model || other->is_resident(pool.model));
  });
}

std::vector<SlackPolicy::Choice> SlackPolicy::candidates(Instance& instance, bool resident, const Moment& m) {
  std::vector<Choice> choices;
  const auto consider = [&](Batch& batch) {
    if (instance.is_resident(batch.model) != resident || !runnable(instance, batch)) return;
    choices.push_back({&batch, index(instance, batch, m)});
  };
  if (instance.spec.role == Role::prefill) {
    for (const auto& pool : pools_) {
      if (!pool->prompts.empty() && !claimed(instance, *pool)) consider(*pool);
    }
  } else {
    for (const auto& batch : instance.batches) {
      if (batch.get() != instance.batch) consider(*batch);
    }
  }
  return choices;
}

SlackPolicy::Choice SlackPolicy::best(Instance& instance, bool resident, const Moment& m) {
  Choice best;
  for (const Choice& choice : candidates(instance, resident, m)) {
    if (!best.batch || choice.index > best.index) best = choice;
  }
  return best;
}

bool SlackPolicy::has_berth_beside(const Instance& instance, ModelId model) const {
  return has_free_berth(instance) || std::ranges::any_of(instance.resident, [&](ModelId other) {
           return other != model && !spec(other).pinned;
         });
}

// Elsewhere a load goes on behind a turn. Where the running model leaves no berth for it, that has to be done
// between two turns, or the others would wait for ever.
void SlackPolicy::give_up_the_only_berth(Instance& instance, Moment& m) {
  const Choice ready = best(instance, true, m);
  if (!ready.batch || instance.loading != kNoModel || has_berth_beside(instance, ready.batch->model)) return;
  const Choice other = best(instance, false, m);
  if (other.batch && other.index > ready.index * options_.hysteresis) load(instance, other.batch->model, m);
}

void SlackPolicy::next_job(Instance& instance, Moment& m) {
  std::erase_if(instance.batches,
                [](const auto& batch) { return batch->rows.empty() && batch->prompts.empty(); });
  give_up_the_only_berth(instance, m);
  std::vector<Choice> ready = candidates(instance, true, m);
  std::stable_sort(ready.begin(), ready.end(),
                   [](const Choice& a, const Choice& b) { return a.index > b.index; });
  bool waits = false;
  for (const Choice& choice : ready) {
    Batch& batch = *choice.batch;
    // While KV of a better one is on its way, only rows that need no room may run.
    const bool away = std::ranges::any_of(batch.rows, [](const Request* row) { return row->kv == kHost; });
    if (waits && (away || !batch.prompts.empty())) continue;
    if (!batch.prompts.empty() && start_prefill(instance, batch, m)) return;
    const TurnStart start = start_turn(instance, batch, m.now + kLongestTurn, m);
    if (start == TurnStart::begun) return;
    waits = waits || start == TurnStart::coming;
  }
  const Choice other = best(instance, false, m);
  if (other.batch) load(instance, other.batch->model, m, waits ? ready.front().batch->model : kNoModel);
}

void SlackPolicy::prepare_next(Instance& instance, Moment& m) {
  if (instance.idle()) return;
  const Choice ready = best(instance, true, m);
  const Choice other = best(instance, false, m);
  if (ready.batch) fetch_rows(instance, *ready.batch, m);
  if (!other.batch || instance.loading != kNoModel) return;
  if (ready.batch && ready.index >= other.index) return;
  load(instance, other.batch->model, m);
}

void SlackPolicy::after_step(Instance& instance, Moment& m) {
  if (!instance.batch->prompts.empty()) return stop(instance, m);
  if (m.now < checked_[instance.id] + kCheckInterval) return;
  checked_[instance.id] = m.now;
  const Choice ready = best(instance, true, m);
  if (ready.batch && ready.index > index(instance, *instance.batch, m) * options_.hysteresis) {
    stop(instance, m);
  } else if (instance.loading == kNoModel) {
    prepare_next(instance, m);
  }
}

double SlackPolicy::keep_value(const Instance& instance, ModelId model, const Moment& m) const {
  double value = 0;
  for (const auto& batch : instance.batches) {
    if (batch->model == model) value = std::max(value, index(instance, *batch, m));
  }
  if (instance.spec.role == Role::prefill) value = index(instance, *pools_[model], m);
  return value;
}

double SlackPolicy::expected_in_time(const RequestSpec& request, const Moment&) const {
  double best = 0;
  for (const auto& instance : instances_) {
    if (!instance || !instance->decodes() || !can_serve(*instance, request.model)) continue;
    bool there = false;
    for (const auto& batch : instance->batches) {
      there = there || (batch->model == request.model && !(batch->rows.empty() && batch->prompts.empty()));
    }
    double load = load_of(*instance);
    if (!there) {
      load += to_seconds(costs_.step(request.model, instance->id, 1, request.prompt_tokens)) /
              to_seconds(spec(request.model).targets.between_tokens);
    }
    const double in_time = std::min(1.0, 1 / std::max(load, 1e-9));
    if (there) return in_time;
    best = std::max(best, in_time);
  }
  return best;
}

}  // namespace switchyard::schedule
