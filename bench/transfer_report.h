// What the transfer benchmark found, and how it is shown: table, JSON, picture.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace switchyard::bench {

// One figure of every repeat.
struct Series {
  std::vector<double> values;

  bool empty() const { return values.empty(); }
  double median() const;
  double low() const;
  double high() const;
  // Half the distance of the outer values, as a share of the median.
  double spread() const;
};

struct TransferRow {
  enum class Kind : std::uint8_t { writes, pages, latency, idle_latency, message_latency, message_rate };
  Kind kind = Kind::writes;
  std::uint64_t bytes = 0;  // of a write, page or message
  std::uint32_t depth = 1;
  std::uint32_t pages = 0;  // of one list
  bool counter = false;
  bool scattered = false;
  // Bytes per second, messages per second, or seconds (the median of a repeat).
  Series engine, rail, plain;
  Series p99, p999;  // latencies of the engine
  // CPU seconds per byte of both processes, while the engine or the bare rail wrote.
  Series engine_cpu_near, engine_cpu_far, rail_cpu_near, rail_cpu_far;

  bool is_time() const;
  // How near the engine comes to the other figure: the medians of speeds, or of times the other way round.
  double ratio(const Series& other) const;
};

struct TransferReport {
  struct Fabric {
    std::string name;
    std::string error;  // why nothing was measured
    std::vector<TransferRow> rows;
  };
  std::string machine;
  double load_before = 0, load_after = 0;  // runnable processes on average, of the last minute
  double seconds = 0;
  std::uint32_t repeats = 0;
  std::uint64_t span = 0;
  std::vector<Fabric> fabrics;
};

std::string_view to_string(TransferRow::Kind kind);
std::string to_table(const TransferReport& report);
nlohmann::json to_json(const TransferReport& report);
// Throughput of single writes over their size, a panel for each fabric.
std::string to_svg(const TransferReport& report);

// "64 KiB"
std::string size_text(std::uint64_t bytes);

}  // namespace switchyard::bench
