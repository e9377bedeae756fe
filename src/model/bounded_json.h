// JSON from outside: depth and number of values are limited before anything is built from it.
//
// Costs one pass over the text besides nlohmann's. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "switchyard/result.h"

namespace switchyard::model {

struct JsonLimits {
  std::size_t depth = 64;
  std::size_t values = 1u << 23;
};

// An object whose own keys are all different. Errors: corrupt (with the place), unsupported (beyond the
// limits).
Result<nlohmann::json> parse_json_object(std::string_view text, const JsonLimits& limits = {});

// The member's value when it is there, is not null and has the type; integers as such, floats that are whole
// numbers too. Errors: corrupt, naming key and what was expected. Absent or null: nullopt.
Result<std::optional<std::uint64_t>> json_integer(const nlohmann::json& object, std::string_view key);
Result<std::optional<double>> json_number(const nlohmann::json& object, std::string_view key);
Result<std::optional<bool>> json_boolean(const nlohmann::json& object, std::string_view key);
Result<std::optional<std::string>> json_string(const nlohmann::json& object, std::string_view key);

}  // namespace switchyard::model
