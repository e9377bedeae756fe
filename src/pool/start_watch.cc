#include "pool/start_watch.h"

#include <fmt/format.h>

#include <fstream>
#include <sstream>

namespace switchyard::pool {
namespace {

// utime and stime of proc(5), added up; nothing when the process is gone.
std::optional<std::uint64_t> processor_time(int process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  // The second field is a name, of any characters, in brackets.
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  constexpr int kFieldsBefore = 11;  // after the name
  std::istringstream fields(line.substr(name_end + 1));
  std::string skipped;
  for (int i = 0; i < kFieldsBefore; ++i) fields >> skipped;
  std::uint64_t user = 0, system = 0;
  if (!(fields >> user >> system)) return std::nullopt;
  return user + system;
}

}  // namespace

std::optional<std::string> StartWatch::look(TimePoint now, const StartLimits& limits) {
  if (process_ == 0) return std::nullopt;
  const auto used = processor_time(process_);
  if (!used) return std::nullopt;  // it has ended: the supervisor's business
  if (*used != used_) {
    used_ = *used;
    alive_ = now;
  }
  std::string why;
  if (now - alive_ >= limits.silence) {
    why = fmt::format("it gave no sign of life for {:.3g} s while it started", to_seconds(now - alive_));
  } else if (now - begun_ >= limits.longest) {
    why = fmt::format("it was not ready {:.3g} s after its start", to_seconds(now - begun_));
  } else {
    return std::nullopt;
  }
  process_ = 0;
  return why;
}

}  // namespace switchyard::pool
