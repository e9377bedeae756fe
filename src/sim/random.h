// A small generator of pseudo-random numbers (xoshiro256**, seeded through splitmix64): the same numbers
// from the same seed on every machine, which the distributions of the standard library do not promise.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "switchyard/time.h"

namespace switchyard::sim {

class Random {
 public:
  explicit Random(std::uint64_t seed) {
    for (std::uint64_t& word : state_) {
      seed += 0x9e3779b97f4a7c15;
      std::uint64_t mixed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9;
      mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
      word = mixed ^ (mixed >> 31);
    }
  }

  std::uint64_t next() {
    const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }
  // Below `limit`; 0 when that is 0. The bias of the remainder does not matter here.
  std::uint64_t below(std::uint64_t limit) { return limit == 0 ? 0 : next() % limit; }
  std::uint64_t between(std::uint64_t low, std::uint64_t high) { return low + below(high - low + 1); }
  bool chance(double probability) { return static_cast<double>(next() >> 11) * 0x1p-53 < probability; }
  Nanos duration(Nanos low, Nanos high) {
    if (high <= low) return low;
    return low + Nanos(static_cast<Nanos::rep>(below(static_cast<std::uint64_t>((high - low).count()) + 1)));
  }
  // Between the two, small ones as likely as large ones: for sizes.
  std::uint64_t magnitude(std::uint64_t low, std::uint64_t high) {
    const auto bits = between(std::bit_width(low), std::bit_width(high));
    const std::uint64_t top = bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
    const std::uint64_t bottom = bits == 0 ? 0 : std::uint64_t{1} << (bits - 1);
    const std::uint64_t value = between(bottom, top);
    return value < low ? low : value > high ? high : value;
  }

 private:
  std::array<std::uint64_t, 4> state_{};
};

}  // namespace switchyard::sim
