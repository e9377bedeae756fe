// Keeps refusals of strangers from flooding the log: one line per source and minute, and no more lines per
// minute than the table has rows, however many sources there are. The worker's; bounded.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/time.h"

namespace switchyard::transfer {

class RefusalLog {
 public:
  // Logs a warning, or counts what it leaves out; the next line says how many those were.
  void warn(std::string_view source, std::string_view what, TimePoint now);

 private:
  static constexpr std::size_t kRows = 64;
  static constexpr Nanos kPause = std::chrono::minutes(1);

  struct Row {
    std::string source;
    TimePoint logged;
  };
  std::vector<Row> rows_;
  std::uint64_t left_out_ = 0;
};

}  // namespace switchyard::transfer
