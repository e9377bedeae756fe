// The seam between the scheduler and whoever runs instances: the real pool or the simulator.
//
// A Policy is a state machine: the driver tells it what happened, it answers with actions. It does no I/O,
// owns no thread, reads no clock, and the same calls give the same actions. One thread at a time; a call
// costs microseconds and grows with the work of one instance, not of the pool.
//
// Sequence of calls
//
//   add_model ..., instance_up ...                       the population; both may change at any time
//   arrived(request)      -> Admit or Shed               an admitted request waits until
//                         -> Load (instance, model)      the model is copied into a berth, `evict` leaving
//                         first;
//   loaded(instance, model)                                an instance has at most one load under way
//                         -> RunPrefill                  prompts of one model; the first token is made by it.
//                         KV
//                                                        goes to `to` (its decode instance or host memory)
//                                                        while it is made, as hand-over does, or stays where
//                                                        `to` is the instance itself
//   prefilled(instance, requests)                        first tokens are there. The instance is free again
//   kv_arrived(request)                                  KV is complete at `to` (not called where it stayed)
//                         -> RunDecode                   these rows, step after step, until the time is up (a
//                         step
//                                                        that has begun ends), no row is left, or Stop
//   stepped(instance, progress)                          after every step or a few: tokens made, requests
//   ended
//                         -> Join                        one more row for the running turn, from its next
//                         step on
//                         -> Stop                        the turn ends after the step that is under way
//   turn_ended(instance)                                 rows are out of the step; the instance is free
//                         -> MoveKv, then kv_arrived     between device and host, or device and device
//                         -> DropKv                      forget this KV: the request is going to be prefilled
//                         again,
//                                                        its tokens so far as part of its prompt
//
// An instance runs one job at a time (RunPrefill or RunDecode); loads and KV moves go on beside it. A model
// whose job begins while another one was active is switched to: its weights lie ready in a berth by then.
// Requests that end in stepped() or prefilled() are forgotten, and so is their KV.
//
// cancelled(request): call it when the request is out of its step and none of its KV is moving any more; its
// KV is free then. instance_down(instance): whatever was under way there is void, no event of it may follow;
// its requests are scheduled elsewhere, from their prompt and tokens so far.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "schedule/costs.h"
#include "schedule/types.h"
#include "switchyard/result.h"

namespace switchyard::schedule {

struct Admit {
  RequestId request;
};
// `retry_after` is zero where trying again is no use.
struct Shed {
  RequestId request;
  ShedReason reason;
  Nanos retry_after{};
};
struct Load {
  InstanceId instance;
  ModelId model;
  ModelId evict = kNoModel;
};
struct Prompt {
  RequestId request;
  std::uint32_t tokens;  // prompt, and tokens so far of a request that lost its KV
  InstanceId home;       // decodes it
  InstanceId to;         // where its KV goes: `home` or kHost
};
struct RunPrefill {
  InstanceId instance;
  ModelId model;
  std::vector<Prompt> prompts;
};
struct RunDecode {
  InstanceId instance;
  ModelId model;
  std::vector<RequestId> rows;
  TimePoint until;
};
struct Join {
  InstanceId instance;
  RequestId request;
};
struct Stop {
  InstanceId instance;
};
struct MoveKv {
  RequestId request;
  InstanceId from;  // an instance or kHost
  InstanceId to;
};
struct DropKv {
  RequestId request;
};

using Action = std::variant<Admit, Shed, Load, RunPrefill, RunDecode, Join, Stop, MoveKv, DropKv>;
using Actions = std::vector<Action>;

struct Progress {
  RequestId request;
  std::uint32_t tokens;
  bool ended;
};

enum class PolicyKind { quota, request, fixed, slack };
// "quota", "request", "static", "slack". Errors: invalid.
Result<PolicyKind> parse_policy(std::string_view name);
std::string_view to_string(PolicyKind kind);

struct AdmissionOptions {
  std::uint32_t max_waiting = 65536;  // requests of the pool without a first token
  RateLimit key_rate;                 // per client key
  // Sheds a request that would not see its tokens in time by the policy's own estimate. Off: only limits
  // count.
  bool shed_overload = false;
  double attainment = 0.9;  // share of a request's tokens to be expected in time, or it is shed
};

struct PolicyOptions {
  std::uint64_t host_kv_bytes = std::uint64_t{320} << 30;
  std::uint32_t max_rows = 256;             // of a decode step
  std::uint32_t max_prefill_tokens = 4096;  // of a prefill of several prompts
  std::uint32_t group_requests = 8;         // quota: prompts of a group, in its life
  Nanos longest_quota = std::chrono::seconds(4);
  AdmissionOptions admission;
  // slack: how far ahead of a deadline it begins to press, and how much better another model must be to be
  // switched to.
  Nanos look_ahead = std::chrono::seconds(2);
  Nanos ahead = std::chrono::seconds(5);
  double hysteresis = 1.2;
};

// What is waiting and held, for metrics and checks.
struct PolicyView {
  std::uint64_t requests = 0;
  std::uint64_t waiting = 0;  // without a first token
  std::uint64_t host_kv_bytes = 0;
  std::vector<std::uint64_t> kv_bytes;  // by instance id
};

class Policy {
 public:
  virtual ~Policy() = default;

