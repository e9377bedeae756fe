// Writes what was measured of models on a machine in the forms that the simulator reads: the CSV of
// parse_profile() and a model map. Pure.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "simulate/model_map.h"
#include "simulate/step_times.h"

namespace switchyard::simulate {

struct ProfiledModel {
  std::string name;  // of the map's entry, and of the profile's rows
  std::uint64_t bytes = 0;
  std::uint64_t kv_bytes_per_token = 0;
  std::vector<MeasuredStep> steps;
};

// The header and a row for each step; names lose the characters that a table without quotes cannot hold.
std::string profile_csv(std::span<const ProfiledModel> models, const std::string& gpu);
// The first line says in a comment what made it.
std::string model_map_yaml(std::span<const ProfiledModel> models, const std::string& gpu,
                           const Accelerator& accelerator);
// Without commas, quotes, control characters and spaces at the ends.
std::string table_name(std::string_view name);

}  // namespace switchyard::simulate
