// Request bodies: bounded JSON, and typed fields whose errors name the parameter.
//
// Pure; any thread.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/api_error.h"

namespace switchyard::gateway {

inline constexpr std::size_t kMaxJsonDepth = 64;
inline constexpr std::size_t kMaxJsonFields = 1024;  // of one object

// A JSON object, its fields in the order of the text, which templates print. Depth and size of objects are
// checked before anything is built: building an object takes time quadratic in its fields. Errors (400): not
// JSON, with the position; not UTF-8; too deep; too many fields in one object; not an object.
ApiResult<nlohmann::ordered_json> parse_json_object(std::string_view text);

// Reads fields of an object. null is as good as absent. The first error sticks; the rest reads as absent, so
// that the caller checks once, at the end.
class FieldReader {
 public:
  // `object` is an object and outlives the reader. `prefix` stands before names in errors
  // ("stream_options.").
  explicit FieldReader(const nlohmann::ordered_json& object, std::string prefix = {})
      : object_(&object), prefix_(std::move(prefix)) {}

  const nlohmann::ordered_json* find(const char* key) const;  // nullptr: absent or null
  std::optional<bool> boolean(const char* key);
  std::optional<std::int64_t> integer(const char* key,
                                      std::int64_t least = std::numeric_limits<std::int64_t>::min(),
                                      std::int64_t most = std::numeric_limits<std::int64_t>::max());
  std::optional<double> number(const char* key, double least, double most);
  std::optional<std::string> string(const char* key);
  const nlohmann::ordered_json* array(const char* key);
  const nlohmann::ordered_json* object(const char* key);

  void fail(ApiError error);
  template <class... Args>
  void fail(const char* key, fmt::format_string<Args...> format, Args&&... args) {
    fail(invalid_field(name(key), "'{}' {}", name(key), fmt::format(format, std::forward<Args>(args)...)));
  }

  bool ok() const { return !error_; }
  const ApiError& error() const { return *error_; }
  std::string name(const char* key) const { return prefix_ + key; }

 private:
  const nlohmann::ordered_json* object_;
  std::string prefix_;
  std::optional<ApiError> error_;
};

// "a string", "an array", …: for "must be X, is Y".
std::string_view json_kind(const nlohmann::ordered_json& value);

}  // namespace switchyard::gateway
