// What things take on this pool's instances: guesses from sizes at first, then what was measured.
//
// Owned by the dispatcher, used on its thread. All instances are taken to be alike.
#pragma once

#include <vector>

#include "schedule/costs.h"

namespace switchyard::pool {

class MeasuredCosts final : public schedule::Costs {
 public:
  Nanos prefill(schedule::ModelId model, schedule::InstanceId, std::uint64_t tokens) const override;
  Nanos step(schedule::ModelId model, schedule::InstanceId, std::uint32_t rows,
             std::uint64_t context) const override;
  Nanos load(schedule::ModelId model, schedule::InstanceId) const override;
  Nanos activate(schedule::ModelId, schedule::InstanceId) const override;

  void add_model(schedule::ModelId model, std::uint64_t weight_bytes, std::uint64_t kv_bytes_per_token);
  void prefilled(schedule::ModelId model, std::uint64_t tokens, Nanos took);
  // `rows` and `context`: summed over the steps.
  void stepped(schedule::ModelId model, std::uint32_t steps, std::uint64_t rows, std::uint64_t context,
               Nanos took);
  void loaded(schedule::ModelId model, std::uint64_t bytes, Nanos took);

 private:
  struct Model {
    double weight_bytes = 0;
    double kv_token_bytes = 0;
    double prefill_scale = 1;  // measured over guessed
    double step_scale = 1;
  };
  static double guess_prefill(const Model& model, double tokens);
  static double guess_step(const Model& model, double rows, double context);

  std::vector<Model> models_;
  double copy_rate_ = 4e9;  // bytes per second
};

}  // namespace switchyard::pool
