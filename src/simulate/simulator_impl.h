// The simulator itself: dispatches events to the policy and carries out its actions. Private to
// simulator*.cc.
//
// simulator.cc has the events, simulator_actions.cc the actions, simulator_outcome.cc checks the input and
// sums up.
#pragma once

#include <memory>

#include "simulate/cluster_state.h"

namespace switchyard::simulate {

using schedule::Actions;
using schedule::Admit;
using schedule::DropKv;
using schedule::InstanceId;
using schedule::InstanceSpec;
using schedule::Join;
using schedule::Load;
using schedule::ModelId;
using schedule::ModelSpec;
using schedule::MoveKv;
using schedule::Policy;
using schedule::Progress;
using schedule::RequestId;
using schedule::RunDecode;
using schedule::RunPrefill;
using schedule::Shed;
using schedule::Stop;

// KV that crosses while it is made is late by one layer's share, and a message.
inline constexpr Nanos kHandOverTail = std::chrono::milliseconds(1);

Status check(const SimulationInput& input);

class Simulator {
 public:
  explicit Simulator(const SimulationInput& input)
      : input_(input), costs_(input.models, input.cluster), requests_(input.workload.requests.size()) {}

  Result<SimulationResult> run();

 private:
  Status start();
  void dispatch(const Event& event);
  void act();
  void apply(const Admit&) {}
  void apply(const Shed& action) { requests_[action.request].shed = true; }
  void apply(const Load& action);
  void apply(const RunPrefill& action);
  void apply(const RunDecode& action);
  void apply(const Join& action);
  void apply(const Stop& action) { instances_[action.instance].stop = true; }
  void apply(const MoveKv& action);
  void apply(const DropKv& action);

  void prefill_done(InstanceId id);
  void step_done(InstanceId id);
  void end_turn(InstanceId id);
  void begin_step(InstanceId id, Nanos begin);
  void kv_done(RequestId id);
  void cancel(RequestId id);
  void cancel_if_quiet(RequestId id);
  void fail(const Failure& failure);
  Nanos begin_job(InstanceId id, ModelId model);
  void make_token(RequestId id);
  void end(RequestId id);
  void hold(InstanceId place, RequestId id, std::int64_t sign);
  std::uint64_t kv_bytes(RequestId id) const;
  void lane(InstanceId id, ModelId model, LaneKind kind, Nanos begin, Nanos end);
  void complain(std::string text);
  void summarize();

  const WorkloadRequest& asked(RequestId id) const { return input_.workload.requests[id]; }
  const ModelSpec& spec(ModelId model) const { return input_.models[model].spec; }

  const SimulationInput& input_;
  SimulatedCosts costs_;
  EventQueue queue_;
  std::unique_ptr<Policy> policy_;
  std::vector<SimInstance> instances_;
  std::vector<SimRequest> requests_;
  std::vector<InstanceSpec> specs_up_;  // of instances that are going to be started again
  TokenClock clock_;
  Actions actions_, batch_;
  std::vector<Progress> progress_;
  Nanos now_{};
  Nanos last_end_{};
  double busy_ = 0;
  std::uint64_t host_kv_ = 0;
  SimulationResult result_;
};

}  // namespace switchyard::simulate
