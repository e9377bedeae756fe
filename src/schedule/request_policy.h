// `request`: an instance changes its model only when the requests of the model it serves have ended (as
// ServerlessLLM); the next is the one whose first request came first. See policy.h for threads and costs.
//
// Requests of the model that is served may join, until a request of another model has waited for half of its
// target for the first token: otherwise a busy model would never end.
#pragma once

#include "schedule/grouped_policy.h"

namespace switchyard::schedule {

class RequestPolicy : public GroupedPolicy {
 public:
  using GroupedPolicy::GroupedPolicy;

 protected:
  Batch* place_batch(const Request& request, Moment& m) override;
  void next_turn(Instance& instance, Moment& m) override;
  void prepare_turn(Instance& instance, Moment& m) override;

 private:
  bool closed(const Instance& instance, const Batch& batch, const Moment& m) const;
};

}  // namespace switchyard::schedule
