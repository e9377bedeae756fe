// What an instance computes: one job at a time, step by step.
//
// Owned by the worker; used on its loop alone.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/runtime.h"
#include "pool/berths.h"
#include "pool/held_request.h"
#include "pool/kv_traffic.h"
#include "pool/outbox.h"
#include "pool/requests.h"

namespace switchyard::pool {

struct WorkerLimits {
  // Tokens of a prompt that one request computes per step: the unit of hand-over. A whole number of blocks.
  std::uint32_t chunk_tokens = 256;
  std::uint32_t max_step_tokens = 512;
  std::uint32_t max_rows = 64;                         // of which logits are wanted in a step
  Nanos block_limit = std::chrono::seconds(20);        // how long an order waits for blocks
  Nanos handover_limit = std::chrono::minutes(10);     // from a push's begin
  std::uint32_t max_unreported = model::kBlockTokens;  // tokens of a row that the dispatcher has not got
  std::uint32_t max_pushes = 32;                       // under way at a time
};

struct JobParts {
  Requests& requests;
  KvTraffic& traffic;
  Berths& berths;
  Outbox& outbox;
  const WorkerLimits& limits;
};

// Numbers of all jobs of an instance.
struct JobCounts {
  std::uint64_t steps = 0;
  std::uint64_t step_tokens = 0;
  Nanos step_time{};
  std::uint64_t prompt_tokens = 0;
  std::uint64_t reused_tokens = 0;
  std::uint64_t output_tokens = 0;
};

class Job {
 public:
  enum class Progress { stepped, waits, over };

  Job(const JobParts& parts, JobCounts& counts, std::uint64_t id, ModelId model)
      : parts_(parts), counts_(counts), model_(model) {
    ended_.job = id;
  }
  virtual ~Job() = default;

  std::uint64_t id() const { return ended_.job; }
  ModelId model() const { return model_; }
  const JobEnded& ended() const { return ended_; }

  // Does one step, if there is anything to step. The worker reports the end.
  Progress advance(TimePoint now);
  // The request ends for another reason; nothing of it is in a step. Sets request.job to null.
  virtual void drop(HeldRequest& request) = 0;
  virtual void join(const Row&) {}
  virtual void stop() {}
  // When advance() is to be called at the latest though nothing happens.
  virtual TimePoint next_deadline() const { return TimePoint::max(); }

 protected:
  virtual Progress advance(model::Runtime& runtime, TimePoint now) = 0;
  // Requests that the job has not done with.
  virtual std::vector<HeldRequest*> unfinished() = 0;

  // Runs one step and counts it.
  Status step(model::Runtime& runtime, std::span<const model::Chunk> chunks, std::size_t logit_rows,
              const model::LayerDone& layer_done);
  // Whether the request is one for this model. Errors: invalid.
  Status check_request(HeldRequest& request, const model::Runtime& runtime) const;

  // Samples the next token of `request` from a row of the step and puts it into the message. The caller ends
  // the request if it has come to its end.
  RowOutcome take_token(HeldRequest& request, std::size_t row, Tokens& tokens);
  // Reports that the request cannot be done and forgets it.
  void fail_request(HeldRequest& request, const Error& why);

  const JobParts parts_;
  JobCounts& counts_;
  const ModelId model_;
  JobEnded ended_;

 private:
  std::size_t vocab_ = 0;
  std::vector<float> logits_;
};

}  // namespace switchyard::pool
