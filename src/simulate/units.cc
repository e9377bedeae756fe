#include <array>
#include <charconv>
#include <utility>

#include "simulate/model_map.h"

namespace switchyard::simulate {
namespace {

using Unit = std::pair<std::string_view, double>;

Result<double> quantity(std::string_view text, std::span<const Unit> units, std::string_view example) {
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  for (const auto& [name, factor] : units) {
    if (error == std::errc() && unit == name && value >= 0 && value * factor < 9e18) return value * factor;
  }
  return fail(ErrorCode::invalid, "'{}' is not understood; write {}", text.substr(0, 64), example);
}

}  // namespace

Result<std::uint64_t> parse_bytes(std::string_view text) {
  static constexpr std::array<Unit, 9> kUnits = {{{"", 1},
                                                  {"B", 1},
                                                  {"KB", 1e3},
                                                  {"MB", 1e6},
                                                  {"GB", 1e9},
                                                  {"TB", 1e12},
                                                  {"KiB", 1024},
                                                  {"MiB", 1048576},
                                                  {"GiB", 1073741824}}};
  const auto value = quantity(text, kUnits, "15.6GB or 512MiB");
  if (!value) return pass(value.error());
  return static_cast<std::uint64_t>(*value);
}

Result<Nanos> parse_duration(std::string_view text) {
  static constexpr std::array<Unit, 5> kUnits = {
      {{"", 1e9}, {"s", 1e9}, {"ms", 1e6}, {"us", 1e3}, {"min", 60e9}}};
  const auto value = quantity(text, kUnits, "10s or 100ms");
  if (!value) return pass(value.error());
  return Nanos(static_cast<std::int64_t>(*value));
}

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
