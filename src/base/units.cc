#include "base/units.h"

#include <array>
#include <charconv>
#include <span>
#include <utility>

namespace switchyard {
namespace {

using Unit = std::pair<std::string_view, double>;

Result<double> quantity(std::string_view text, std::span<const Unit> units, std::string_view what,
                        std::string_view example) {
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  for (const auto& [name, factor] : units) {
    if (error == std::errc() && unit == name && value >= 0 && value * factor < 9e18) return value * factor;
  }
  return fail(ErrorCode::invalid, "'{}' is no {}; write {}", text.substr(0, 64), what, example);
}

}  // namespace

Result<std::uint64_t> parse_bytes(std::string_view text) {
  static constexpr std::array<Unit, 13> kUnits = {{{"", 1},
                                                   {"B", 1},
                                                   {"KB", 1e3},
                                                   {"MB", 1e6},
                                                   {"GB", 1e9},
                                                   {"TB", 1e12},
                                                   {"K", 1024},
                                                   {"M", 1048576},
                                                   {"G", 1073741824},
                                                   {"KiB", 1024},
                                                   {"MiB", 1048576},
                                                   {"GiB", 1073741824},
                                                   {"TiB", 1099511627776.0}}};
  const auto value = quantity(text, kUnits, "size", "15.6GB or 512MiB");
  if (!value) return pass(value.error());
  return static_cast<std::uint64_t>(*value);
}

Result<Nanos> parse_duration(std::string_view text) {
  static constexpr std::array<Unit, 5> kUnits = {
      {{"", 1e9}, {"s", 1e9}, {"ms", 1e6}, {"us", 1e3}, {"min", 60e9}}};
  const auto value = quantity(text, kUnits, "duration", "10s or 100ms");
  if (!value) return pass(value.error());
  return Nanos(static_cast<std::int64_t>(*value));
}

std::string format_bytes(std::uint64_t bytes) {
  static constexpr std::array<std::string_view, 4> kUnits = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.2f} {}", value, kUnits[unit]);
}

std::string setting_for(std::uint64_t bytes) {
  constexpr std::uint64_t kMiB = 1 << 20;
  return fmt::format("{}MiB", bytes / kMiB + (bytes % kMiB != 0));
}

}  // namespace switchyard
