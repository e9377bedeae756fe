#include "simulate/planner.h"

#include <algorithm>
#include <set>

namespace switchyard::simulate {
namespace {

constexpr std::uint32_t kMaxInstances = 4096;

struct Outcome {
  double attainment = 1;
  double worst_model = 1;
  double busy = 0;
};

class WidthPlanner {
 public:
  WidthPlanner(const PlanOptions& options, std::uint32_t gpus) : options_(options), gpus_(gpus) {}

  Result<WidthPlan> plan() {
    std::vector<ModelEntry> entries;
    std::uint64_t largest = 0;
    for (const ModelEntry& entry : options_.models) {
      if (entry.gpus != gpus_ || (entry.is_rest() && options_.models.size() > 1)) continue;
      entries.push_back(entry);
      largest = std::max(largest, entry.bytes);
    }
    auto models = named_models(entries);
    if (!models) return pass(models.error());
    models_ = *std::move(models);
    for (const ModelEntry& entry : entries) {
      for (std::uint32_t i = 0; i < entry.count; ++i) {
        auto model =
            describe_model(entry, models_[descriptions_.size()].name, options_.profile, options_.targets);
        if (!model) return pass(model.error());
        descriptions_.push_back(*std::move(model));
      }
    }
    WidthPlan plan{.gpus = gpus_, .models = models_.size()};
    auto cluster = make_cluster(options_.accelerator, largest, 2, gpus_);
    if (!cluster) return pass(cluster.error());
    cluster_ = *cluster;

    std::vector<std::size_t> all(models_.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    auto pool = fewest(all, options_.policy);
    if (!pool) return pass(pool.error());
    plan.instances = pool->first;
    plan.attainment = pool->second.attainment;
    plan.worst_model = pool->second.worst_model;
    plan.busy = pool->second.busy;
    for (const std::size_t model : all) {
      auto alone = fewest({model}, options_.policy);
      if (!alone) return pass(alone.error());
      plan.alone += alone->first;
    }
    return plan;
  }

 private:
  bool suffices(const Outcome& outcome) const {
    return (options_.each_model ? outcome.worst_model : outcome.attainment) >= options_.attainment;
  }

  // The number of instances, and what they reach.
  Result<std::pair<std::uint32_t, Outcome>> fewest(const std::vector<std::size_t>& models,
                                                   schedule::PolicyKind policy) {
    std::uint32_t high = 1;
    auto outcome = run(models, policy, high);
    if (!outcome) return pass(outcome.error());
    while (!suffices(*outcome)) {
      if (high >= kMaxInstances) {
        return fail(ErrorCode::exhausted,
                    "'{}' and others do not reach {} of tokens in time with {} instances either: a "
                    "request alone may be too slow for its targets",
                    models_[models.front()].name, options_.attainment, high);
      }
      high *= 2;
      outcome = run(models, policy, high);
      if (!outcome) return pass(outcome.error());
    }
    std::uint32_t low = high / 2;  // does not suffice
    Outcome best = *outcome;
    while (high - low > 1) {
      const std::uint32_t middle = low + (high - low) / 2;
      outcome = run(models, policy, middle);
      if (!outcome) return pass(outcome.error());
      if (suffices(*outcome)) {
        high = middle;
        best = *outcome;
      } else {
        low = middle;
      }
    }
    return std::pair(high, best);
  }

  Result<Outcome> run(const std::vector<std::size_t>& models, schedule::PolicyKind policy,
                      std::uint32_t instances) {
    Outcome worst;
    for (std::uint32_t seed = 0; seed < options_.seeds; ++seed) {
      GeneratorOptions generator{.seconds = options_.seconds,
                                 .input = options_.input,
                                 .output = options_.output,
                                 .seed = options_.seed + seed};
      SimulationInput input;
      for (const std::size_t model : models) {
        generator.models.push_back(models_[model]);
        input.models.push_back(descriptions_[model]);
      }
      auto workload = generate_workload(generator);
      if (!workload) return pass(workload.error());
      if (workload->requests.empty()) continue;
      input.workload = *std::move(workload);
      input.cluster = cluster_;
      input.cluster.unified = instances;
      input.policy = policy;
      input.options = options_.policy_options;
      auto result = simulate(input);
      if (!result) return pass(result.error());
      worst.attainment = std::min(worst.attainment, result->attainment());
      worst.busy = std::max(worst.busy, result->busy);
      for (const ModelOutcome& model : result->models) {
        if (model.tokens == 0) continue;
        worst.worst_model = std::min(worst.worst_model,
                                     static_cast<double>(model.in_time) / static_cast<double>(model.tokens));
      }
    }
    return worst;
  }

  const PlanOptions& options_;
  const std::uint32_t gpus_;
  std::vector<GeneratedModel> models_;
  std::vector<SimulatedModel> descriptions_;
  Cluster cluster_;
};

}  // namespace

Result<Cluster> make_cluster(const Accelerator& accelerator, std::uint64_t largest_image,
                             std::uint32_t berths, std::uint32_t gpus) {
  const double usable = 0.92 * static_cast<double>(accelerator.memory_bytes) * gpus;
  const double weights = static_cast<double>(largest_image) * berths;
  if (usable - weights < 0.02 * usable) {
    return fail(ErrorCode::invalid,
                "{} berths of {:.1f} GB leave no memory for KV on {} accelerator(s) of {:.1f} GB: use more "
                "GPUs per instance, "
                "or fewer berths",
                berths, static_cast<double>(largest_image) / 1e9, gpus,
                static_cast<double>(accelerator.memory_bytes) / 1e9);
  }
  Cluster cluster;
  cluster.berths = berths;
  cluster.berth_bytes = largest_image;
  cluster.kv_bytes = static_cast<std::uint64_t>(usable - weights);
  cluster.link_bytes_per_second = accelerator.link_bytes_per_second * gpus;
  return cluster;
}

Result<Plan> make_plan(const PlanOptions& options) {
  if (!(options.attainment > 0) || options.attainment > 1 || options.seeds < 1 || options.seeds > 100) {
    return fail(ErrorCode::invalid, "attainment is to be above 0 and at most 1, seeds from 1 to 100");
  }
  std::set<std::uint32_t> widths;
  for (const ModelEntry& entry : options.models) widths.insert(entry.gpus);
  Plan plan;
  for (const std::uint32_t gpus : widths) {
    auto width = WidthPlanner(options, gpus).plan();
    if (!width) return pass(width.error());
    plan.gpus += std::uint64_t{width->instances} * gpus;
    plan.gpus_alone += std::uint64_t{width->alone} * gpus;
    plan.widths.push_back(*width);
  }
  return plan;
}

nlohmann::ordered_json to_json(const Plan& plan, const PlanOptions& options) {
  nlohmann::ordered_json json;
  json["policy"] = schedule::to_string(options.policy);
  json["attainment_wanted"] = options.attainment;
  json["of_each_model"] = options.each_model;
  json["gpus"] = plan.gpus;
  json["gpus_one_deployment_per_model"] = plan.gpus_alone;
  json["saved"] = plan.saved();
  auto& widths = json["widths"] = nlohmann::ordered_json::array();
  for (const WidthPlan& width : plan.widths) {
    widths.push_back({{"gpus_per_instance", width.gpus},
                      {"models", width.models},
                      {"instances", width.instances},
                      {"instances_one_deployment_per_model", width.alone},
                      {"attainment", width.attainment},
                      {"worst_model_attainment", width.worst_model},
                      {"busy", width.busy}});
  }
  return json;
}

std::string to_text(const Plan& plan, const PlanOptions& options) {
  std::string text = fmt::format("{:>12} {:>8} {:>10} {:>22} {:>11} {:>12} {:>6}\n", "GPUs each", "models",
                                 "instances", "one per model takes", "in time", "worst model", "busy");
  for (const WidthPlan& width : plan.widths) {
    text += fmt::format("{:>12} {:>8} {:>10} {:>22} {:>9.1f} % {:>10.1f} % {:>4.0f} %\n", width.gpus,
                        width.models, width.instances, width.alone, 100 * width.attainment,
                        100 * width.worst_model, 100 * width.busy);
  }
  text += fmt::format("policy {}: {} GPUs instead of {}: {:.1f} % fewer\n",
                      schedule::to_string(options.policy), plan.gpus, plan.gpus_alone, 100 * plan.saved());
  return text;
}

}  // namespace switchyard::simulate
