// Reading tables of comma-separated values without quotes, as the workloads and profiles are. Pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::simulate {

// Calls `row(line_number, fields)` for each line but the first and empty ones; `header(fields)` comes before.
// Errors: what they return; invalid, for a line with another number of fields than the first.
template <class Header, class Row>
Status read_csv(std::string_view text, Header header, Row row) {
  std::vector<std::string_view> fields;
  std::size_t columns = 0;
  for (std::uint64_t line_number = 1; !text.empty(); ++line_number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) continue;
    fields.clear();
    for (;;) {
      const std::size_t comma = line.find(',');
      std::string_view field = line.substr(0, comma);
      while (!field.empty() && field.front() == ' ') field.remove_prefix(1);
      while (!field.empty() && field.back() == ' ') field.remove_suffix(1);
      fields.push_back(field);
      if (comma == std::string_view::npos) break;
      line.remove_prefix(comma + 1);
    }
    if (columns == 0) {
      columns = fields.size();
      if (Status status = header(fields); !status) return status;
      continue;
    }
    if (fields.size() != columns) {
      return fail(ErrorCode::invalid, "line {} has {} fields, the first line has {}", line_number,
                  fields.size(), columns);
    }
    if (Status status = row(line_number, fields); !status) return status;
  }
  if (columns == 0) return fail(ErrorCode::invalid, "the table is empty; its first line names the columns");
  return {};
}

// Errors: invalid, naming `what` and the line.
Result<double> csv_number(std::string_view field, std::string_view what, std::uint64_t line, double least,
                          double most);

}  // namespace switchyard::simulate
