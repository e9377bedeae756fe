// The prefill role: computes prompts in chunks, first come first served, and pushes each layer of each chunk
// to the decode instance that asked while the next layer computes.
#include <algorithm>
#include <cstring>
#include <map>

#include "base/log.h"
#include "pool/worker.h"

namespace switchyard::pool {
namespace {

class PrefillWorker final : public Worker {
 public:
  using Worker::Worker;

 private:
  // Jobs that hold blocks. With kv::Push::kMaxActive transfers each they stay below the engine's capacity.
  static constexpr std::size_t kMaxHeld = 32;

  struct Job {
    enum class State { queued, computing, landing, draining };
    State state = State::queued;
    PeerAddress from;
    PrefillOrder order;
    TimePoint deadline;
    std::vector<std::uint32_t> blocks;
    std::uint32_t tail = 0;
    std::uint32_t computed = 0;
    std::shared_ptr<kv::Push> push;
    bool reply = true;  // tell the decode instance when it ends without having landed
    Error why{};
  };
  using Jobs = std::map<std::uint64_t, Job>;  // by order of arrival

  void on_message(const PeerAddress& from, MessageType type, std::span<const std::byte> payload) override;
  void on_peer_lost(const PeerAddress& peer) override;
  bool work() override;
  void add_stats(Stats& stats) const override;

  void accept(const PeerAddress& from, PrefillOrder order);
  void begin_queued();
  Status begin(std::uint64_t serial, Job& job);
  void compute_step();
  void give_up(Jobs::iterator job, Error why, bool reply);
  void push_over(std::uint64_t serial, const Status& status, const kv::PushReport& report);
  void release(Jobs::iterator job);
  void tell_ended(const Job& job);

  Jobs jobs_;
  std::uint64_t next_serial_ = 1;
  std::size_t held_ = 0;
  std::vector<float> logits_;
  std::uint64_t done_ = 0;
  std::uint64_t failed_ = 0;
  std::uint64_t prompt_tokens_ = 0;
  kv::PushReport pushed_;
};

void PrefillWorker::on_message(const PeerAddress& from, MessageType type,
                               std::span<const std::byte> payload) {
  if (type == MessageType::prefill_order) {
    auto order = parse<PrefillOrder>(payload);
    if (!order) return log::error("{}", order.error().message);
    accept(from, *std::move(order));
  } else if (type == MessageType::cancel_prefill) {
    const auto cancel = parse<CancelPrefill>(payload);
    if (!cancel) return log::error("{}", cancel.error().message);
    const auto job = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& entry) {
      return entry.second.order.job == cancel->job && key_of(entry.second.from) == key_of(from);
    });
    // A job that is not here has landed, and its counter says so, or has been told to have ended.
    if (job != jobs_.end()) give_up(job, {ErrorCode::cancelled, "cancelled by the decode instance"}, true);
  } else {
    log::error("a prefill instance got a message of type {}", static_cast<int>(type));
  }
}

void PrefillWorker::accept(const PeerAddress& from, PrefillOrder order) {
  Job job;
  job.from = from;
  job.deadline = monotonic_now() + std::chrono::milliseconds(order.limit_ms);
  job.order = std::move(order);
  const auto& tokens = job.order.tokens;
  const auto vocab = static_cast<std::int32_t>(parts_.runtime.config().vocab);
  const bool in_vocabulary = std::all_of(tokens.begin(), tokens.end(),
                                         [vocab](std::int32_t token) { return token >= 0 && token < vocab; });
  if (tokens.empty() || tokens.size() != job.order.destination.tokens ||
      tokens.size() > parts_.store.context() || !in_vocabulary ||
      job.order.destination.chunk_tokens > parts_.max_step_tokens) {
    job.why = {ErrorCode::invalid,
               fmt::format("a prompt of {} tokens cannot be computed: the limit is {}, and ids are "
                           "below {}",
                           tokens.size(), parts_.store.context(), vocab)};
    return tell_ended(job);
  }
  jobs_.emplace(next_serial_++, std::move(job));
}

