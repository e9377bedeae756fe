// The random test of the transfer engine: a seed makes a network, engines, operations and faults, and the
// ledger watches over all of it (ledger.h). The same seed gives the same run, event by event.
//
// Threads: run_simtest may run on several at the same time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/time.h"

namespace switchyard::sim {

struct SimtestResult {
  std::uint64_t seed = 0;
  std::string scenario;                  // in words
  std::optional<std::string> violation;  // the rule that was broken, and how
  TimePoint when{};                      // virtual time of it, or of the end; a run begins at 1 s
  std::uint64_t trace_hash = 0;          // the same for the same run
  std::uint64_t events = 0;
  std::vector<std::string> latest_events;  // when a rule was broken
  std::uint64_t operations = 0, operations_ok = 0, operations_failed = 0;
  std::uint64_t bytes_landed = 0;
  std::uint64_t failovers = 0, requests_sent_again = 0, repeated_arrivals = 0, peers_lost = 0;
};

SimtestResult run_simtest(std::uint64_t seed, std::size_t events_shown = 200);

}  // namespace switchyard::sim
