// `quota`: decode in rounds, each batch for its quota (schedule/quota.h); after Aegaeon (SOSP 2025).
//
// A round goes once through the work list of an instance, batches of one model side by side. While a batch
// runs, the model of the next is loaded into the free berth. See policy.h for threads and costs.
#pragma once

#include "schedule/grouped_policy.h"

namespace switchyard::schedule {

class QuotaPolicy : public GroupedPolicy {
 public:
  using GroupedPolicy::GroupedPolicy;

 protected:
  Batch* place_batch(const Request& request, Moment& m) override;
  void next_turn(Instance& instance, Moment& m) override;
  void prepare_turn(Instance& instance, Moment& m) override;
  void population_changed(Moment& m) override;
  double expected_in_time(const RequestSpec& request, const Moment& m) const override;

 private:
  struct Round {
    std::vector<Batch*> order;
    std::size_t position = 0;
    double alpha = 0;
  };

  bool begin_round(Instance& instance);

  std::vector<Round> rounds_;  // by instance id
};

}  // namespace switchyard::schedule
