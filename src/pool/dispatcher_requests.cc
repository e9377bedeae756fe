// Requests: how they come in, what they get, how they end.
#include <algorithm>

#include "base/log.h"
#include "pool/dispatcher.h"

namespace switchyard::pool {
namespace {

tl::unexpected<Refusal> refuse(Error error, Nanos retry_after = {}) {
  return tl::unexpected(Refusal{std::move(error), retry_after, {}});
}

template <class... A>
Error error(ErrorCode code, fmt::format_string<A...> text, A&&... values) {
  return {code, fmt::format(text, std::forward<A>(values)...)};
}

constexpr Nanos kWhenFull = std::chrono::seconds(1);

}  // namespace

tl::expected<RequestId, Refusal> Dispatcher::submit(GenerationRequest request,
                                                    std::shared_ptr<GenerationSink> sink) {
  tl::expected<RequestId, Refusal> id;
  {
    const std::lock_guard lock(mutex_);
    id = enqueue(std::move(request), std::move(sink));
  }
  notify_lost();
  return id;
}

tl::expected<RequestId, Refusal> Dispatcher::enqueue(GenerationRequest request,
                                                     std::shared_ptr<GenerationSink> sink) {
  if (down_) return refuse(down_reason_);
  Model* model = find_model(request.model);
  if (model == nullptr || model->state == ModelState::removing)
    return refuse(error(ErrorCode::not_found, "model '{}' is not served", request.model));
  const TimePoint now = monotonic_now();
  if (model->state == ModelState::failed && !model->permanent && now >= model->retry_at) try_again(*model);
  if (model->state != ModelState::ready) {
    const bool hopeless = model->state == ModelState::failed && model->permanent;
    const Nanos retry = hopeless ? Nanos{} : std::max<Nanos>(model->retry_at - now, kWhenFull);
    return refuse(error(ErrorCode::unsupported, "model '{}' cannot be used now: {}", request.model,
                        model->detail.empty() ? "it is being prepared" : model->detail),
                  retry);
  }
  if (request.prompt.empty()) return refuse(error(ErrorCode::invalid, "the prompt has no tokens"));
  if (request.max_tokens == 0) return refuse(error(ErrorCode::invalid, "max_tokens is 0"));
  if (request.prompt.size() + request.max_tokens > model->context) {
    return refuse(error(ErrorCode::out_of_range,
                        "{} prompt and {} output tokens are more than the context of {}",
                        request.prompt.size(), request.max_tokens, model->context));
  }
  if (requests_.size() >= options_.max_queue) {
    ++rejected_;
    ++model->shed;
    return refuse(
        error(ErrorCode::exhausted, "{} requests are waiting or running; try again later", requests_.size()),
        kWhenFull);
  }
  const RequestId id = next_request_++;
  const auto entry = requests_
                         .emplace(id, Request{.id = id,
                                              .wanted = std::move(request),
                                              .sink = std::move(sink),
                                              .model = model->id,
                                              .arrival = now})
                         .first;
  ++model->waiting;
  refusal_.reset();
  submitting_ = id;
  admit(entry->second);
  settle();
  submitting_ = 0;
  if (refusal_) {
    ++rejected_;
    ++model->shed;
    return tl::unexpected(*std::exchange(refusal_, std::nullopt));
  }
  ++submitted_;
  ++model->requests;
  return id;
}

void Dispatcher::admit(Request& request) {
  bool prefills = false, decodes = false;
  for (const auto& [name, instance] : instances_) {
    if (!instance.ready) continue;
    prefills = prefills || instance.role != schedule::Role::decode;
    decodes = decodes || instance.role != schedule::Role::prefill;
  }
  if (!prefills || !decodes) {
    unsent_.push_back(request.id);  // until instances are there again
    return;
  }
  policy_->arrived({.id = request.id,
                    .model = request.model,
                    .key = request.wanted.client,
                    .metered = request.wanted.metered,
                    .prompt_tokens = static_cast<std::uint32_t>(request.wanted.prompt.size()),
                    .max_new_tokens = request.wanted.max_tokens,
                    .arrival = request.arrival},
                   monotonic_now(), actions_);
}

void Dispatcher::carry_out(const schedule::Admit& action) {
  const auto entry = requests_.find(action.request);
  if (entry != requests_.end()) entry->second.admitted = true;
}

void Dispatcher::carry_out(const schedule::Shed& action) {
  const auto entry = requests_.find(action.request);
  if (entry == requests_.end()) return;
  const Model& model = *models_[entry->second.model];
  Error why = error(ErrorCode::exhausted, "model '{}': {}; try again later", model.settings.id,
                    schedule::to_string(action.reason));
  if (action.reason == schedule::ShedReason::too_large) {
    why = error(ErrorCode::out_of_range, "the request does not fit the KV memory of an instance");
  }
  // Its submission was answered already if it had to wait for instances.
  if (action.request != submitting_) return forget(entry, FinishReason::failed, std::move(why));
  refusal_ = Refusal{.error = std::move(why), .retry_after = action.retry_after, .shed = action.reason};
  --models_[entry->second.model]->waiting;
  requests_.erase(entry);
}

void Dispatcher::take_token(Request& request, const model::SampledToken& token, TimePoint now) {
  Model& model = *models_[request.model];
  if (request.output.empty()) {
    --model.waiting;
    ++model.running;
  }
  const auto& targets = model.settings.targets;
  const auto made = static_cast<std::int64_t>(request.output.size());
  ++model.tokens;
  if (now <= request.arrival + targets.first_token + made * targets.between_tokens) ++model.tokens_in_time;
  request.output.push_back(token.token);
  request.failures = 0;
  request.sink->on_token(token);
}

void Dispatcher::cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    const auto entry = requests_.find(id);
    if (entry == requests_.end()) return;
    end(entry, FinishReason::cancelled);
    settle();
  }
  notify_lost();
}

