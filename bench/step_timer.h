// Times prefills and decode steps of a model on this machine, through model::Runtime alone: no pool, no
// processes. Owned and used by one thread; the runtime's compute threads sleep between steps.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/image.h"
#include "model/runtime.h"
#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::bench {

// Runs `once` until `seconds` have passed, at least three times after one to warm up; the median of its
// times. What takes longer than four times `patience` by itself is run but once: that time is the answer.
template <class F>
Result<double> median_time(double seconds, F&& once, double patience = 1e9) {
  std::vector<double> times;
  const TimePoint start = monotonic_now();
  for (int i = 0; times.size() < 3 || to_seconds(monotonic_now() - start) < seconds; ++i) {
    const TimePoint before = monotonic_now();
    if (const Status status = once(); !status) return pass(status.error());
    const double time = to_seconds(monotonic_now() - before);
    if (i == 0 && time > 4 * patience) return time;
    if (i > 0) times.push_back(time);
    if (times.size() >= 10000) break;
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

struct StepTimerOptions {
  std::uint32_t threads = 0;        // 0: one per core
  std::uint32_t longest = 1;        // tokens of one prefill
  std::uint32_t chunk = 0;          // tokens of one of its steps; 0: all
  std::uint32_t batch = 1;          // requests of one decode step, at most
  std::uint64_t decode_tokens = 1;  // requests times (context + 1), at most, each rounded up to blocks
  double seconds = 1;               // of each measurement, about
  double patience = 1e9;            // see median_time
};

class StepTimer {
 public:
  // Errors: those of the runtime; exhausted.
  static Result<std::unique_ptr<StepTimer>> create(std::shared_ptr<const model::ModelImage> image,
                                                   const StepTimerOptions& options);

  // Seconds of one prompt.
  Result<double> prefill(std::uint32_t tokens);
  // Seconds of one step of `batch` requests with `context` tokens each. Keys and values are whatever is in
  // the pool, zeros at first, so that no number is unusual: their values do not change the time.
  Result<double> decode(std::uint32_t batch, std::uint32_t context);

  const model::ModelImage& image() const { return *image_; }
  std::uint32_t threads() const { return threads_; }

 private:
  StepTimer(std::shared_ptr<const model::ModelImage> image, const StepTimerOptions& options);

  std::shared_ptr<const model::ModelImage> image_;
  StepTimerOptions options_;
  std::uint32_t threads_;
  std::vector<std::byte> bytes_;
  std::span<std::byte> pool_;
  std::vector<std::uint32_t> blocks_;
  std::vector<std::int32_t> tokens_;
  std::vector<float> logits_;
  std::unique_ptr<model::Runtime> runtime_;
};

// Tokens of KV that a decode measurement takes.
std::uint64_t decode_tokens(std::uint32_t batch, std::uint32_t context);

// Bytes per second at which one thread copies the image's bytes into other memory, as a load does. Median of
// a few copies after one to warm up, about `seconds` long.
double copy_rate(const model::ModelImage& image, double seconds);

}  // namespace switchyard::bench
