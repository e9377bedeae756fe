// Grouped first-come-first-served prefill, which the policies `quota`, `request` and `static` share; what a
// decode instance does next is left to them. See policy.h for threads and costs.
//
// A prompt joins a group of its model that has taken fewer than `group_requests` prompts in its life, else a
// new group on the prefill instance with the least to do. An instance serves its front group. Where there are
// only unified instances, a prompt waits in the batch that is going to decode it.
#pragma once

#include "schedule/scheduler.h"

namespace switchyard::schedule {

class GroupedPolicy : public Scheduler {
 public:
  using Scheduler::Scheduler;

 protected:
  bool place_prompt(Request& request, Moment& m) override;
  Batch* place_rows(Request& request, Instance& at, Moment& m) override;
  void next_job(Instance& instance, Moment& m) override;
  void prepare_next(Instance& instance, Moment& m) override;
  void after_step(Instance& instance, Moment& m) override;

  // May the model be loaded there?
  virtual bool allowed(const Instance& instance, ModelId model) const { return can_serve(instance, model); }
  // The batch among all decoding instances that takes one more request.
  virtual Batch* place_batch(const Request& request, Moment& m) = 0;
  virtual void next_turn(Instance& instance, Moment& m) = 0;
  virtual void prepare_turn(Instance& instance, Moment& m) = 0;

  // Whether all rows of the batch and this request fit into the KV memory together.
  bool has_kv_room(const Instance& instance, const Batch& batch, const Request& request) const;
  // A batch whose steps take most of the target between tokens is full: its model needs another instance.
  bool has_time(const Instance& instance, const Batch& batch) const;
  // A batch of the model on the instance with room for the request, or a new one.
  Batch& batch_on(Instance& instance, const Request& request);
  // The allowed decoding instance with the fewest batches; null: none is allowed.
  Instance* shortest_list(ModelId model) const;

 private:
  void next_prefill(Instance& instance, Moment& m);
  double prefill_load(const Instance& instance) const;
};

}  // namespace switchyard::schedule
