// What a simulation is told as: JSON, text, SVG. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "simulate/simulator.h"

namespace switchyard::simulate {

nlohmann::ordered_json to_json(const SimulationInput& input, const SimulationResult& result);
std::string to_text(const SimulationInput& input, const SimulationResult& result);
// Who held which instance when (needs SimulationInput::record_lanes), and attainment over time.
std::string to_svg(const SimulationInput& input, const SimulationResult& result);

}  // namespace switchyard::simulate
