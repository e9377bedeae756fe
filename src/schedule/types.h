// What schedulers know of models, instances and requests. Plain values, owned by whoever holds them.
//
// Ids are given by the caller. Model and instance ids are small and dense (they index vectors); an instance
// that was started again takes a new id, so that news of its former life cannot be mistaken.
#pragma once

#include <cstdint>
#include <string>

#include "switchyard/time.h"

namespace switchyard::schedule {

using ModelId = std::uint32_t;
using InstanceId = std::uint32_t;
using RequestId = std::uint64_t;

inline constexpr ModelId kNoModel = 0xFFFFFFFF;
// Where KV is: on the device of an instance, in host memory, or nowhere.
inline constexpr InstanceId kNowhere = 0xFFFFFFFF;
inline constexpr InstanceId kHost = 0xFFFFFFFE;
inline constexpr std::uint32_t kMaxId = 1 << 20;

inline constexpr std::uint32_t kBlockTokens = 16;

enum class Role { prefill, decode, unified };

// Token k (from 0) of a request is due at arrival + first_token + k * between_tokens.
struct Targets {
  Nanos first_token = std::chrono::seconds(10);
  Nanos between_tokens = std::chrono::milliseconds(100);

  bool operator==(const Targets&) const = default;
};

// Zero means "no limit".
struct RateLimit {
  double per_second = 0;
  double burst = 0;  // requests at once; at least 1 where there is a rate

  bool operator==(const RateLimit&) const = default;
};

struct ModelSpec {
  std::string name;
  std::uint64_t weight_bytes = 0;    // of its image, per instance
  std::uint64_t kv_block_bytes = 0;  // of kBlockTokens tokens
  Targets targets;
  double weight = 1;              // share of a full pool, and worth of its tokens, relative to other models
  bool pinned = false;            // never evicted from a berth once it is there
  std::uint32_t max_waiting = 0;  // requests without a first token; more are shed
  RateLimit rate;
};

struct InstanceSpec {
  Role role = Role::unified;
  std::uint64_t kv_bytes = 0;
  std::uint32_t berths = 2;
  std::uint64_t berth_bytes = 0;
};

// Why a request was not taken.
enum class ShedReason {
  rate,         // of the model or key
  queue,        // of the model, or of the whole pool and the model has more than its share
  overload,     // it could not be served in time, and would make others late
  too_large,    // never fits an instance's KV memory
  no_instance,  // no instance can serve the model now
  no_place,     // the policy has given the model no place, and will not
};
std::string_view to_string(ShedReason reason);

struct RequestSpec {
  RequestId id = 0;
  ModelId model = kNoModel;
  std::uint32_t key = 0;  // of the client, for its rate limit
  bool metered = true;    // else rates do not count it, and overload does not shed it
  std::uint32_t prompt_tokens = 0;
  std::uint32_t max_new_tokens = 0;
  TimePoint arrival{};
};

}  // namespace switchyard::schedule
