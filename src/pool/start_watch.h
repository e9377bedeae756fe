// Whether a process that was started still gets anywhere.
//
// Before an instance has said hello nothing comes of it, and with much memory to take it may be long before
// it does. Until then the processor time that it has used is its sign of life: one that was stopped, or waits
// for ever, uses none. One that goes round in circles is given up when it has had far too long.
//
// Owned by the dispatcher, one for each instance; under its lock. A look costs the reading of one small file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "switchyard/time.h"

namespace switchyard::pool {

struct StartLimits {
  Nanos silence = std::chrono::seconds(20);  // without a sign of life
  Nanos longest = std::chrono::minutes(5);   // in all
};

class StartWatch {
 public:
  StartWatch() = default;  // of nothing
  StartWatch(int process, TimePoint now) : process_(process), begun_(now), alive_(now) {}

  // Why it is to be given up, if it is; said once.
  std::optional<std::string> look(TimePoint now, const StartLimits& limits);

 private:
  int process_ = 0;
  TimePoint begun_{};
  TimePoint alive_{};       // the last sign of life
  std::uint64_t used_ = 0;  // processor time, in whatever unit
};

}  // namespace switchyard::pool
