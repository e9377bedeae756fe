// Log lines, to standard error. Thread-safe; never called on the data path.
//
// The level comes from SWITCHYARD_LOG (trace, debug, info, warn, error, off); `info` is what a user wants to
// read. An error is logged once, where it is found.
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

namespace switchyard::log {

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::trace;
using spdlog::warn;

// Sets the line format and the level. `process` is shown in every line ("gateway", "decode-0"). Called again, it replaces what was set.
void start(std::string_view process, std::string_view default_level = "info");

}  // namespace switchyard::log
