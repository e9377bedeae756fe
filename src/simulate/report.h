// What a simulation is told as: JSON, text, SVG. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "simulate/simulator.h"

namespace switchyard::simulate {

// What is counted of simulated and of real pools alike: attainment, goodput over `span` seconds, tokens,
// endings, times to the first token.
void write_outcome(nlohmann::ordered_json& json, const SimulationResult& result, double span);
// An array with an object for each model.
nlohmann::ordered_json model_outcomes(const std::vector<std::string>& names, const SimulationResult& result);
std::vector<double> attainment_by_model(const SimulationResult& result);
double mean(const std::vector<double>& values);  // 0 without any

nlohmann::ordered_json to_json(const SimulationInput& input, const SimulationResult& result);
std::string to_text(const SimulationInput& input, const SimulationResult& result);
// Who held which instance when (needs SimulationInput::record_lanes), and attainment over time.
std::string to_svg(const SimulationInput& input, const SimulationResult& result);

}  // namespace switchyard::simulate
