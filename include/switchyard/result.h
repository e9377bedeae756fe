// Errors as values.
//
// A function that can fail returns Result<T>. An Error says what failed, where, why, and what to do about
// it; its code says what is lost. Exceptions do not cross a module's border.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <tl/expected.hpp>

namespace switchyard {

enum class ErrorCode {
  // Nothing was done, nothing was sent.
  invalid,       // an argument or input that makes no sense
  out_of_range,  // outside of a region, file, model or limit
  denied,        // not allowed: wrong key, epoch or permission
  exhausted,     // a bounded resource is full; try again later
  unsupported,   // meaningful, but not here
  not_found,     // no such file, model, peer or device
  corrupt,       // data from outside that contradicts itself: truncated, wrong hash
  // Something may have been done; some bytes may have landed.
  peer_lost,
  cancelled,
  timed_out,
  io,
};

// The code's name as it stands above ("peer_lost").
std::string_view to_string(ErrorCode code);

struct Error {
  ErrorCode code;
  std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// fail(ErrorCode::invalid, "block {} is outside of the pool ({} blocks)", index, count)
template <class... Args>
[[nodiscard]] tl::unexpected<Error> fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Error>(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

// Passes an error on, with the place put before its message: "shard-00001.safetensors: header is truncated".
[[nodiscard]] inline tl::unexpected<Error> fail_at(std::string_view where, const Error& error) {
  return tl::unexpected<Error>(Error{error.code, fmt::format("{}: {}", where, error.message)});
}

[[nodiscard]] inline tl::unexpected<Error> pass(const Error& error) { return tl::unexpected<Error>(error); }

}  // namespace switchyard
