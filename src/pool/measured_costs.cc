#include "pool/measured_costs.h"

#include <algorithm>

namespace switchyard::pool {
namespace {

// A first guess: weights are read once per step at this rate, and a token of a prompt or a further row takes
// this part of such a reading. Measured factors correct it.
constexpr double kReadRate = 10e9;
constexpr double kTokenShare = 0.06;
constexpr double kOverhead = 0.2e-3;
constexpr double kNews = 0.2;  // weight of a new measurement
constexpr double kSwitch = 1e-3;

void learn(double& scale, double guessed, double measured) {
  if (guessed <= 0 || measured <= 0) return;
  const double found = std::clamp(measured / guessed, 1e-3, 1e3);
  scale += kNews * (found - scale);
}

Nanos nanos(double seconds) { return Nanos(static_cast<Nanos::rep>(seconds * 1e9)); }

}  // namespace

double MeasuredCosts::guess_prefill(const Model& model, double tokens) {
  return kOverhead + model.weight_bytes / kReadRate * (1 + kTokenShare * tokens);
}

double MeasuredCosts::guess_step(const Model& model, double rows, double context) {
  return kOverhead + model.weight_bytes / kReadRate * (1 + kTokenShare * (rows - 1)) +
         model.kv_token_bytes * context / kReadRate;
}

Nanos MeasuredCosts::prefill(schedule::ModelId id, schedule::InstanceId, std::uint64_t tokens) const {
  const Model& model = models_.at(id);
  return nanos(model.prefill_scale * guess_prefill(model, static_cast<double>(tokens)));
}

Nanos MeasuredCosts::step(schedule::ModelId id, schedule::InstanceId, std::uint32_t rows,
                          std::uint64_t context) const {
  const Model& model = models_.at(id);
  return nanos(model.step_scale * guess_step(model, rows, static_cast<double>(context)));
}

Nanos MeasuredCosts::load(schedule::ModelId id, schedule::InstanceId) const {
  return nanos(models_.at(id).weight_bytes / copy_rate_);
}

Nanos MeasuredCosts::activate(schedule::ModelId, schedule::InstanceId) const { return nanos(kSwitch); }

void MeasuredCosts::add_model(schedule::ModelId id, std::uint64_t weight_bytes,
                              std::uint64_t kv_bytes_per_token) {
  if (id >= models_.size()) models_.resize(id + 1);
  models_[id] = {.weight_bytes = static_cast<double>(weight_bytes),
                 .kv_token_bytes = static_cast<double>(kv_bytes_per_token)};
}

void MeasuredCosts::prefilled(schedule::ModelId id, std::uint64_t tokens, Nanos took) {
  if (tokens == 0) return;
  Model& model = models_.at(id);
  learn(model.prefill_scale, guess_prefill(model, static_cast<double>(tokens)), to_seconds(took));
}

void MeasuredCosts::stepped(schedule::ModelId id, std::uint32_t steps, std::uint64_t rows,
                            std::uint64_t context, Nanos took) {
  if (steps == 0) return;
  Model& model = models_.at(id);
  const double count = steps;
  learn(model.step_scale,
        guess_step(model, static_cast<double>(rows) / count, static_cast<double>(context) / count),
        to_seconds(took) / count);
}

void MeasuredCosts::loaded(schedule::ModelId, std::uint64_t bytes, Nanos took) {
  if (took <= Nanos{0} || bytes == 0) return;
  copy_rate_ += kNews * (static_cast<double>(bytes) / to_seconds(took) - copy_rate_);
}

}  // namespace switchyard::pool
