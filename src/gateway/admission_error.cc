#include "gateway/admission_error.h"

#include <algorithm>
#include <cmath>

namespace switchyard::gateway {
namespace {

constexpr Nanos kUsualRetry = std::chrono::seconds(1);  // when nothing better is known

// A bucket is full at first, and what is added while one request is taken in does not count.
std::uint64_t most_at_once(const schedule::RateLimit& rate) {
  return static_cast<std::uint64_t>(std::floor(std::max(rate.burst, 1.0) + 1e-9));
}

ApiError later(std::string_view code, std::string sentence, Nanos wait) {
  ApiError error;
  error.status = 429;
  error.type = "rate_limit_error";
  error.code = code;
  error.retry_after = retry_seconds(wait);
  error.message = fmt::format("{} Try again in {} s.", sentence, error.retry_after);
  return error;
}

ApiError unavailable(std::string_view code, std::string message) {
  ApiError error;
  error.status = 503;
  error.type = "server_error";
  error.param = "model";
  error.code = code;
  error.message = std::move(message);
  return error;
}

// Of what the schedule has room for again, sooner or later; else nothing.
std::string crowded(const pool::Refusal& refusal, std::string_view model) {
  if (refusal.shed == schedule::ShedReason::queue)
    return fmt::format("As many requests as may are waiting already, of the model '{}' or in all.", model);
  if (refusal.shed == schedule::ShedReason::overload)
    return fmt::format("The model '{}' has so much to do that this answer would come too late.", model);
  return fmt::format("The server takes no more requests now: {}.", refusal.error.message);
}

ApiError shed(const pool::Refusal& refusal, std::string_view model, Nanos refill) {
  using schedule::ShedReason;
  const Nanos wait = std::max(refusal.retry_after, kUsualRetry);
  if (refusal.shed == ShedReason::rate) {
    return later(
        "rate_limit_exceeded",
        fmt::format("Requests came faster than the rate of the API key or of the model '{}' allows.", model),
        wait + refill);
  }
  if (refusal.shed == ShedReason::no_place) {
    return unavailable(
        "no_place",
        fmt::format(
            "The model '{}' has no place: under the policy 'static' each model keeps a berth, and all "
            "berths are taken by other models. Whoever runs the server can give it more berths or "
            "instances, list fewer models, or choose another policy.",
            model));
  }
  if (refusal.shed == ShedReason::no_instance) {
    auto error = unavailable("no_instance", fmt::format("No instance can serve the model '{}' now.", model));
    if (refusal.retry_after > Nanos::zero()) {
      error.retry_after = retry_seconds(refusal.retry_after);
      error.message += fmt::format(" Try again in {} s.", error.retry_after);
    }
    return error;
  }
  return later("server_overloaded", crowded(refusal, model), wait);
}

}  // namespace

std::optional<ApiError> never_admitted(const AdmissionLimits& server, const ModelLimits& model,
                                       std::string_view id, std::uint64_t choices, const char* param) {
  const auto check = [&](bool limited, std::uint64_t most, std::string_view what) -> std::optional<ApiError> {
    if (!limited || choices <= most) return std::nullopt;
    auto error = invalid_field(
        param,
        "'{}' makes {} choices, each of which counts as a request; {} is {}, so they can never get in "
        "together. Ask for at most {} at a time.",
        param, choices, what, most, most);
    error.code = "too_many_choices";
    return error;
  };
  if (auto error = check(server.key_rate.per_second > 0, most_at_once(server.key_rate),
                         "the burst of an API key's rate"))
    return error;
  if (auto error = check(model.rate.per_second > 0, most_at_once(model.rate),
                         fmt::format("the burst of the rate of the model '{}'", id)))
    return error;
  if (auto error = check(model.max_waiting > 0, model.max_waiting,
                         fmt::format("the most that may wait for the model '{}'", id)))
    return error;
  if (auto error = check(server.max_waiting > 0, server.max_waiting, "the most that may wait on this server"))
    return error;
  return check(server.max_queue > 0, server.max_queue, "the most that this server takes");
}

Nanos refill_time(const AdmissionLimits& server, const ModelLimits& model, std::uint64_t choices) {
  double seconds = 0;
  for (const auto& rate : {server.key_rate, model.rate}) {
    if (rate.per_second > 0 && choices > 1)
      seconds = std::max(seconds, static_cast<double>(choices - 1) / rate.per_second);
  }
  return Nanos(static_cast<std::int64_t>(std::min(seconds, 1e6) * 1e9));
}

ApiError refusal_error(const pool::Refusal& refusal, std::string_view model, Nanos refill) {
  if (refusal.error.code == ErrorCode::exhausted) return shed(refusal, model, refill);
  if (refusal.error.code != ErrorCode::unsupported) return api_error_from(refusal.error);
  auto error = unavailable("model_not_ready", refusal.error.message);
  if (refusal.retry_after > Nanos::zero()) error.retry_after = retry_seconds(refusal.retry_after);
  return error;
}

int retry_seconds(Nanos wait) {
  constexpr Nanos kMost = std::chrono::hours(24);
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(std::min(wait, kMost)).count();
  return static_cast<int>(std::max<std::int64_t>(seconds, 1));
}

}  // namespace switchyard::gateway
