// Accelerators by name.
#include <array>
#include <utility>

#include "simulate/model_map.h"

namespace switchyard::simulate {

// Links: PCIe 5.0 (H) and 4.0 (A) with 16 lanes, of whose 64 and 32 GB/s some 62.5 % are reached.
std::optional<Accelerator> known_accelerator(std::string_view name) {
  constexpr double kPcie5 = 40e9;
  constexpr double kPcie4 = 20e9;
  constexpr std::uint64_t kGiB = 1 << 30;
  static constexpr std::array<std::pair<std::string_view, Accelerator>, 6> kKnown = {
      {{"H20", {96 * kGiB, kPcie5}},
       {"H100", {80 * kGiB, kPcie5}},
       {"H200", {141 * kGiB, kPcie5}},
       {"H800", {80 * kGiB, kPcie5}},
       {"A100", {80 * kGiB, kPcie4}},
       {"A10", {24 * kGiB, kPcie4}}}};
  for (const auto& [known, accelerator] : kKnown) {
    if (known == name) return accelerator;
  }
  return std::nullopt;
}

}  // namespace switchyard::simulate
