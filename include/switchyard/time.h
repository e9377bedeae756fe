// Time as the product uses it: monotonic nanoseconds. State machines take `now` from outside, so that a
// simulator can step them; only programs and worker threads read the clock.
#pragma once

#include <chrono>

namespace switchyard {

using Nanos = std::chrono::nanoseconds;

// A point of monotonic time. Deadline::max() means "no deadline".
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Nanos>;

inline TimePoint monotonic_now() { return std::chrono::steady_clock::now(); }

inline double to_seconds(Nanos duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace switchyard