void Dispatcher::end(Requests::iterator entry, FinishReason reason, Error error) {
  Request& request = entry->second;
  if (request.admitted) {
    depart(request, true);
  } else {
    std::erase(unsent_, request.id);
  }
  forget(entry, reason, std::move(error));
}

void Dispatcher::forget(Requests::iterator entry, FinishReason reason, Error error) {
  Model& model = *models_[entry->second.model];
  --(entry->second.output.empty() ? model.waiting : model.running);
  if (reason == FinishReason::failed) {
    ++failed_;
    ++model.failed;
    if (!down_) log::error("request {} of '{}' failed: {}", entry->first, model.settings.id, error.message);
  }
  const auto sink = entry->second.sink;
  requests_.erase(entry);
  sink->on_end({reason, std::move(error)});
  remove_if_idle(model);
}

void Dispatcher::attempt_failed(RequestId id, const Error& why, bool death) {
  const auto entry = requests_.find(id);
  if (entry == requests_.end()) return;
  Request& request = entry->second;
  ++replays_;
  if (death) ++request.deaths;
  if (++request.failures <= kMaxFailures && request.deaths <= kMaxDeaths) return;
  later_.push_back([this, id, why] {
    const auto found = requests_.find(id);
    if (found == requests_.end()) return;
    end(found, FinishReason::failed,
        error(why.code, "given up after {} attempts; the last: {}", found->second.attempt, why.message));
  });
}

void Dispatcher::fail_requests(ModelId model, const Error& why) {
  std::vector<RequestId> concerned;
  for (const auto& [id, request] : requests_) {
    if (request.model == model && request.holders.empty()) concerned.push_back(id);
  }
  for (const RequestId id : concerned) end(requests_.find(id), FinishReason::failed, why);
}

void Dispatcher::shut_down(const Error& why) {
  const std::lock_guard lock(mutex_);
  down_ = true;
  down_reason_ = why;
  while (!requests_.empty()) forget(requests_.begin(), FinishReason::failed, why);
  if (trace_) trace_->flush();
}

}  // namespace switchyard::pool
