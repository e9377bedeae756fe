// What an instance does all day: a loop on one thread that takes in news, computes one step, and tells.
//
// Other threads reach it through post() only; everything else of a worker belongs to the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "model/runtime.h"
#include "pool/channel.h"
#include "pool/kv_store.h"
#include "pool/mailbox.h"
#include "pool/messages.h"

namespace switchyard::pool {

struct WorkerParts {
  TransferEngine& engine;
  Channel& channel;
  model::Runtime& runtime;
  KvStore& store;
  PeerAddress supervisor;  // receives Stats
  // Tokens of a prompt that one request computes per step: the unit of hand-over. A whole number of blocks.
  std::uint32_t chunk_tokens = 256;
  std::uint32_t max_step_tokens = 512;
  std::uint32_t max_sequences = 64;  // logit rows of a step
  Nanos prefill_limit = std::chrono::minutes(10);
};

class Worker {
 public:
  explicit Worker(const WorkerParts& parts) : parts_(parts) {}
  virtual ~Worker() = default;

  // Runs until stop(). Requests that are under way then are dropped: whoever sent them replays them.
  void run();
  // From any thread.
  void stop();
  void handle(const PeerAddress& from, MessageType type, std::span<const std::byte> payload);
  void peer_lost(const PeerAddress& peer);

 protected:
  // On the loop's thread.
  virtual void on_message(const PeerAddress& from, MessageType type, std::span<const std::byte> payload) = 0;
  virtual void on_peer_lost(const PeerAddress& peer) = 0;
  // Does what can be done now. True: call again at once, there is more.
  virtual bool work() = 0;
  virtual void add_stats(Stats& stats) const = 0;

  // News of this worker's own operations; never refused, since their number is bounded.
  void post(std::function<void()> event) { mailbox_.put_always(std::move(event)); }

  // Sends, or logs why not. A peer that is gone is not worth a line: its loss is told apart.
  template <class M>
  Status send(const PeerAddress& peer, const M& message) {
    const auto payload = serialize(message);
    return parts_.channel.send(peer, static_cast<std::uint8_t>(M::kType), payload);
  }

  // Runs one step and counts it.
  Status step(std::span<const model::Chunk> chunks, std::span<float> logits,
              const model::LayerDone& layer_done);

  WorkerParts parts_;

 private:
  void report_if_due();

  // Messages wait here while a step runs; the router bounds requests, so this is only a last resort.
  static constexpr std::size_t kMaxEvents = 1 << 16;
  static constexpr Nanos kStatsInterval = std::chrono::milliseconds(500);

  Mailbox<std::function<void()>> mailbox_{kMaxEvents};
  bool stopping_ = false;
  bool report_wanted_ = true;
  TimePoint next_report_{};
  std::uint64_t steps_ = 0;
  std::uint64_t step_tokens_ = 0;
  Nanos step_time_{};
};

std::unique_ptr<Worker> make_prefill_worker(const WorkerParts& parts);
// Also the unified role: a request that names no prefill instance has its prompt computed here.
std::unique_ptr<Worker> make_decode_worker(const WorkerParts& parts);

}  // namespace switchyard::pool
