#include "pool/router.h"

#include <algorithm>

#include "base/log.h"

namespace switchyard::pool {

Router::Router(Options options, InstanceLost instance_lost)
    : options_(std::move(options)), instance_lost_(std::move(instance_lost)) {}

void Router::attach(std::shared_ptr<Channel> channel) {
  const std::lock_guard lock(mutex_);
  channel_ = std::move(channel);
}

Result<RequestId> Router::submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink) {
  auto id = enqueue(std::move(request), std::move(sink));
  notify_lost();
  return id;
}

Result<RequestId> Router::enqueue(GenerationRequest request, std::shared_ptr<GenerationSink> sink) {
  const std::lock_guard lock(mutex_);
  if (down_) return tl::unexpected<Error>(down_reason_);
  const auto model = std::find_if(options_.models.begin(), options_.models.end(),
                                  [&](const ServedModel& served) { return served.id == request.model; });
  if (model == options_.models.end())
    return fail(ErrorCode::not_found, "model '{}' is not served", request.model);
  if (request.prompt.empty()) return fail(ErrorCode::invalid, "the prompt has no tokens");
  if (request.max_tokens == 0) return fail(ErrorCode::invalid, "max_tokens is 0");
  if (request.prompt.size() + request.max_tokens > model->context) {
    return fail(ErrorCode::out_of_range, "{} prompt and {} output tokens are more than the context of {}",
                request.prompt.size(), request.max_tokens, model->context);
  }
  if (requests_.size() >= options_.max_queue) {
    ++rejected_;
    return fail(ErrorCode::exhausted, "{} requests are waiting or running; try again later",
                requests_.size());
  }
  const RequestId id = next_id_++;
  ++submitted_;
  requests_.emplace(id, Request{.wanted = std::move(request), .sink = std::move(sink)});
  waiting_.push_back(id);
  place_waiting();
  return id;
}

void Router::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  const auto request = requests_.find(id);
  if (request == requests_.end()) return;
  if (request->second.placed) {
    const auto instance = instances_.find(request->second.decode);
    if (instance != instances_.end() && instance->second.ready) {
      (void)channel_->send(instance->second.address, static_cast<std::uint8_t>(Cancel::kType),
                           serialize(Cancel{id}));
    }
  }
  end(request, FinishReason::cancelled);
}

void Router::shut_down(const Error& why) {
  const std::lock_guard lock(mutex_);
  down_ = true;
  down_reason_ = why;
  while (!requests_.empty()) end(requests_.begin(), FinishReason::failed, why);
}

void Router::on_message(const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload) {
  {
    const std::lock_guard lock(mutex_);
    switch (static_cast<MessageType>(type)) {
      case MessageType::hello:
        if (auto hello = parse<Hello>(payload)) {
          said_hello(from, *hello);
        } else {
          log::error("{}", hello.error().message);
        }
        break;
      case MessageType::token_batch:
        if (auto batch = parse<TokenBatch>(payload)) {
          took_tokens(from, *batch);
        } else {
          log::error("{}", batch.error().message);
        }
        break;
      case MessageType::stats:
        if (auto stats = parse<Stats>(payload)) {
          if (Instance* instance = find(from)) instance->stats = *std::move(stats);
        } else {
          log::error("{}", stats.error().message);
        }
        break;
      default:
        log::error("the router got a message of type {}", static_cast<int>(type));
    }
  }
  notify_lost();
}

void Router::said_hello(const PeerAddress& from, const Hello& hello) {
  const auto found = instances_.find(hello.name);
  if (found == instances_.end() || found->second.role != hello.role) {
    log::warn("an unknown instance '{}' was refused", hello.name);
    return;
  }
  if (hello.image_hash != options_.models.front().image->hash()) {
    log::error("{} has another model than this server; was the checkpoint changed?", hello.name);
    mark_lost(found->second, "it has another model");
    return;
  }
  Instance& instance = found->second;
  instance.address = from;
  instance.ready = true;
  instance.status.state = "ready";
  instance.status.detail.clear();
  instance.stats = {};
  instance.load = 0;
  changed_.notify_all();
  place_waiting();
}

