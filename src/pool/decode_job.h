// Makes a token per step for each of its rows, until its time is up, no row is left, or it is stopped.
#pragma once

#include <vector>

#include "pool/job.h"

namespace switchyard::pool {

class DecodeJob final : public Job {
 public:
  DecodeJob(const JobParts& parts, JobCounts& counts, const RunDecode& order);

  void drop(HeldRequest& request) override;
  void join(const Row& row) override;
  void stop() override { stopped_ = true; }
  TimePoint next_deadline() const override;

 private:
  struct Member {
    HeldRequest* request;
    TimePoint starving_since = TimePoint::max();  // for want of a block
  };

  Progress advance(model::Runtime& runtime, TimePoint now) override;
  std::vector<HeldRequest*> unfinished() override;
  // Rows that the next step has, with a block for their token.
  std::vector<HeldRequest*> choose_rows(model::Runtime& runtime, TimePoint now);
  Status check_row(HeldRequest& request, const model::Runtime& runtime) const;
  Progress end();

  const Nanos limit_;
  TimePoint first_step_{};
  bool stopped_ = false;
  std::vector<Member> members_;
  std::size_t next_ = 0;  // who comes first in the next step, where not all fit
};

}  // namespace switchyard::pool
