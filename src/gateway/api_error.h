// Errors as a client sees them, in OpenAI's form.
//
// Plain values; any thread.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "gateway/http_message.h"
#include "switchyard/result.h"

namespace switchyard::gateway {

struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::optional<std::string> param;  // the request's field that is wrong
  std::optional<std::string> code;
  int retry_after = 0;  // seconds; 0: no such header
};

template <class T>
using ApiResult = tl::expected<T, ApiError>;

// A 400 about one field: reject("top_p", "must be …, is {}", value).
template <class... Args>
[[nodiscard]] ApiError invalid_field(std::string param, fmt::format_string<Args...> format, Args&&... args) {
  ApiError error;
  error.message = fmt::format(format, std::forward<Args>(args)...);
  error.param = std::move(param);
  return error;
}

// {"error": {"message": …, "type": …, "param": …, "code": …}}
std::string error_json(const ApiError& error);
HttpResponse error_response(const ApiError& error);

// What the pool or a library reports, as the client should see it: exhausted is 429 with Retry-After, what a
// lost instance causes is 503, what the request causes is 400, everything else 500.
ApiError api_error_from(const Error& error);

}  // namespace switchyard::gateway
