// Computes prompts, several at a time, in chunks, and samples the first token of each. KV that leaves is sent
// layer by layer (to a peer) or block by block (to host memory) while the rest is computed.
#pragma once

#include <list>

#include "pool/job.h"

namespace switchyard::pool {

class PrefillJob final : public Job {
 public:
  PrefillJob(const JobParts& parts, JobCounts& counts, RunPrefill order);

  void drop(HeldRequest& request) override;

 private:
  struct Part {
    HeldRequest* request;
    RunPrefill::Prompt order;
    bool begun = false;       // stands in line for blocks, or has them
    bool computing = false;   // has blocks
    std::uint32_t chunk = 0;  // tokens
    std::uint32_t computed = 0;
  };
  // Prompts that hold blocks at a time.
  static constexpr std::size_t kMaxBegun = 32;

  Progress advance(model::Runtime& runtime, TimePoint now) override;
  std::vector<HeldRequest*> unfinished() override;
  void begin_prompts(model::Runtime& runtime, TimePoint now);
  void begin_computing(Part& part);
  void step_over(const std::vector<Part*>& stepped, const std::vector<std::uint32_t>& counts);
  void finish(Part& part, RowOutcome outcome);

  std::list<Part> prompts_;  // in the order in which they are computed
};

}  // namespace switchyard::pool