  // Actions are appended to `out`. Errors of add_model and instance_up: invalid (an id taken or absurd, sizes
  // that cannot work), nothing changed.
  virtual Status add_model(ModelId id, const ModelSpec& spec, TimePoint now, Actions& out) = 0;
  // Its requests must have ended (cancel them first; removal refuses otherwise: exhausted).
  virtual Status remove_model(ModelId id, TimePoint now, Actions& out) = 0;
  // Its targets, weight, pin and limits from now on; sizes stay what they are. Where it could not be loaded
  // it is tried again. Errors: not_found, invalid.
  virtual Status update_model(ModelId id, const ModelSpec& spec, TimePoint now, Actions& out) = 0;
  virtual Status instance_up(InstanceId id, const InstanceSpec& spec, TimePoint now, Actions& out) = 0;
  virtual void instance_down(InstanceId id, TimePoint now, Actions& out) = 0;

  // News of unknown requests and instances that are down is ignored: it may have crossed a cancellation.
  virtual void arrived(const RequestSpec& request, TimePoint now, Actions& out) = 0;
  virtual void loaded(InstanceId instance, ModelId model, TimePoint now, Actions& out) = 0;
  // The copy failed; the model is not tried there again until add_model, update_model or another arrival
  // asks for it.
  virtual void load_failed(InstanceId instance, ModelId model, TimePoint now, Actions& out) = 0;
  virtual void prefilled(InstanceId instance, std::span<const Progress> progress, TimePoint now,
                         Actions& out) = 0;
  virtual void stepped(InstanceId instance, std::span<const Progress> progress, TimePoint now,
                       Actions& out) = 0;
  virtual void turn_ended(InstanceId instance, TimePoint now, Actions& out) = 0;
  virtual void kv_arrived(RequestId request, TimePoint now, Actions& out) = 0;
  // Its KV is gone or never came, and its row is out of the step: it is prefilled again from its prompt and
  // tokens. Not for a request of a prefill that has not been reported by prefilled().
  virtual void kv_lost(RequestId request, TimePoint now, Actions& out) = 0;
  virtual void cancelled(RequestId request, TimePoint now, Actions& out) = 0;
  virtual PolicyView view() const = 0;
};

// `costs` outlives the policy. Errors: invalid (options that cannot work).
Result<std::unique_ptr<Policy>> make_policy(PolicyKind kind, const PolicyOptions& options,
                                            const Costs& costs);

}  // namespace switchyard::schedule
