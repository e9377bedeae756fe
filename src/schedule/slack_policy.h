// `slack`: serve what loses most by waiting, for the time that serving it takes.
//
// The index of a model on an instance is the rate at which its requests lose tokens that could be in time,
// over the seconds it takes to bring them up to date (the apparent-tardiness-cost rule of Vepsalainen and
// Morton, 1987, with tokens for jobs). docs/scheduling.md derives it. See policy.h for threads and costs.
#pragma once

#include "schedule/scheduler.h"

namespace switchyard::schedule {

class SlackPolicy : public Scheduler {
 public:
  using Scheduler::Scheduler;

 protected:
  bool place_prompt(Request& request, Moment& m) override;
  Batch* place_rows(Request& request, Instance& at, Moment& m) override;
  void next_job(Instance& instance, Moment& m) override;
  void prepare_next(Instance& instance, Moment& m) override;
  void after_step(Instance& instance, Moment& m) override;
  double keep_value(const Instance& instance, ModelId model, const Moment& m) const override;
  void population_changed(Moment& m) override;
  double expected_in_time(const RequestSpec& request, const Moment& m) const override;

 private:
  struct Choice {
    Batch* batch = nullptr;
    double index = 0;
  };

  double index(const Instance& instance, const Batch& batch, const Moment& m) const;
  // Models that are ready in a berth, or those that are not, and could run.
  std::vector<Choice> candidates(Instance& instance, bool resident, const Moment& m);
  // The best among models that are ready in a berth, or among those that are not.
  Choice best(Instance& instance, bool resident, const Moment& m);
  // Whether another model can be loaded while this one runs.
  bool has_berth_beside(const Instance& instance, ModelId model) const;
  void give_up_the_only_berth(Instance& instance, Moment& m);
  bool claimed(const Instance& instance, const Batch& pool) const;
  double load_of(const Instance& instance) const;
  double share(const Instance& instance, const Batch& batch) const;
  Batch* home_of(ModelId model, const Moment& m);

  // Prompts that no prefill instance has taken yet, by model; batches of no instance.
  std::vector<std::unique_ptr<Batch>> pools_;
  std::vector<TimePoint> checked_;  // by instance id
  bool split_ = false;              // there are prefill instances
};

}  // namespace switchyard::schedule
