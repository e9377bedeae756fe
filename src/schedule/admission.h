// Who gets in: rate limits by model and key, bounds on waiting requests, fair shares of a full pool.
//
// Owned by a scheduler, on its thread. Pure: the clock is passed in.
#pragma once

#include <optional>
#include <unordered_map>

#include "schedule/policy.h"

namespace switchyard::schedule {

// Allows `burst` at once and `per_second` in the long run.
class TokenBucket {
 public:
  explicit TokenBucket(const RateLimit& limit);

  // Takes one, or says how long until there is one.
  std::optional<Nanos> take(TimePoint now);
  // Gives back what was taken for a request that did not get in after all.
  void put_back();
  bool full(TimePoint now) const;

 private:
  double at(TimePoint now) const;

  RateLimit limit_;
  double level_;
  TimePoint filled_{};
  bool used_ = false;
};

// What the scheduler knows of the moment.
struct AdmissionState {
  std::uint64_t waiting_total = 0;
  std::uint64_t waiting_of_model = 0;
  double weight_share =
      1;  // the model's weight over that of all models with waiting requests, itself included
  double expected_in_time = 1;  // share of the request's tokens
  Nanos expected_wait{};        // beyond its target for the first token
};

struct Refusal {
  ShedReason reason;
  Nanos retry_after;
};

class Admission {
 public:
  explicit Admission(const AdmissionOptions& options) : options_(options) {}

  void add_model(ModelId id, const ModelSpec& spec);
  void remove_model(ModelId id);

  // Nothing: come in. Limits are only charged for requests that are let in.
  std::optional<Refusal> refuse(const RequestSpec& request, const AdmissionState& state, TimePoint now);

 private:
  struct ModelEntry {
    TokenBucket bucket;
    bool limited;
    std::uint32_t max_waiting;
  };

  void forget_idle_keys(TimePoint now);

  static constexpr std::size_t kMaxKeys = 65536;

  AdmissionOptions options_;
  std::unordered_map<ModelId, ModelEntry> models_;
  std::unordered_map<std::uint32_t, TokenBucket> keys_;
};

}  // namespace switchyard::schedule