Status Router::wait_ready(TimePoint deadline) const {
  std::unique_lock lock(mutex_);
  const auto is_ready = [](const auto& entry) { return entry.second.ready; };
  const auto is_hopeless = [](const auto& entry) {
    return !entry.second.ready && entry.second.status.restarts >= kHopeless;
  };
  const bool settled = changed_.wait_until(lock, deadline, [&] {
    return std::all_of(instances_.begin(), instances_.end(), is_ready) ||
           std::any_of(instances_.begin(), instances_.end(), is_hopeless);
  });
  if (settled && std::all_of(instances_.begin(), instances_.end(), is_ready)) return {};
  if (settled) {
    const auto& status = std::find_if(instances_.begin(), instances_.end(), is_hopeless)->second.status;
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

void Router::took_tokens(const PeerAddress& from, const TokenBatch& batch) {
  const Instance* instance = find(from);
  if (instance == nullptr) return;
  for (const TokenBatch::Entry& entry : batch.entries) {
    const auto found = requests_.find(entry.id);
    if (found == requests_.end()) continue;
    Request& request = found->second;
    if (!request.placed || request.attempt != entry.attempt || request.decode != instance->status.name)
      continue;
    for (const model::SampledToken& token : entry.tokens) {
      request.output.push_back(token.token);
      request.failures = 0;
      request.sink->on_token(token);
    }
    switch (entry.outcome) {
      case Outcome::running:
        break;
      case Outcome::end_token:
        end(found, FinishReason::end_token);
        break;
      case Outcome::length:
        end(found, FinishReason::length);
        break;
      case Outcome::failed:
        end(found, FinishReason::failed, entry.error);
        break;
      case Outcome::retry:
        // Whoever the decode instance cannot reach is not to be tried again.
        if (const auto lost = instances_.find(request.prefill);
            entry.error.code == ErrorCode::peer_lost && lost != instances_.end() && lost->second.ready &&
            key_of(lost->second.address) == request.prefill_life) {
          mark_lost(lost->second, entry.error.message);
        }
        retry(found, entry.error);
        break;
    }
  }
  place_waiting();
}

void Router::on_peer_lost(const PeerAddress& peer, const Error& why) {
  {
    const std::lock_guard lock(mutex_);
    if (Instance* instance = find(peer)) {
      mark_lost(*instance, why.message);
      place_waiting();
    }
  }
  notify_lost();
}

void Router::mark_lost(Instance& instance, const std::string& why) {
  if (instance.ready) log::warn("{} is lost: {}", instance.status.name, why);
  instance.ready = false;
  instance.status.state = "restarting";
  instance.status.detail = why;
  instance.stats = {};
  lost_.push_back({instance.status.name, instance.status.process, why});
  strand(instance.status.name, why);
}

void Router::strand(const std::string& instance, const std::string& why) {
  std::vector<RequestId> stranded;
  for (const auto& [id, request] : requests_) {
    if (request.placed && request.decode == instance) stranded.push_back(id);
  }
  // Backwards, since each goes to the front.
  for (auto id = stranded.rbegin(); id != stranded.rend(); ++id) {
    ++requests_.find(*id)->second.deaths;
    retry(requests_.find(*id), {ErrorCode::peer_lost, fmt::format("{} ended: {}", instance, why)});
  }
  // Requests whose prefill was there come back by their decode instance, which holds their blocks.
}

void Router::notify_lost() {
  std::vector<Lost> lost;
  {
    const std::lock_guard lock(mutex_);
    lost.swap(lost_);
  }
  for (const Lost& each : lost) instance_lost_(each.name, each.process, each.why);
}

void Router::instance_changed(const std::string& name, Role role, const std::string& state,
                              const std::string& detail, int process, std::uint64_t restarts) {
  const std::lock_guard lock(mutex_);
  Instance& instance = instances_[name];
  if (instance.ready) strand(name, detail);
  instance.role = role;
  instance.ready = false;
  instance.stats = {};
  instance.status = {.name = name,
                     .role = std::string(to_string(role)),
                     .state = state,
                     .model = options_.models.front().id,
                     .detail = detail,
                     .process = process,
                     .restarts = restarts};
  changed_.notify_all();
}

Router::Instance* Router::find(const PeerAddress& address) {
  for (auto& [name, instance] : instances_) {
    if (instance.ready && key_of(instance.address) == key_of(address)) return &instance;
  }
  return nullptr;
}

Router::Instance* Router::least_loaded(Role role) {
  Instance* best = nullptr;
  for (auto& [name, instance] : instances_) {
    if (instance.ready && instance.role == role && (best == nullptr || instance.load < best->load))
      best = &instance;
  }
  return best;
}

void Router::place_waiting() {
  while (!waiting_.empty()) {
    const auto request = requests_.find(waiting_.front());
    if (request != requests_.end() && !request->second.placed && !place(request->first, request->second))
      return;
    waiting_.pop_front();
  }
}

bool Router::place(RequestId id, Request& request) {
  Instance* decode = least_loaded(Role::decode);
  Instance* prefill = least_loaded(Role::prefill);
  Instance* unified = least_loaded(Role::unified);
  const bool apart = decode != nullptr && prefill != nullptr;
  if (!apart && unified == nullptr) return false;
  const bool take_unified = unified != nullptr && (!apart || unified->load < decode->load);
  Instance& target = take_unified ? *unified : *decode;

  Generate message{.id = id,
                   .attempt = request.attempt + 1,
                   .prompt = request.wanted.prompt,
                   .output = request.output,
                   .sampling = request.wanted.sampling,
                   .max_tokens = request.wanted.max_tokens,
                   .end_tokens = request.wanted.end_tokens};
  if (!take_unified) message.prefill = prefill->address.serialize();
  const auto sent =
      channel_->send(target.address, static_cast<std::uint8_t>(Generate::kType), serialize(message));
  if (!sent) {
    if (sent.error().code == ErrorCode::peer_lost) mark_lost(target, sent.error().message);
    return false;  // full: the next message from an instance tries again
  }
  ++request.attempt;
  request.placed = true;
  request.decode = target.status.name;
  request.prefill = take_unified ? "" : prefill->status.name;
  request.prefill_life = take_unified ? PeerKey{} : key_of(prefill->address);
  ++target.load;
  if (!take_unified) ++prefill->load;
  return true;
}

void Router::unplace(Request& request) {
  if (!request.placed) return;
  for (const std::string& name : {request.decode, request.prefill}) {
    const auto instance = instances_.find(name);
    if (instance != instances_.end() && instance->second.load > 0) --instance->second.load;
  }
  request.placed = false;
}

void Router::retry(Requests::iterator entry, const Error& why) {
  Request& request = entry->second;
  unplace(request);
  ++replays_;
  if (++request.failures > kMaxFailures || request.deaths > kMaxDeaths) {
    return end(
        entry, FinishReason::failed,
        {why.code, fmt::format("given up after {} attempts; the last: {}", request.attempt, why.message)});
  }
  waiting_.push_front(entry->first);
}

void Router::end(Requests::iterator entry, FinishReason reason, Error error) {
  if (reason == FinishReason::failed) {
    ++failed_;
    if (!down_) log::error("request {} failed: {}", entry->first, error.message);
  }
  unplace(entry->second);
  const auto sink = entry->second.sink;
  requests_.erase(entry);
  sink->on_end({reason, std::move(error)});
}

std::vector<InstanceStatus> Router::instances() const {
  const std::lock_guard lock(mutex_);
  std::vector<InstanceStatus> result;
  for (const auto& [name, instance] : instances_) result.push_back(instance.status);
  return result;
}

std::vector<prometheus::MetricFamily> Router::metrics() const {
  using prometheus::ClientMetric;
  using prometheus::MetricType;
  std::map<std::string, prometheus::MetricFamily> families;
  const auto add = [&families](const std::string& name, const std::string& help, bool counter, double value,
                               std::vector<ClientMetric::Label> labels) {
    auto& family = families[name];
    family.name = "switchyard_" + name;
    family.help = help;
    family.type = counter ? MetricType::Counter : MetricType::Gauge;
    ClientMetric metric;
    metric.label = std::move(labels);
    (counter ? metric.counter.value : metric.gauge.value) = value;
    family.metric.push_back(std::move(metric));
  };
  const std::lock_guard lock(mutex_);
  const auto waiting = std::count_if(requests_.begin(), requests_.end(),
                                     [](const auto& entry) { return !entry.second.placed; });
  add("pool_requests_waiting", "Requests that no instance has yet", false, static_cast<double>(waiting), {});
  add("pool_requests_placed", "Requests that an instance has", false,
      static_cast<double>(requests_.size()) - static_cast<double>(waiting), {});
  add("pool_requests_total", "Requests submitted", true, static_cast<double>(submitted_), {});
  add("pool_requests_rejected_total", "Requests refused because the queue was full", true,
      static_cast<double>(rejected_), {});
  add("pool_requests_failed_total", "Requests that failed", true, static_cast<double>(failed_), {});
  add("pool_replays_total", "Times that a request was placed again", true, static_cast<double>(replays_), {});
  for (const auto& [name, instance] : instances_) {
    const std::vector<ClientMetric::Label> labels = {{"instance", name}, {"role", instance.status.role}};
    add("instance_up", "1 if the instance takes requests", false, instance.ready ? 1 : 0, labels);
    add("instance_restarts_total", "Times that the instance was started again", true,
        static_cast<double>(instance.status.restarts), labels);
    for (const Stats::Sample& sample : instance.stats.samples) {
      auto all = labels;
      for (const auto& [label, value] : sample.labels) all.push_back({label, value});
      add("instance_" + sample.name, sample.help, sample.counter, sample.value, std::move(all));
    }
  }
  std::vector<prometheus::MetricFamily> result;
  for (auto& [name, family] : families) result.push_back(std::move(family));
  return result;
}

}  // namespace switchyard::pool
