// What a replay comes to, in the simulator's own terms. Pure.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "replay.h"
#include "simulate/simulator.h"

namespace switchyard::bench {

struct ReplayOutcome {
  // Without what only a simulation knows. Failed requests are those that neither ended nor were shed
  // (`unfinished`); those that an interruption cut short or kept from being sent are `cancelled` and count
  // nowhere, as in a simulation.
  simulate::SimulationResult result;
  std::uint64_t short_answers = 0;  // ended with fewer tokens than asked for, which then count as all of them
  double latest_send = 0;           // seconds behind the workload: how late the client itself was
  double span = 0;                  // seconds of the workload that was replayed
  std::map<std::string, std::uint64_t> errors;  // of failed requests, the first kinds of them
};

// Tokens are due by the workload's times, not by when the client came to send. `targets`: as
// workload.models.
ReplayOutcome count(const simulate::Workload& workload, std::span<const schedule::Targets> targets,
                    const Replay& replay);

// A line of JSON for each request: when it was to be sent, was sent, each token, how it ended.
std::string record_lines(const simulate::Workload& workload, const Replay& replay);

}  // namespace switchyard::bench
