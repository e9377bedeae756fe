// What an instance does, by name.
#pragma once

#include <string_view>

#include "schedule/types.h"
#include "switchyard/result.h"

namespace switchyard::pool {

using schedule::Role;

std::string_view to_string(Role role);  // "prefill", "decode", "unified"
// Errors: invalid.
Result<Role> parse_role(std::string_view text);

}  // namespace switchyard::pool
