// Requests that are not let in: what their clients are told, and which of them never could be.
//
// Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "gateway/api_error.h"
#include "pool/generator.h"
#include "schedule/types.h"

namespace switchyard::gateway {

// How many choices of one request may get in together; each counts as one. Zero: no limit.
struct AdmissionLimits {
  schedule::RateLimit key_rate;   // of each API key
  std::uint32_t max_waiting = 0;  // of all models, without a first token
  std::uint32_t max_queue = 0;    // waiting or running
};
struct ModelLimits {
  schedule::RateLimit rate;
  std::uint32_t max_waiting = 0;
};

// What a request of so many choices gets that no bucket and no queue could ever hold: 400, naming the limit.
// `param`: the field that makes them so many.
std::optional<ApiError> never_admitted(const AdmissionLimits& server, const ModelLimits& model,
                                       std::string_view id, std::uint64_t choices, const char* param);

// How long rates take to allow all of the choices but one, when none is left: each was charged as it was
// submitted, so a request that was refused at its last one has used up what the others need.
Nanos refill_time(const AdmissionLimits& server, const ModelLimits& model, std::uint64_t choices);

// 429 and 503 as people read them. `refill`: as above.
ApiError refusal_error(const pool::Refusal& refusal, std::string_view model, Nanos refill);

// A wait as Retry-After has it: whole seconds, at least one.
int retry_seconds(Nanos wait);

}  // namespace switchyard::gateway
