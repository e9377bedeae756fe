#include "transfer_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace switchyard::bench {
namespace {

using Kind = TransferRow::Kind;
using nlohmann::json;

// "12.34 GB/s", "3.1 µs", "42 k/s"
std::string figure(const TransferRow& row, double value) {
  if (row.is_time()) return fmt::format("{:.2f}", value * 1e6);
  if (row.kind == Kind::message_rate) return fmt::format("{:.1f}", value / 1e3);
  return fmt::format("{:.2f}", value / 1e9);
}

std::string cell(const TransferRow& row, const Series& series) {
  if (series.empty()) return fmt::format("{:>8} {:>5}", "-", "");
  return fmt::format("{:>8} {:>4.0f}%", figure(row, series.median()), series.spread() * 100);
}

std::string ratio_cell(const TransferRow& row, const Series& other) {
  return other.empty() ? fmt::format("{:>6}", "-") : fmt::format("{:>6.2f}", row.ratio(other));
}

std::string_view unit(Kind kind) {
  switch (kind) {
    case Kind::writes:
    case Kind::pages:
      return "GB/s";
    case Kind::message_rate:
      return "thousands/s";
    default:
      return "us";
  }
}

std::string_view heading(Kind kind) {
  switch (kind) {
    case Kind::writes:
      return "single writes";
    case Kind::pages:
      return "page lists, counted (the engine may join pages that are adjacent; rails write each)";
    case Kind::latency:
      return "8-byte write with counter, half a round trip";
    case Kind::idle_latency:
      return "the same after 5 ms of silence";
    case Kind::message_latency:
      return "message, half a round trip";
    case Kind::message_rate:
      return "messages";
  }
  return "";
}

json series_json(const Series& series) {
  if (series.empty()) return nullptr;
  return {
      {"median", series.median()}, {"low", series.low()}, {"high", series.high()}, {"values", series.values}};
}

}  // namespace

