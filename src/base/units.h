// Sizes and durations as people write them.
//
// Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard {

// "1073741824", "512MiB", "2 GiB", "1.5GB"; K, M and G alone are powers of 1024. Errors: invalid.
Result<std::uint64_t> parse_bytes(std::string_view text);

// "10s", "100ms", "2.5s", "3min"; a plain number is seconds. Errors: invalid.
Result<Nanos> parse_duration(std::string_view text);

// "1.23 GiB", "640 B".
std::string format_bytes(std::uint64_t bytes);

// What a setting must be given to hold so many bytes: "98MiB". parse_bytes() reads it as no less.
std::string setting_for(std::uint64_t bytes);

}  // namespace switchyard
