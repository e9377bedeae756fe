#include "simulate/csv.h"

#include <charconv>

namespace switchyard::simulate {

Result<double> csv_number(std::string_view field, std::string_view what, std::uint64_t line, double least,
                          double most) {
  double value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc{} || end != field.data() + field.size() || !(value >= least) || !(value <= most)) {
    return fail(ErrorCode::invalid, "line {}: {} is '{}'; a number from {} to {} is needed", line, what,
                field.substr(0, 64), least, most);
  }
  return value;
}

}  // namespace switchyard::simulate
