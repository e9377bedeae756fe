#include "pool/worker.h"

#include "base/log.h"
#include "pool/engine_stats.h"

namespace switchyard::pool {

void Worker::run() {
  bool more = false;
  while (!stopping_) {
    const TimePoint wake = more ? TimePoint::min() : report_wanted_ ? next_report_ : TimePoint::max();
    const auto events = mailbox_.take_all(wake);
    // The last step of all changes the numbers, too, though nothing is left to do after it.
    if (more || !events.empty()) report_wanted_ = true;
    for (const auto& event : events) event();
    more = work();
    report_if_due();
  }
}

void Worker::stop() {
  post([this] { stopping_ = true; });
}

void Worker::handle(const PeerAddress& from, MessageType type, std::span<const std::byte> payload) {
  std::function<void()> event = [this, from, type, bytes = std::vector(payload.begin(), payload.end())] {
    on_message(from, type, bytes);
  };
  if (!mailbox_.put(std::move(event))) {
    log::error("a message of type {} was dropped: {} others wait for this instance", static_cast<int>(type),
               kMaxEvents);
  }
}

void Worker::peer_lost(const PeerAddress& peer) {
  post([this, peer] { on_peer_lost(peer); });
}

Status Worker::step(std::span<const model::Chunk> chunks, std::span<float> logits,
                    const model::LayerDone& layer_done) {
  const TimePoint start = monotonic_now();
  Status status = parts_.runtime.step(chunks, logits, layer_done);
  step_time_ += monotonic_now() - start;
  ++steps_;
  for (const model::Chunk& chunk : chunks) step_tokens_ += chunk.tokens.size();
  return status;
}

void Worker::report_if_due() {
  const TimePoint now = monotonic_now();
  if (!report_wanted_ || now < next_report_) return;
  Stats stats;
  const auto gauge = [&stats](const char* name, const char* help, double value) {
    stats.samples.push_back({name, help, false, value});
  };
  const auto counter = [&stats](const char* name, const char* help, double value) {
    stats.samples.push_back({name, help, true, value});
  };
  gauge("kv_blocks", "KV blocks that the instance has", parts_.store.blocks().capacity());
  gauge("kv_blocks_used", "KV blocks that requests hold", parts_.store.blocks().used());
  counter("steps_total", "Forward passes", static_cast<double>(steps_));
  counter("step_tokens_total", "Tokens that forward passes computed", static_cast<double>(step_tokens_));
  counter("step_seconds_total", "Time spent in forward passes", to_seconds(step_time_));
  add_engine_stats(parts_.engine.metrics(), stats);
  add_stats(stats);
  if (send(parts_.supervisor, stats)) report_wanted_ = false;
  next_report_ = now + kStatsInterval;
}

}  // namespace switchyard::pool
