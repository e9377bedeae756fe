#include "transfer/arrival_log.h"

#include <cstring>

namespace switchyard::transfer {
namespace {

// Of numbers' lower 15 bits, which are less than half their range apart.
bool is_before(std::uint16_t a, std::uint16_t b) { return ((a - b) & 0x7fff) > 0x4000; }

}  // namespace

ArrivalLog::Outcome ArrivalLog::arrival(std::uint32_t immediate, CounterTable& counters) {
  const auto number = static_cast<std::uint16_t>(immediate & 0x7fff);
  Seen& seen = seen_[number % kArrivalWindow];
  if (!seen.any || seen.number != number) {
    // Numbers of one place differ by multiples of the window; an earlier one is a straggler.
    if (seen.any && is_before(number, seen.number)) return Outcome::stray;
    if (is_before(newest_, number)) newest_ = number;
    seen = {.number = number, .any = true};
  }
  const auto kind = (immediate & (1u << 15)) != 0 ? ArrivalKind::record : ArrivalKind::data;
  if (seen.counted) return Outcome::repeated;
  seen.kinds |= static_cast<std::uint8_t>(kind);
  // The peer wrote it before the immediate that makes the set complete, which came through the rail's queue.
  std::atomic_thread_fence(std::memory_order_acquire);
  ArrivalRecord record;
  std::memcpy(&record, &records_[number % kArrivalWindow], sizeof record);
  const std::uint32_t needs = record.number >> 30;
  if (record.session != session_ || (record.number & 0x7fff) != number || needs == 0 ||
      (seen.kinds & needs) != needs) {
    return Outcome::waiting;
  }
  seen.counted = true;
  if (unconfirmed_.empty() || is_before(number, oldest_unconfirmed_)) oldest_unconfirmed_ = number;
  unconfirmed_.push_back(number);
  return counters.arrival({record.slot, record.generation}) ? Outcome::counted : Outcome::stray;
}

std::vector<std::uint16_t> ArrivalLog::counted() const {
  std::vector<std::uint16_t> numbers;
  for (const Seen& seen : seen_) {
    if (seen.any && seen.counted) numbers.push_back(seen.number);
  }
  return numbers;
}

}  // namespace switchyard::transfer
