#include "gateway/json_reader.h"

#include <array>

namespace switchyard::gateway {
namespace {

constexpr std::size_t kMaxMessage = 300;  // bytes of the parser's words that are passed on

ApiError invalid_json(std::string message) {
  ApiError error;
  error.message = std::move(message);
  error.code = "invalid_json";
  return error;
}

// Says what is beyond the limits, or nothing. Agrees with a JSON parser on every text up to the first syntax
// error, behind which the parser does not look.
std::optional<ApiError> find_excess(std::string_view text) {
  std::array<std::size_t, kMaxJsonDepth> fields{};  // of the object open at each level
  std::size_t depth = 0;
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
      if (depth == kMaxJsonDepth) {
        return invalid_json(
            fmt::format("The request body is nested deeper than {} levels, at byte {}.", kMaxJsonDepth, i));
      }
      fields[depth++] = 0;
    } else if (c == ']' || c == '}') {
      if (depth > 0) --depth;
    } else if (c == ':' && depth > 0 && ++fields[depth - 1] > kMaxJsonFields) {
      return invalid_json(fmt::format("The request body has an object of more than {} fields, at byte {}.",
                                      kMaxJsonFields, i));
    }
  }
  return std::nullopt;
}

}  // namespace

ApiResult<nlohmann::ordered_json> parse_json_object(std::string_view text) {
  if (auto excess = find_excess(text)) return tl::unexpected(std::move(*excess));
  try {
    nlohmann::ordered_json json = nlohmann::ordered_json::parse(text.begin(), text.end());
    if (!json.is_object()) {
      return tl::unexpected(
          invalid_json(fmt::format("The request body must be a JSON object, is {}.", json_kind(json))));
    }
    return json;
  } catch (const nlohmann::ordered_json::exception& exception) {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: …": only the words after the
    // bracket.
    std::string_view what = exception.what();
    if (const auto bracket = what.find("] "); bracket != std::string_view::npos)
      what.remove_prefix(bracket + 2);
    what = what.substr(0, kMaxMessage);
    return tl::unexpected(invalid_json(fmt::format("The request body is not valid JSON: {}", what)));
  }
}

std::string_view json_kind(const nlohmann::ordered_json& value) {
  switch (value.type()) {
    case nlohmann::ordered_json::value_t::null:
      return "null";
    case nlohmann::ordered_json::value_t::object:
      return "an object";
    case nlohmann::ordered_json::value_t::array:
      return "an array";
    case nlohmann::ordered_json::value_t::string:
      return "a string";
    case nlohmann::ordered_json::value_t::boolean:
      return "a boolean";
    case nlohmann::ordered_json::value_t::number_integer:
    case nlohmann::ordered_json::value_t::number_unsigned:
      return "an integer";
    case nlohmann::ordered_json::value_t::number_float:
      return "a number";
    default:
      return "something else";
  }
}

const nlohmann::ordered_json* FieldReader::find(const char* key) const {
  if (error_) return nullptr;
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

std::optional<bool> FieldReader::boolean(const char* key) {
  const auto* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  fail(key, "must be a boolean, is {}.", json_kind(*value));
  return std::nullopt;
}

std::optional<std::int64_t> FieldReader::integer(const char* key, std::int64_t least, std::int64_t most) {
  const auto* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer()) {
    fail(key, "must be an integer, is {}.", json_kind(*value));
    return std::nullopt;
  }
  const bool too_large =
      value->is_number_unsigned() &&
      value->get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()};
  if (too_large || value->get<std::int64_t>() < least || value->get<std::int64_t>() > most) {
    fail(key, "must be from {} to {}, is {}.", least, most, value->dump());
    return std::nullopt;
  }
  return value->get<std::int64_t>();
}

std::optional<double> FieldReader::number(const char* key, double least, double most) {
  const auto* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) {
    fail(key, "must be a number, is {}.", json_kind(*value));
    return std::nullopt;
  }
  const auto number = value->get<double>();
  if (!(number >= least && number <= most)) {
    fail(key, "must be from {} to {}, is {}.", least, most, number);
    return std::nullopt;
  }
  return number;
}

std::optional<std::string> FieldReader::string(const char* key) {
  const auto* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  fail(key, "must be a string, is {}.", json_kind(*value));
  return std::nullopt;
}

const nlohmann::ordered_json* FieldReader::array(const char* key) {
  const auto* value = find(key);
  if (value == nullptr || value->is_array()) return value;
  fail(key, "must be an array, is {}.", json_kind(*value));
  return nullptr;
}

const nlohmann::ordered_json* FieldReader::object(const char* key) {
  const auto* value = find(key);
  if (value == nullptr || value->is_object()) return value;
  fail(key, "must be an object, is {}.", json_kind(*value));
  return nullptr;
}

void FieldReader::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

}  // namespace switchyard::gateway