void PrefillWorker::on_peer_lost(const PeerAddress& peer) {
  for (auto job = jobs_.begin(); job != jobs_.end();) {
    const auto next = std::next(job);
    if (key_of(job->second.from) == key_of(peer)) {
      give_up(job, {ErrorCode::peer_lost, "the decode instance has ended"}, false);
    }
    job = next;
  }
}

bool PrefillWorker::work() {
  const TimePoint now = monotonic_now();
  for (auto job = jobs_.begin(); job != jobs_.end();) {
    const auto next = std::next(job);
    if (job->second.deadline < now) give_up(job, {ErrorCode::timed_out, "the prefill took too long"}, true);
    job = next;
  }
  begin_queued();
  compute_step();
  return std::any_of(jobs_.begin(), jobs_.end(),
                     [](const auto& entry) { return entry.second.state == Job::State::computing; });
}

void PrefillWorker::begin_queued() {
  for (auto job = jobs_.begin(); job != jobs_.end() && held_ < kMaxHeld;) {
    const auto next = std::next(job);
    if (job->second.state == Job::State::queued) {
      const Status begun = begin(job->first, job->second);
      if (!begun && begun.error().code == ErrorCode::exhausted) return;  // first come, first served
      if (!begun) give_up(job, begun.error(), true);
    }
    job = next;
  }
}

Status PrefillWorker::begin(std::uint64_t serial, Job& job) {
  const auto count = model::KvLayout::blocks_for(static_cast<std::uint32_t>(job.order.tokens.size()));
  if (parts_.store.blocks().available() < count) return fail(ErrorCode::exhausted, "no blocks");
  const auto tail = parts_.store.take_tail();
  if (!tail) return fail(ErrorCode::exhausted, "no tail slot");
  job.tail = *tail;
  (void)parts_.store.blocks().take(count, job.blocks);
  ++held_;
  auto push = kv::Push::create(parts_.engine, parts_.store.shape(),
                               {.pool = parts_.store.pool_region(),
                                .blocks = job.blocks,
                                .tails = parts_.store.tail_region(),
                                .tail_offset = parts_.store.tail_offset(job.tail),
                                .tail_bytes = parts_.store.tail(job.tail).size_bytes()},
                               job.from, job.order.destination, job.deadline,
                               [this, serial](const Status& status, const kv::PushReport& report) {
                                 post([this, serial, status, report] { push_over(serial, status, report); });
                               });
  job.state = Job::State::computing;
  if (!push) return pass(push.error());
  job.push = *std::move(push);
  return {};
}

void PrefillWorker::compute_step() {
  struct Part {
    std::uint64_t serial;
    Job* job;
    std::uint32_t chunk;
    std::uint32_t tokens;
  };
  std::vector<Part> parts;
  std::vector<model::Chunk> chunks;
  std::uint32_t room = parts_.max_step_tokens;
  std::size_t ending = 0;
  for (auto& [serial, job] : jobs_) {
    if (job.state != Job::State::computing) continue;
    const auto total = static_cast<std::uint32_t>(job.order.tokens.size());
    const std::uint32_t chunk_tokens = job.order.destination.chunk_tokens;
    const std::uint32_t count = std::min(chunk_tokens, total - job.computed);
    if (count > room || ending == parts_.max_sequences) break;
    const bool last = job.computed + count == total;
    parts.push_back({serial, &job, job.computed / chunk_tokens, count});
    chunks.push_back({.tokens = std::span(job.order.tokens).subspan(job.computed, count),
                      .position = job.computed,
                      .blocks = job.blocks,
                      .logits = last});
    room -= count;
    ending += last ? 1 : 0;
  }
  if (chunks.empty()) return;

  const std::size_t vocab = parts_.runtime.config().vocab;
  logits_.resize(std::max(logits_.size(), ending * vocab));
  const Status status = step(chunks, std::span(logits_).first(ending * vocab), [&parts](std::uint32_t layer) {
    for (const Part& part : parts) part.job->push->layer_done(layer, part.chunk);
  });
  if (!status) {
    log::error("a prefill step failed: {}", status.error().message);
    for (const Part& part : parts) give_up(jobs_.find(part.serial), status.error(), true);
    return;
  }
  std::size_t row = 0;
  for (const Part& part : parts) {
    Job& job = *part.job;
    job.computed += part.tokens;
    prompt_tokens_ += part.tokens;
    if (job.computed < job.order.tokens.size()) continue;
    const auto tail = parts_.store.tail(job.tail);
    std::memcpy(tail.data(), logits_.data() + row++ * vocab, tail.size_bytes());
    job.state = Job::State::landing;
    job.push->tail_done();
  }
}

