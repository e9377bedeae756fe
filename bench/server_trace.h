// What a server writes with --trace: lines of JSON about turns, switches and moves. Read into lanes of a
// picture and figures of switches. Pure; bounded by kMaxEvents.
//
//   {"t":seconds since start, "event":"switch", "instance":, "model":, "from":, "bytes":, "load_seconds":,
//    "wait_seconds":, "hidden":bool}
//   {"t":, "event":"turn", "instance":, "model":, "kind":"prefill"|"decode", "seconds":, "rows":, "tokens":}
//   {"t":, "event":"move", "request":, "from":, "to":, "bytes":, "seconds":}
//
// `t` is when what took `seconds` was over. Other events are skipped, and so are lines that are no JSON: the
// last one may be cut off.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "simulate/simulator.h"

namespace switchyard::bench {

struct ServerTrace {
  static constexpr std::size_t kMaxEvents = 4'000'000;

  std::vector<std::string> instances;  // in alphabetical order
  std::vector<std::string> models;
  std::vector<simulate::LaneSegment>
      segments;  // by instance and model; begin and end since the replay's start
  struct Work {
    double tokens = 0;
    double seconds = 0;

    double rate() const { return seconds > 0 ? tokens / seconds : 0; }
  };
  Work prefill, decode;  // of turns, all instances together
  std::uint64_t switches = 0;
  std::uint64_t hidden = 0;            // switches that waited for no load
  std::vector<double> switch_seconds;  // what each waited
  std::uint64_t loads = 0;             // switches that came with bytes
  double load_bytes = 0;
  double load_seconds = 0;
  std::uint64_t moves = 0;
  double move_bytes = 0;
  std::uint64_t skipped = 0;  // lines that were not understood

  double hidden_share() const {
    return switches == 0 ? 1 : static_cast<double>(hidden) / static_cast<double>(switches);
  }
};

// `start`: the replay's beginning on the trace's clock. What was over before is left out. Models keep the
// order of `models`; others follow.
ServerTrace read_trace(std::string_view lines, double start, const std::vector<std::string>& models);

// When the first prefill was over, on the trace's clock.
std::optional<double> first_prefill(std::string_view lines);

}  // namespace switchyard::bench
