// What commands print: progress on long work, errors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::cli {

// Prints "switchyard: MESSAGE" to standard error; returns the exit status of a failed command.
int report(const Error& error);

// A bar on standard error: "Downloading model  [#####     ]  48 %  45 of 93 MB". Redrawn on a terminal;
// elsewhere a line at every tenth. Nothing is drawn for work that takes less than a moment. Without a unit
// the work is in bytes, which are shown in MB.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label, std::string unit = {});
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(std::uint64_t done, std::uint64_t total);
  std::function<void(std::uint64_t, std::uint64_t)> callback();

 private:
  std::string amount(std::uint64_t done, std::uint64_t total) const;

  const std::string label_, unit_;
  const bool terminal_;
  const TimePoint start_;
  TimePoint drawn_{};
  int tenth_ = 0;
  bool open_ = false;
};

// Path of the running program.
std::filesystem::path program_path();

}  // namespace switchyard::cli
