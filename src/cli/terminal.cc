#include "cli/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace switchyard::cli {

int report(const Error& error) {
  fmt::print(stderr, "switchyard: {}\n", error.message);
  return error.code == ErrorCode::invalid ? 2 : 1;
}

ProgressBar::ProgressBar(std::string label, std::string unit)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(monotonic_now()) {}

std::string ProgressBar::amount(std::uint64_t done, std::uint64_t total) const {
  return unit_.empty() ? fmt::format("{} of {} MB", done / 1000000, total / 1000000)
                       : fmt::format("{} of {} {}", done, total, unit_);
}

ProgressBar::~ProgressBar() {
  if (open_ && terminal_) fmt::print(stderr, "\n");
}

void ProgressBar::update(std::uint64_t done, std::uint64_t total) {
  constexpr Nanos kQuiet = std::chrono::milliseconds(200);
  constexpr Nanos kRedraw = std::chrono::milliseconds(50);
  const TimePoint now = monotonic_now();
  if (total == 0 || (!open_ && now - start_ < kQuiet)) return;
  done = std::min(done, total);
  const int percent = static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total));
  if (!terminal_) {
    if (open_ && percent / 10 == tenth_) return;
    tenth_ = percent / 10;
    open_ = true;
    fmt::print(stderr, "{}: {} %, {}\n", label_, percent, amount(done, total));
    return;
  }
  if (open_ && done != total && now - drawn_ < kRedraw) return;
  open_ = true;
  drawn_ = now;
  const std::string filled(static_cast<std::size_t>(percent) * 3 / 10, '#');
  fmt::print(stderr, "\r{}  [{:<30}] {:3} %  {} ", label_, filled, percent, amount(done, total));
  std::fflush(stderr);
}

std::function<void(std::uint64_t, std::uint64_t)> ProgressBar::callback() {
  return [this](std::uint64_t done, std::uint64_t total) { update(done, total); };
}

std::filesystem::path program_path() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error);
}

}  // namespace switchyard::cli