double Series::median() const {
  if (values.empty()) return 0;
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
double Series::low() const { return values.empty() ? 0 : *std::min_element(values.begin(), values.end()); }
double Series::high() const { return values.empty() ? 0 : *std::max_element(values.begin(), values.end()); }
double Series::spread() const {
  const double middle = median();
  return middle > 0 ? (high() - low()) / 2 / middle : 0;
}

bool TransferRow::is_time() const {
  return kind == Kind::latency || kind == Kind::idle_latency || kind == Kind::message_latency;
}
double TransferRow::ratio(const Series& other) const {
  const double mine = engine.median(), theirs = other.median();
  if (mine <= 0 || theirs <= 0) return 0;
  return is_time() ? theirs / mine : mine / theirs;
}

std::string_view to_string(Kind kind) {
  switch (kind) {
    case Kind::writes:
      return "writes";
    case Kind::pages:
      return "pages";
    case Kind::latency:
      return "latency";
    case Kind::idle_latency:
      return "latency_after_pause";
    case Kind::message_latency:
      return "message_latency";
    case Kind::message_rate:
      return "message_rate";
  }
  return "";
}

std::string size_text(std::uint64_t bytes) {
  if (bytes >= 1 << 20 && bytes % (1 << 20) == 0) return fmt::format("{} MiB", bytes >> 20);
  if (bytes >= 1 << 10 && bytes % (1 << 10) == 0) return fmt::format("{} KiB", bytes >> 10);
  return fmt::format("{} B", bytes);
}

std::string to_table(const TransferReport& report) {
  std::string text = fmt::format(
      "{}; load {:.1f} before, {:.1f} after\n"
      "Medians of {} runs of {} s each in turns, with half their range in percent. rail: the same through "
      "the\n"
      "bare rail. libfabric: fi_writemsg with the provider's default completion. Ratio: engine over the "
      "other\n"
      "(for times the other over the engine): above 1 the engine is ahead.\n",
      report.machine, report.load_before, report.load_after, report.repeats, report.seconds);
  for (const TransferReport::Fabric& fabric : report.fabrics) {
    text += fmt::format("\n{}\n", fabric.name);
    if (!fabric.error.empty()) text += fmt::format("  not measured: {}\n", fabric.error);
    const TransferRow* before = nullptr;
    for (const TransferRow& row : fabric.rows) {
      if (before == nullptr || before->kind != row.kind) {
        text += fmt::format("\n  {}, {}\n", heading(row.kind), unit(row.kind));
        text += fmt::format("  {:>8} {:>6} {:>10} {:>8} {:>5} {:>8} {:>5} {:>6} {:>9} {:>4} {:>6}", "size",
                            row.kind == Kind::pages ? "lists" : "depth",
                            row.kind == Kind::pages ? "order" : "counter", "engine", "+-", "rail", "+-",
                            "ratio", "libfabric", "+-", "ratio");
        if (row.is_time()) {
          text += fmt::format(" {:>8} {:>8}\n", "p99", "p99.9");
        } else {
          text += fmt::format(" {:>13} {:>13}\n", "CPU s/GB here", "and there");
        }
      }
      const std::string_view third = row.kind == Kind::pages ? (row.scattered ? "scattered" : "adjacent")
                                     : row.counter           ? "yes"
                                                             : "no";
      text += fmt::format("  {:>8} {:>6} {:>10} {} {} {} {} {}", size_text(row.bytes), row.depth, third,
                          cell(row, row.engine), cell(row, row.rail), ratio_cell(row, row.rail),
                          cell(row, row.plain), ratio_cell(row, row.plain));
      if (row.is_time()) {
        text += fmt::format(" {:>8.2f} {:>8.2f}\n", row.p99.median() * 1e6, row.p999.median() * 1e6);
      } else if (row.engine_cpu_near.empty()) {
        text += "\n";
      } else {
        text += fmt::format(" {:>13.3f} {:>13.3f}\n", row.engine_cpu_near.median() * 1e9,
                            row.engine_cpu_far.median() * 1e9);
      }
      before = &row;
    }
  }
  return text;
}

json to_json(const TransferReport& report) {
  json root = {{"benchmark", "transfer"},
               {"machine", report.machine},
               {"load_before", report.load_before},
               {"load_after", report.load_after},
               {"seconds", report.seconds},
               {"repeats", report.repeats},
               {"span", report.span},
               {"fabrics", json::array()}};
  for (const TransferReport::Fabric& fabric : report.fabrics) {
    json rows = json::array();
    for (const TransferRow& row : fabric.rows) {
      json item = {{"kind", to_string(row.kind)},
                   {"bytes", row.bytes},
                   {"depth", row.depth},
                   {"counter", row.counter},
                   {"unit", row.is_time()                    ? "seconds"
                            : row.kind == Kind::message_rate ? "messages/s"
                                                             : "bytes/s"},
                   {"engine", series_json(row.engine)},
                   {"rail", series_json(row.rail)},
                   {"libfabric", series_json(row.plain)}};
      if (!row.rail.empty()) item["ratio_rail"] = row.ratio(row.rail);
      if (!row.plain.empty()) item["ratio_libfabric"] = row.ratio(row.plain);
      if (row.kind == Kind::pages) {
        item["pages"] = row.pages;
        item["scattered"] = row.scattered;
      }
      if (row.is_time()) {
        item["p99"] = series_json(row.p99);
        item["p99_9"] = series_json(row.p999);
      }
      if (!row.engine_cpu_near.empty()) {
        item["cpu_seconds_per_byte"] = {{"engine_near", row.engine_cpu_near.median()},
                                        {"engine_far", row.engine_cpu_far.median()},
                                        {"rail_near", row.rail_cpu_near.median()},
                                        {"rail_far", row.rail_cpu_far.median()}};
      }
      rows.push_back(std::move(item));
    }
    root["fabrics"].push_back({{"fabric", fabric.name}, {"rows", std::move(rows)}});
    if (!fabric.error.empty()) root["fabrics"].back()["error"] = fabric.error;
  }
  return root;
}

}  // namespace switchyard::bench
