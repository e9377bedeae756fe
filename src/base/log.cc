#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include <cstdlib>
#include <memory>
#include <string>

namespace switchyard::log {

void start(std::string_view process, std::string_view default_level) {
  // Not by spdlog's registry, which refuses a name that it has.
  auto logger = std::make_shared<spdlog::logger>(std::string(process),
                                                 std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  const char* level = std::getenv("SWITCHYARD_LOG");
  logger->set_level(spdlog::level::from_str(level != nullptr ? level : std::string(default_level)));
  logger->set_pattern("%H:%M:%S.%e %^%l%$ [%n] %v");
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace switchyard::log
