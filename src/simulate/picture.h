// A picture of a pool at work, simulated or real, as SVG: who held which instance when, attainment over time
// and of each model. Pure.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "simulate/simulator.h"

namespace switchyard::simulate {

struct PoolPicture {
  std::string title;
  double seconds = 0;               // width of the time axis, at least
  std::vector<std::string> lanes;   // names, by LaneSegment::instance
  std::vector<std::string> models;  // names, by LaneSegment::model
  std::vector<LaneSegment> segments;
  std::vector<double> attainment_by_10s;
  std::vector<double> attainment_by_model;  // as `models`; empty: not drawn
};

// One below the other, with one time axis, so that they can be compared.
std::string draw(std::span<const PoolPicture> pictures);

// Of a simulation that recorded its lanes.
PoolPicture picture_of(const SimulationInput& input, const SimulationResult& result);

}  // namespace switchyard::simulate
