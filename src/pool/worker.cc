#include "pool/worker.h"

#include <algorithm>

#include "base/log.h"
#include "pool/decode_job.h"
#include "pool/engine_stats.h"
#include "pool/prefill_job.h"

namespace switchyard::pool {

Result<std::unique_ptr<Worker>> Worker::create(WorkerParts parts) {
  auto worker = std::unique_ptr<Worker>(new Worker(std::move(parts)));
  BerthParts berth_parts = worker->parts_.berths;
  berth_parts.post = [self = worker.get()](Event event) { self->mailbox_.put_always(std::move(event)); };
  auto berths = Berths::create(std::move(berth_parts));
  if (!berths) return pass(berths.error());
  worker->berths_ = *std::move(berths);
  return worker;
}

Worker::Worker(WorkerParts parts)
    : parts_(std::move(parts)),
      outbox_([this](OrderType type, std::span<const std::byte> payload) {
        return parts_.channel.send(parts_.dispatcher, static_cast<std::uint8_t>(type), payload);
      }),
      // News of this worker's own operations are never refused, since their number is bounded.
      requests_(parts_.memory, outbox_, [this](Event event) { mailbox_.put_always(std::move(event)); }),
      traffic_(parts_.engine, parts_.memory, requests_, outbox_, parts_.limits,
               [this](Event event) { mailbox_.put_always(std::move(event)); }) {}

void Worker::run() {
  bool more = false;
  while (!stopping_) {
    const auto events = mailbox_.take_all(more ? TimePoint::min() : next_wake());
    // The last step of all changes the numbers, too, though nothing is left to do after it.
    if (more || !events.empty()) report_wanted_ = true;
    for (const Event& event : events) event();
    more = work();
    report_if_due();
  }
}

void Worker::stop() {
  mailbox_.put_always([this] { stopping_ = true; });
}

void Worker::handle(const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload) {
  if (key_of(from) != key_of(parts_.dispatcher)) {
    return log::warn("an order of type {} from {}:{} was refused: it is not the dispatcher", type,
                     from.control_host, from.control_port);
  }
  Event event = [this, type, bytes = std::vector(payload.begin(), payload.end())] {
    take_order(static_cast<OrderType>(type), bytes);
  };
  if (!mailbox_.put(std::move(event))) {
    log::error("an order of type {} was dropped: {} others wait for this instance", type, kMaxEvents);
  }
}

void Worker::peer_lost(const PeerAddress& peer, const Error& why) {
  mailbox_.put_always([this, peer, why] { traffic_.peer_lost(peer, why); });
}

template <class M, class F>
void Worker::with(std::span<const std::byte> payload, F&& call) {
  auto order = parse<M>(payload);
  if (!order) return log::error("{}", order.error().message);
  call(*std::move(order));
}

void Worker::take_order(OrderType type, std::span<const std::byte> payload) {
  const JobParts parts{requests_, traffic_, *berths_, outbox_, parts_.limits};
  switch (type) {
    case OrderType::welcome:
      return with<Welcome>(payload, [this](const Welcome& order) { traffic_.welcome(order); });
    case OrderType::load_model:
      return with<LoadModel>(payload, [this](const LoadModel& order) { load(order); });
    case OrderType::evict_model:
      return with<EvictModel>(payload, [this](const EvictModel& order) { evict(order); });
    case OrderType::introduce:
      return with<Introduce>(payload, [this](Introduce order) { requests_.introduce(std::move(order)); });
    case OrderType::expect:
      return with<Expect>(payload, [this](const Expect& order) { traffic_.expect(order); });
    case OrderType::run_prefill:
      return with<RunPrefill>(payload, [this, &parts](RunPrefill order) {
        begin(std::make_unique<PrefillJob>(parts, counts_, std::move(order)));
      });
    case OrderType::run_decode:
      return with<RunDecode>(payload, [this, &parts](const RunDecode& order) {
        begin(std::make_unique<DecodeJob>(parts, counts_, order));
      });
    case OrderType::join:
      return with<Join>(payload, [this](const Join& order) { join(order); });
    case OrderType::stop_job:
      return with<StopJob>(payload, [this](const StopJob& order) {
        for (const auto& job : jobs_) {
          if (job->id() == order.job) job->stop();
        }
      });
    case OrderType::move_out:
      return with<MoveOut>(payload, [this](const MoveOut& order) { traffic_.move_out(order); });
    case OrderType::move_in:
      return with<MoveIn>(payload, [this](const MoveIn& order) { traffic_.move_in(order); });
    case OrderType::push_kv:
      return with<PushKv>(payload, [this](const PushKv& order) { traffic_.push(order); });
    case OrderType::release:
      return with<Release>(payload, [this](const Release& order) { requests_.release(order); });
    default:
      log::error("an instance got a message of type {}", static_cast<int>(type));
  }
}

bool Worker::in_use(ModelId model) const {
  return std::any_of(jobs_.begin(), jobs_.end(), [model](const auto& job) { return job->model() == model; });
}

void Worker::load(const LoadModel& order) {
  berths_->load(order, [this](const Loaded& loaded) { outbox_.report(loaded); });
}

void Worker::evict(const EvictModel& order) {
  if (in_use(order.model)) return log::error("model {} was to leave while it runs", order.model);
  berths_->evict(order.model);
  requests_.forget_prompts(order.model);
}

void Worker::join(const Join& order) {
  for (const auto& job : jobs_) {
    if (job->id() == order.job) return job->join(order.row);
  }
  // The job has ended; what the row brings is known here all the same.
  HeldRequest* const request = requests_.find_or_tell(order.row.ticket);
  if (request == nullptr) return;
  if (const Status taken = take_news(*request, order.row.news); !taken) {
    requests_.lose(*request, taken.error());
  }
}

void Worker::begin(std::unique_ptr<Job> job) {
  jobs_.push_back(std::move(job));
  if (jobs_.size() > kMaxJobs) {
    log::error("{} jobs were ordered before the first has ended; this instance ends", jobs_.size());
    stopping_ = true;
  }
}

bool Worker::work() {
  const TimePoint now = monotonic_now();
  traffic_.work();
  requests_.serve_wants(now);
  bool more = false;
  if (!jobs_.empty()) {
    Job& job = *jobs_.front();
    const Job::Progress progress = job.advance(now);
    if (progress == Job::Progress::over) {
      outbox_.report(job.ended());
      jobs_.pop_front();
    }
    more = progress != Job::Progress::waits;
  }
  unsent_ = outbox_.flush();
  if (outbox_.full()) {
    log::error("the dispatcher takes no messages any more; this instance ends");
    stopping_ = true;
  }
  return more;
}

TimePoint Worker::next_wake() const {
  TimePoint wake = std::min(TimePoint::max(), requests_.next_deadline());
  if (report_wanted_) wake = std::min(wake, next_report_);
  if (!jobs_.empty()) wake = std::min(wake, jobs_.front()->next_deadline());
  if (unsent_) wake = std::min(wake, monotonic_now() + kSendAgain);
  return wake;
}

void Worker::report_if_due() {
  const TimePoint now = monotonic_now();
  if (!report_wanted_ || now < next_report_) return;
  Stats stats;
  parts_.memory.add_stats(stats);
  requests_.add_stats(stats);
  traffic_.add_stats(stats);
  berths_->add_stats(stats);
  stats.count("steps_total", "Forward passes", static_cast<double>(counts_.steps));
  stats.count("step_tokens_total", "Tokens that forward passes computed",
              static_cast<double>(counts_.step_tokens));
  stats.count("step_seconds_total", "Time spent in forward passes", to_seconds(counts_.step_time));
  stats.count("prompt_tokens_total", "Prompt tokens computed", static_cast<double>(counts_.prompt_tokens));
  stats.count("prompt_tokens_reused_total", "Prompt tokens whose KV was there from earlier prompts",
              static_cast<double>(counts_.reused_tokens));
  stats.count("output_tokens_total", "Tokens generated", static_cast<double>(counts_.output_tokens));
  add_engine_stats(parts_.engine.metrics(), stats);
  if (parts_.channel.send(parts_.dispatcher, static_cast<std::uint8_t>(Stats::kType), serialize(stats))) {
    report_wanted_ = false;
  }
  next_report_ = now + kStatsInterval;
}

}  // namespace switchyard::pool
