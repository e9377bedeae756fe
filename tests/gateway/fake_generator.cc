#include "gateway/fake_generator.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "gateway/toy_text.h"

namespace switchyard::gateway::testing {
namespace {

constexpr std::uint32_t kContext = 2048;

FakePlan default_plan(const pool::GenerationRequest& request) {
  std::string prompt;
  for (const auto token : request.prompt) prompt += token < 256 ? toy_bytes(token) : "";
  FakePlan plan;
  if (const auto say = prompt.rfind("say "); say != std::string::npos) {
    plan.tokens = byte_tokens(prompt.substr(say + 4));
  } else if (prompt.ends_with("seed")) {
    plan.tokens = byte_tokens(std::to_string(request.sampling.seed));
  } else {
    plan.tokens = {kToyHello, kToyWorld};
  }
  return plan;
}

model::SampledToken sampled(const pool::GenerationRequest& request, std::int32_t token,
                            std::size_t position) {
  model::SampledToken made;
  made.token = token;
  if (!request.sampling.logprobs) return made;
  made.logprob = -0.5f * static_cast<float>(position + 1);
  for (std::uint32_t i = 0; i < request.sampling.top_logprobs; ++i) {
    made.top.push_back({token + static_cast<std::int32_t>(i), made.logprob - static_cast<float>(i)});
  }
  return made;
}

}  // namespace

FakeGenerator::FakeGenerator(Planner planner) : planner_(planner ? std::move(planner) : default_plan) {
  models_.push_back({"toy", nullptr, kContext, 1700000000});
  models_.push_back({"org/other", nullptr, kContext, 1700000001});
  thread_ = std::thread([this] { run(); });
}

FakeGenerator::~FakeGenerator() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

tl::expected<pool::RequestId, pool::Refusal> FakeGenerator::submit(
    pool::GenerationRequest request, std::shared_ptr<pool::GenerationSink> sink) {
  std::lock_guard lock(mutex_);
  if (refusal_) return tl::unexpected(*refusal_);
  const bool served = std::any_of(models_.begin(), models_.end(), [&](const auto& model) {
    return model.id == request.model && model.state == pool::ModelState::ready;
  });
  if (!served) return tl::unexpected(pool::Refusal{{ErrorCode::not_found, "no such model"}, {}, {}});
  auto running = std::make_shared<Running>();
  running->plan = planner_(request);
  running->request = std::move(request);
  running->sink = std::move(sink);
  requests_.push_back(running->request);
  running_.emplace(next_, std::move(running));
  ++submitted_;
  active_ = running_.size();
  wake_.notify_all();
  changed_.notify_all();
  return next_++;
}

void FakeGenerator::cancel(pool::RequestId id) {
  std::lock_guard lock(mutex_);
  const auto found = running_.find(id);
  if (found == running_.end() || std::exchange(found->second->cancelled, true)) return;
  ++cancelled_;
  wake_.notify_all();
  changed_.notify_all();
}

FakeGenerator::Event FakeGenerator::next_event(const Running& running) {
  const FakePlan& plan = running.plan;
  Event event;
  if (running.cancelled) {
    event.end = {pool::FinishReason::cancelled, {}};
  } else if (plan.fail_after && running.made == *plan.fail_after) {
    event.end = {pool::FinishReason::failed, plan.failure};
  } else if (running.made == running.request.max_tokens) {
    event.end = {pool::FinishReason::length, {}};
  } else if (plan.hold_after && running.made >= *plan.hold_after && !running.released) {
    // waits
  } else if (!plan.endless && running.made >= plan.tokens.size()) {
    event.end = {pool::FinishReason::end_token, {}};
  } else {
    const std::int32_t token = plan.tokens[running.made % plan.tokens.size()];
    const auto& ends = running.request.end_tokens;
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
      event.end = {pool::FinishReason::end_token, {}};
    } else {
      event.token = sampled(running.request, token, running.made);
    }
  }
  return event;
}

void FakeGenerator::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    bool moved = false;
    const auto now = running_;
    for (const auto& [id, running] : now) {
      const Event event = next_event(*running);
      if (!event.token && !event.end) continue;
      moved = true;
      if (event.end) running_.erase(id);
      if (event.token) ++running->made;
      lock.unlock();
      if (event.token) running->sink->on_token(*event.token);
      if (event.end) running->sink->on_end(*event.end);
      lock.lock();
      if (event.token) ++tokens_made_;
      active_ = running_.size();
    }
    changed_.notify_all();
    if (!moved && !stop_ && running_.size() == now.size()) wake_.wait(lock);
  }
}

std::vector<pool::InstanceStatus> FakeGenerator::instances() const {
  std::lock_guard lock(mutex_);
  return {{"unified-0", "unified", state_, "", state_ == "ready" ? "" : "being restarted", 4711, 2}};
}

std::vector<prometheus::MetricFamily> FakeGenerator::metrics() const {
  prometheus::MetricFamily family;
  family.name = "switchyard_pool_fake";
  family.help = "A number of the fake pool";
  family.type = prometheus::MetricType::Gauge;
  family.metric.emplace_back();
  family.metric.back().gauge.value = 42;
  return {family};
}

void FakeGenerator::release() {
  std::lock_guard lock(mutex_);
  for (auto& [id, running] : running_) running->released = true;
  wake_.notify_all();
}

void FakeGenerator::refuse_with(std::optional<pool::Refusal> refusal) {
  std::lock_guard lock(mutex_);
  refusal_ = std::move(refusal);
}

std::vector<pool::ServedModel> FakeGenerator::models() const {
  std::lock_guard lock(mutex_);
  return models_;
}

void FakeGenerator::change_models(const std::function<void(std::vector<pool::ServedModel>&)>& change) {
  std::lock_guard lock(mutex_);
  change(models_);
  ++version_;
}

void FakeGenerator::set_model(const std::string& id, pool::ModelState state, std::string detail,
                              Nanos retry_after) {
  change_models([&](std::vector<pool::ServedModel>& models) {
    for (auto& model : models) {
      if (model.id != id) continue;
      model.state = state;
      model.detail = detail;
      model.retry_after = retry_after;
    }
  });
}

void FakeGenerator::set_state(std::string state) {
  std::lock_guard lock(mutex_);
  state_ = std::move(state);
}

std::vector<pool::GenerationRequest> FakeGenerator::requests() const {
  std::lock_guard lock(mutex_);
  return requests_;
}

bool FakeGenerator::wait_until(const std::function<bool(const FakeGenerator&)>& condition) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return condition(*this); });
}

}  // namespace switchyard::gateway::testing
