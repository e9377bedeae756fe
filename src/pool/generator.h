// What the gateway asks of the pool: tokens for a prompt.
//
// The seam between HTTP and instances. Everything above tokens (text, templates, stop strings, JSON) is the
// gateway's; everything below (placement, hand-over, replay after a death) is the pool's.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/image.h"
#include "model/sampler.h"
#include "switchyard/result.h"

namespace switchyard::pool {

struct GenerationRequest {
  std::string model;
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

struct ServedModel {
  std::string id;
  std::shared_ptr<const model::ModelImage> image;
  std::uint32_t context = 0;  // longest prompt + output that is served
  std::int64_t created = 0;   // Unix seconds
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

class Generator {
 public:
  virtual ~Generator() = default;
  // Errors (the sink is not called then): not_found (model), out_of_range (longer than the context),
  // exhausted (queue full: try again), invalid. While an instance is being restarted requests wait; they do
  // not fail.
  virtual Result<RequestId> submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink) = 0;
  // The blocks come back at the next token; on_end comes with `cancelled`, unless the request ended before.
  virtual void cancel(RequestId id) = 0;

  virtual const std::vector<ServedModel>& models() const = 0;
  virtual std::vector<InstanceStatus> instances() const = 0;
  // Metrics of the pool and of every instance.
  virtual std::vector<prometheus::MetricFamily> metrics() const = 0;
};

}  // namespace switchyard::pool
