// Plays a workload through a scheduling policy on instances that exist in numbers only: measured step times,
// links of a given rate, memory of a given size. Discrete events in nanoseconds; the same input gives the
// same output.
//
// simulate() runs on the caller's thread and keeps no state. It costs about a microsecond per decode step and
// instance.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "schedule/policy.h"
#include "simulate/outcome.h"
#include "simulate/step_times.h"
#include "simulate/workload.h"

namespace switchyard::simulate {

struct SimulatedModel {
  schedule::ModelSpec spec;
  StepTimes times;
};

struct Cluster {
  std::uint32_t prefill = 0;
  std::uint32_t decode = 0;
  std::uint32_t unified = 0;
  std::uint32_t berths = 2;
  std::uint64_t berth_bytes = 0;
  std::uint64_t kv_bytes = 0;                     // per instance
  double link_bytes_per_second = 0;               // between host and instance, each way
  Nanos activate = std::chrono::milliseconds(5);  // to the first step of a model that lies ready in a berth
};

// An instance dies; another one takes its place after `restart` (zero: never).
struct Failure {
  Nanos time{};
  std::uint32_t instance = 0;
  Nanos restart{};
};
struct Cancellation {
  Nanos time{};
  std::uint64_t request = 0;  // index into the workload
};

struct SimulationInput {
  std::vector<SimulatedModel> models;  // as Workload::models
  Workload workload;
  Cluster cluster;
  schedule::PolicyKind policy = schedule::PolicyKind::quota;
  schedule::PolicyOptions options;
  std::vector<Failure> failures;
  std::vector<Cancellation> cancellations;
  Nanos drain =
      std::chrono::seconds(3600);  // after the last arrival; what is not done by then counts as missed
  bool record_lanes = false;
};

enum class LaneKind { prefill, decode, load };
struct LaneSegment {
  std::uint32_t instance;
  std::uint32_t model;
  LaneKind kind;
  double begin;
  double end;
};

struct SimulationResult {
  std::vector<ModelOutcome> models;
  ModelOutcome total;
  std::uint64_t cancelled = 0;
  std::uint64_t unfinished = 0;
  std::uint64_t replayed = 0;  // prefills after the first of a request
  std::uint64_t switches = 0;
  std::uint64_t loads = 0;
  std::uint64_t kv_moves = 0;
  std::uint64_t kv_bytes_moved = 0;
  std::uint64_t steps = 0;
  double seconds = 0;                  // until the last request ended
  double busy = 0;                     // share of instance time spent computing until the last arrival
  std::vector<double> switch_seconds;  // compute lost by each switch
  std::vector<double> first_token_seconds;
  std::vector<double> attainment_by_10s;  // by due time of tokens
  std::vector<LaneSegment> lanes;
  std::vector<std::string> violations;  // of rules that a policy must keep; empty unless there is a defect

  double attainment() const;
  double attainment_of_admitted() const;
  double strict_attainment() const;
};

// Errors: invalid (input that makes no sense).
Result<SimulationResult> simulate(const SimulationInput& input);

// Of values in any order; 0 without any.
double percentile(std::vector<double> values, double share);

}  // namespace switchyard::simulate