void PrefillWorker::push_over(std::uint64_t serial, const Status& status, const kv::PushReport& report) {
  const auto job = jobs_.find(serial);
  if (job == jobs_.end()) return;
  pushed_.bytes += report.bytes;
  pushed_.busy += report.busy;
  pushed_.exposed += report.exposed;
  if (!status) return give_up(job, status.error(), true);
  if (job->second.state == Job::State::draining) return;  // release() comes with `drained`
  ++done_;
  release(job);
}

void PrefillWorker::give_up(Jobs::iterator entry, Error why, bool reply) {
  Job& job = entry->second;
  if (job.state == Job::State::draining) {
    job.reply = job.reply && reply;
    return;
  }
  ++failed_;
  job.why = std::move(why);
  job.reply = reply;
  const bool started = job.push != nullptr;
  job.state = Job::State::draining;
  if (!started) {
    tell_ended(job);
    return release(entry);
  }
  job.push->cancel([this, serial = entry->first] {
    post([this, serial] {
      const auto drained = jobs_.find(serial);
      if (drained == jobs_.end()) return;
      tell_ended(drained->second);
      release(drained);
    });
  });
}

void PrefillWorker::tell_ended(const Job& job) {
  if (!job.reply) return;
  const Status sent = send(job.from, PrefillEnded{job.order.job, job.why});
  if (!sent && sent.error().code != ErrorCode::peer_lost) log::error("{}", sent.error().message);
}

void PrefillWorker::release(Jobs::iterator job) {
  if (!job->second.blocks.empty()) {
    parts_.store.blocks().give_back(job->second.blocks);
    parts_.store.give_back_tail(job->second.tail);
    --held_;
  }
  jobs_.erase(job);
}

void PrefillWorker::add_stats(Stats& stats) const {
  const auto waiting = std::count_if(
      jobs_.begin(), jobs_.end(), [](const auto& entry) { return entry.second.state == Job::State::queued; });
  stats.samples.push_back(
      {"requests_waiting", "Requests without KV blocks yet", false, static_cast<double>(waiting)});
  stats.samples.push_back(
      {"requests_running", "Requests that hold KV blocks", false, static_cast<double>(held_)});
  stats.samples.push_back(
      {"prompt_tokens_total", "Prompt tokens computed", true, static_cast<double>(prompt_tokens_)});
  stats.samples.push_back({"handovers_total", "Prompts handed over", true, static_cast<double>(done_)});
  stats.samples.push_back({"handovers_failed_total", "Prompts given up", true, static_cast<double>(failed_)});
  stats.samples.push_back(
      {"handover_bytes_total", "Bytes handed over", true, static_cast<double>(pushed_.bytes)});
  stats.samples.push_back({"handover_busy_seconds_total", "Time with hand-over transfers under way", true,
                           to_seconds(pushed_.busy)});
  stats.samples.push_back({"handover_exposed_seconds_total",
                           "Part of the busy time after the prompt was computed", true,
                           to_seconds(pushed_.exposed)});
}

}  // namespace

std::unique_ptr<Worker> make_prefill_worker(const WorkerParts& parts) {
  return std::make_unique<PrefillWorker>(parts);
}

}  // namespace switchyard::pool
