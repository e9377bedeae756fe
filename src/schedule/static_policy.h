// `static`: models stay where they are (as MuxServe). Each gets one place per role, in the order of ids,
// where most of the weights area is free, as long as it fits; requests of a model without a place are shed.
// The resident models of an instance take turns of one step. See policy.h for threads and costs.
#pragma once

#include "schedule/grouped_policy.h"

namespace switchyard::schedule {

class StaticPolicy : public GroupedPolicy {
 public:
  using GroupedPolicy::GroupedPolicy;

 protected:
  bool allowed(const Instance& instance, ModelId model) const override;
  bool has_place(const Instance& instance, ModelId model) const override { return allowed(instance, model); }
  bool has_free_berth(const Instance&) const override { return true; }
  Batch* place_batch(const Request& request, Moment& m) override;
  void next_turn(Instance& instance, Moment& m) override;
  void prepare_turn(Instance& instance, Moment& m) override;
  void population_changed(Moment& m) override;

 private:
  struct Area {
    std::vector<ModelId> models;
    std::uint64_t used = 0;
  };

  void place_model(ModelId model, bool (*fits)(const Instance&));

  std::vector<Area> areas_;  // by instance id
};

}  // namespace switchyard::schedule
