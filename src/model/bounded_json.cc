#include "model/bounded_json.h"

#include <cmath>
#include <set>

namespace switchyard::model {
namespace {

// Counts brackets and separators outside of strings. A text that is no JSON may count anything: the parser
// refuses it.
Status check_limits(std::string_view text, const JsonLimits& limits) {
  std::size_t depth = 0;
  std::size_t values = 1;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      ++values;
      if (++depth > limits.depth) {
        return fail(ErrorCode::unsupported, "JSON is nested deeper than {} (at byte {})", limits.depth, i);
      }
    } else if (c == ']' || c == '}') {
      if (depth > 0) --depth;
    } else if (c == ',' || c == ':') {
      if (++values > limits.values) {
        return fail(ErrorCode::unsupported, "JSON has more than {} values (at byte {})", limits.values, i);
      }
    }
  }
  return {};
}

const nlohmann::json* member(const nlohmann::json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

}  // namespace

Result<nlohmann::json> parse_json_object(std::string_view text, const JsonLimits& limits) {
  if (auto status = check_limits(text, limits); !status) return pass(status.error());
  std::set<std::string> keys;
  std::string repeated;
  const auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth == 1 && event == nlohmann::json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.insert(key).second && repeated.empty()) repeated = key;
    }
    return true;
  };
  try {
    nlohmann::json parsed = nlohmann::json::parse(text, watch);
    if (!parsed.is_object()) return fail(ErrorCode::corrupt, "JSON is {}, not an object", parsed.type_name());
    if (!repeated.empty()) return fail(ErrorCode::corrupt, "key '{}' is there twice", repeated);
    return parsed;
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::corrupt, "not valid JSON: {}", error.what());
  }
}

Result<std::optional<std::uint64_t>> json_integer(const nlohmann::json& object, std::string_view key) {
  const nlohmann::json* value = member(object, key);
  if (value == nullptr) return std::nullopt;
  if (value->is_number_unsigned()) return value->get<std::uint64_t>();
  if (value->is_number_float()) {
    const double number = value->get<double>();
    if (number >= 0 && number < 0x1p53 && number == std::floor(number))
      return static_cast<std::uint64_t>(number);
  }
  return fail(ErrorCode::corrupt, "'{}' must be a whole number that is not negative", key);
}

Result<std::optional<double>> json_number(const nlohmann::json& object, std::string_view key) {
  const nlohmann::json* value = member(object, key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) return fail(ErrorCode::corrupt, "'{}' must be a number", key);
  return value->get<double>();
}

Result<std::optional<bool>> json_boolean(const nlohmann::json& object, std::string_view key) {
  const nlohmann::json* value = member(object, key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) return fail(ErrorCode::corrupt, "'{}' must be true or false", key);
  return value->get<bool>();
}

Result<std::optional<std::string>> json_string(const nlohmann::json& object, std::string_view key) {
  const nlohmann::json* value = member(object, key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) return fail(ErrorCode::corrupt, "'{}' must be a string", key);
  return value->get<std::string>();
}

}  // namespace switchyard::model
