#include "gateway/api_error.h"

#include "gateway/json_writer.h"

namespace switchyard::gateway {

std::string error_json(const ApiError& error) {
  std::string json;
  JsonWriter writer(json);
  const auto optional = [&writer](std::string_view key, const std::optional<std::string>& value) {
    writer.key(key);
    if (value) {
      writer.string(*value);
    } else {
      writer.null();
    }
  };
  writer.begin_object().key("error").begin_object();
  writer.key("message").string(error.message);
  writer.key("type").string(error.type);
  optional("param", error.param);
  optional("code", error.code);
  writer.end_object().end_object();
  return json;
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = error_json(error);
  if (error.retry_after > 0) response.headers.emplace_back("Retry-After", fmt::to_string(error.retry_after));
  return response;
}

ApiError api_error_from(const Error& error) {
  ApiError api;
  api.message = error.message;
  switch (error.code) {
    case ErrorCode::invalid:
    case ErrorCode::unsupported:
      break;
    case ErrorCode::out_of_range:
      api.code = "context_length_exceeded";
      break;
    case ErrorCode::not_found:
      api.status = 404;
      api.code = "model_not_found";
      api.param = "model";
      break;
    case ErrorCode::exhausted:
      api.status = 429;
      api.type = "rate_limit_error";
      api.code = "queue_full";
      api.retry_after = 1;
      break;
    case ErrorCode::peer_lost:
    case ErrorCode::timed_out:
    case ErrorCode::cancelled:
      api.status = 503;
      api.type = "server_error";
      api.code = std::string(to_string(error.code));
      api.retry_after = 1;
      break;
    case ErrorCode::denied:
    case ErrorCode::corrupt:
    case ErrorCode::io:
      api.status = 500;
      api.type = "server_error";
      api.code = std::string(to_string(error.code));
      break;
  }
  return api;
}

}  // namespace switchyard::gateway
