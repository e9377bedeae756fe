// The near side's loops: one measurement each, by the engine or by bare rails, for about so many seconds.
// They start and end with nothing under way. Errors: what a write failed with, timed_out.
#pragma once

#include <cstdint>
#include <vector>

#include "transfer_side.h"

namespace switchyard::bench {

// Writes that move through memory: write i of lane l goes to place (l + i * depth) of those that the span
// has. Never two under way to one place, unless the span is too small for that.
struct WriteLoad {
  std::uint64_t bytes = 0;  // of one write
  std::uint32_t depth = 1;  // writes under way
  std::uint64_t span = 0;   // memory that they move through; 0: depth * bytes
  bool counter = false;     // each is counted by the other side (bare rails: carries an immediate)
};

// Page lists. The bare rail writes the same pages one by one, with as many under way as its window has.
struct PageLoad {
  std::uint64_t page_bytes = 0;
  std::uint32_t pages = 0;  // of one list
  std::uint32_t depth = 1;  // lists under way
  bool scattered = true;    // by a fixed shuffle; else in order on both sides
};

struct Throughput {
  double bytes_per_second = 0;
  double writes_per_second = 0;  // or messages, or pages
  double bytes = 0;
};

// Half of round trips, in seconds, sorted.
using Times = std::vector<double>;
double percentile(const Times& sorted, double share);

// Between polls that found nothing: spins for a moment, then lets others run, as the engine's worker does.
class Patience {
 public:
  void found(bool anything);

 private:
  TimePoint last_{};
};

Result<Throughput> engine_writes(Side& side, const WriteLoad& load, double seconds);
Result<Throughput> engine_pages(Side& side, const PageLoad& load, double seconds);
Result<Throughput> engine_messages(Side& side, std::uint64_t bytes, std::uint32_t depth, double seconds);
// Rounds follow each other; with a pause, both sides have had time to fall asleep before each.
Result<Times> engine_echoes(Side& side, double seconds, Nanos pause = {});
Result<Times> engine_message_echoes(Side& side, double seconds);

// The far side is in progress() meanwhile.
Result<Throughput> rail_writes(RailSet& set, std::byte* base, const WriteLoad& load, double seconds);
Result<Throughput> rail_pages(RailSet& set, std::byte* base, const PageLoad& load, double seconds);
Result<Times> rail_echoes(RailSet& set, std::byte* base, double seconds);

}  // namespace switchyard::bench
