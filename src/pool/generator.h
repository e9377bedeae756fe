// What the gateway asks of the pool: tokens for a prompt.
//
// The seam between HTTP and instances. Everything above tokens (text, templates, stop strings, JSON) is the
// gateway's; everything below (placement, hand-over, replay after a death) is the pool's.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/image.h"
#include "model/sampler.h"
#include "schedule/types.h"
#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::pool {

struct GenerationRequest {
  std::string model;
  std::uint32_t client = 0;          // whose rate limit counts; 0: of all who have no key
  bool metered = true;               // else no rate counts it, and overload does not shed it
  std::vector<std::int32_t> prompt;  // at least one token
  model::SamplingParams sampling;    // validated by the caller
  std::uint32_t max_tokens = 0;      // prompt.size() + max_tokens may not exceed the model's context
  std::vector<std::int32_t> end_tokens;
};

enum class FinishReason : std::uint8_t { end_token, length, cancelled, failed };

struct GenerationEnd {
  FinishReason reason = FinishReason::failed;
  Error error{};  // when failed
};

// Receives a request's tokens, in order, each once, whatever happens to instances; then one on_end. An end
// token is not delivered. Called on a pool thread, one call at a time: must not block.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  virtual void on_token(const model::SampledToken& token) = 0;
  virtual void on_end(const GenerationEnd& end) = 0;
};

enum class ModelState : std::uint8_t {
  preparing,  // its image is being built or opened
  ready,
  failed,    // cannot be used; tried again when asked for, after a while
  removing,  // takes no requests any more; goes when its last one has ended
};
std::string_view to_string(ModelState state);

struct ServedModel {
  std::string id;
  std::shared_ptr<const model::ModelImage> image;  // null until it was opened
  std::uint32_t context = 0;                       // longest prompt + output that is served
  std::int64_t created = 0;                        // Unix seconds
  ModelState state = ModelState::ready;
  std::string detail;      // progress of its preparation, or why it failed
  Nanos retry_after{};     // when not ready: ask again then; zero: at once, or unknown
  bool permanent = false;  // failed in a way that trying again does not mend: it must be changed first
  bool pinned = false;     // keeps its berths
  std::vector<std::string> resident_on;  // instances that have it in a berth
  std::uint64_t waiting = 0;             // requests without a first token
  std::uint64_t running = 0;
};

struct InstanceStatus {
  std::string name;   // "decode-0"
  std::string role;   // "prefill", "decode", "unified"
  std::string state;  // "starting", "ready", "restarting", "failed"
  std::string model;
  std::string detail;  // why it is not ready; empty when it is
  int process = 0;
  std::uint64_t restarts = 0;
};

using RequestId = std::uint64_t;

// Why a request was not taken.
struct Refusal {
  Error error{};
  Nanos retry_after{};                       // try again then; zero: that is no use, or nothing is known
  std::optional<schedule::ShedReason> shed;  // exhausted: the schedule's reason, if it was the schedule
};

class Generator {
 public:
  virtual ~Generator() = default;
  // Refused (the sink is not called then): not_found (model), out_of_range (longer than the context),
  // exhausted (a queue is full, a rate was exceeded, or it could not be served in time: try again),
  // unsupported (the model cannot be used now, see its state), invalid. While an instance is being restarted
  // requests wait; they do not fail.
  virtual tl::expected<RequestId, Refusal> submit(GenerationRequest request,
                                                  std::shared_ptr<GenerationSink> sink) = 0;
  // The blocks come back at the next token; on_end comes with `cancelled`, unless the request ended before.
  virtual void cancel(RequestId id) = 0;

  // As they are now, in the order in which they were added.
  virtual std::vector<ServedModel> models() const = 0;
  // Changes whenever models, their images or their states do: cheap to ask.
  virtual std::uint64_t models_version() const = 0;
  virtual std::vector<InstanceStatus> instances() const = 0;
  // Metrics of the pool and of every instance.
  virtual std::vector<prometheus::MetricFamily> metrics() const = 0;
};

}  // namespace switchyard::pool
