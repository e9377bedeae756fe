// The fewest accelerators that serve a mix of models, found by simulation.
//
// Models are grouped by how many accelerators one instance of theirs takes: an instance serves models of one
// width. For each width the number of instances is searched (the smallest that reaches the attainment with
// every seed), and beside it what one deployment per model takes. On the caller's thread; seconds.
#pragma once

#include <nlohmann/json.hpp>

#include "simulate/model_map.h"

namespace switchyard::simulate {

struct PlanOptions {
  std::vector<ModelEntry> models;
  Profile profile;
  Accelerator accelerator;
  schedule::PolicyKind policy = schedule::PolicyKind::slack;
  schedule::PolicyOptions policy_options;
  schedule::Targets targets;
  double attainment = 0.9;
  bool each_model = false;  // every model is to reach it, not only all together
  double seconds = 600;
  Lengths input{.mean = 700, .sigma = 1.2, .most = 8192};
  Lengths output{.mean = 290, .sigma = 0.9, .most = 2048};
  std::uint64_t seed = 1;
  std::uint32_t seeds = 3;  // workloads that each plan must serve
};

struct WidthPlan {
  std::uint32_t gpus = 1;  // per instance
  std::size_t models = 0;
  std::uint32_t instances = 0;
  std::uint32_t alone = 0;  // instances with one deployment per model
  double attainment = 0;    // the worst of the seeds
  double worst_model = 0;   // attainment of the model that does worst
  double busy = 0;
};

struct Plan {
  std::vector<WidthPlan> widths;
  std::uint64_t gpus = 0;
  std::uint64_t gpus_alone = 0;

  double saved() const {
    return gpus_alone == 0 ? 0 : 1 - static_cast<double>(gpus) / static_cast<double>(gpus_alone);
  }
};

// Weights take 2 berths of the largest image; what is left of 92 % of the memory is for KV. Errors: invalid
// (nothing left), exhausted (no number of instances suffices).
Result<Cluster> make_cluster(const Accelerator& accelerator, std::uint64_t largest_image,
                             std::uint32_t berths, std::uint32_t gpus);

Result<Plan> make_plan(const PlanOptions& options);

nlohmann::ordered_json to_json(const Plan& plan, const PlanOptions& options);
std::string to_text(const Plan& plan, const PlanOptions& options);

}  // namespace switchyard::simulate
