// Runs of `switchyard bench pool` as a table, JSON and a picture. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "pool_bench.h"

namespace switchyard::bench {

// Figures down, runs across; a run with a prediction has it beside itself, with the relative difference.
std::string to_table(std::span<const PoolRun> runs);
// Keys are those of `switchyard simulate --json`, where they mean the same. One run is an object, several are
// an array.
nlohmann::ordered_json to_json(std::span<const PoolRun> runs);
// Who held which instance when (of runs with a trace), attainment over time and of each model.
std::string to_svg(std::span<const PoolRun> runs);

// (measured - predicted) / predicted; 0 where both are 0.
double relative_difference(double measured, double predicted);

}  // namespace switchyard::bench
