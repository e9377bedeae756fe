// What all policies share: the books of models, instances, requests and KV memory, and the rules that no
// policy may break (one job and one load per instance, capacities, what becomes of requests when something
// goes away). A policy derives from it and decides what runs where and when.
//
// See policy.h for threads and costs. Rows and prompts of a batch are pointers into `requests_`, whose
// entries do not move.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "schedule/admission.h"
#include "schedule/policy.h"

namespace switchyard::schedule {

struct Batch;

enum class Phase { waiting, prefilling, decoding };

struct Request {
  RequestSpec spec;
  Targets targets;
  double worth = 1;
  std::uint32_t made = 0;  // tokens
  Phase phase = Phase::waiting;
  Batch* prompt_batch = nullptr;  // where its prompt waits
  Batch* row_batch = nullptr;     // where its rows are decoded
  InstanceId home = kNowhere;     // instance of row_batch
  InstanceId kv = kNowhere;
  InstanceId moving_to = kNowhere;
  std::uint64_t kv_bytes = 0;  // charged at `kv`, and at `moving_to` as well
  bool in_job = false;

  TimePoint due() const { return spec.arrival + targets.first_token + made * targets.between_tokens; }
  bool moving() const { return moving_to != kNowhere; }
  std::uint32_t context() const { return spec.prompt_tokens + made; }
};

// Requests of one model on one instance: prompts that wait for a prefill there, rows that are decoded there.
// On a prefill instance it is a group and has no rows.
struct Batch {
  ModelId model = kNoModel;
  std::vector<Request*> prompts;
  std::vector<Request*> rows;
  std::uint32_t accepted = 0;  // requests in its life
  // Of the current round: when the turn began, and how long it may last.
  Nanos quota{};
  TimePoint until{};
  TimePoint last_turn{};
};

enum class Job { idle, prefill, decode, stopping };

struct Instance {
  InstanceId id = kNowhere;
  InstanceSpec spec;
  std::vector<std::unique_ptr<Batch>> batches;
  std::vector<ModelId> resident;  // ready in berths, least recently used first
  std::vector<ModelId> failed;    // could not be loaded here
  ModelId active = kNoModel;
  ModelId loading = kNoModel;
  Job job = Job::idle;
  Batch* batch = nullptr;  // of the job
  std::vector<Request*> in_job;
  TimePoint job_start{};
  std::uint64_t kv_used = 0;
  std::uint64_t kv_leaving = 0;  // of it, on its way out
  bool blocked = false;          // for lack of KV memory: look again when some is freed
  bool dirty = false;

  bool prefills() const { return spec.role != Role::decode; }
  bool decodes() const { return spec.role != Role::prefill; }
  bool is_resident(ModelId model) const;
  bool idle() const { return job == Job::idle; }
};

class Scheduler : public Policy {
 public:
  Scheduler(const PolicyOptions& options, const Costs& costs);

  Status add_model(ModelId id, const ModelSpec& spec, TimePoint now, Actions& out) final;
  Status remove_model(ModelId id, TimePoint now, Actions& out) final;
  Status update_model(ModelId id, const ModelSpec& spec, TimePoint now, Actions& out) final;
  Status instance_up(InstanceId id, const InstanceSpec& spec, TimePoint now, Actions& out) final;
  void instance_down(InstanceId id, TimePoint now, Actions& out) final;
  void arrived(const RequestSpec& request, TimePoint now, Actions& out) final;
  void loaded(InstanceId instance, ModelId model, TimePoint now, Actions& out) final;
  void load_failed(InstanceId instance, ModelId model, TimePoint now, Actions& out) final;
  void prefilled(InstanceId instance, std::span<const Progress> progress, TimePoint now, Actions& out) final;
  void stepped(InstanceId instance, std::span<const Progress> progress, TimePoint now, Actions& out) final;
  void turn_ended(InstanceId instance, TimePoint now, Actions& out) final;
  void kv_arrived(RequestId request, TimePoint now, Actions& out) final;
  void kv_lost(RequestId request, TimePoint now, Actions& out) final;
  void cancelled(RequestId request, TimePoint now, Actions& out) final;
  PolicyView view() const final;

 protected:
  struct Moment {
    TimePoint now;
    Actions& out;
  };
  struct Model {
    ModelSpec spec;
    bool present = false;
    std::uint64_t requests = 0;
    std::uint64_t waiting = 0;
  };

  // --- What a policy decides ---

  // Finds a place for a prompt (add_prompt), or keeps it in mind itself. False: no instance can serve the
  // model.
  virtual bool place_prompt(Request& request, Moment& m) = 0;
  // The batch that will decode a request whose prefill is about to begin on `at`; null: none can.
  virtual Batch* place_rows(Request& request, Instance& at, Moment& m) = 0;
  // The instance is free: begin something (load, start_prefill, start_turn), or leave it.
  virtual void next_job(Instance& instance, Moment& m) = 0;
  // A job is running: load what comes next.
  virtual void prepare_next(Instance& instance, Moment& m) = 0;
  // After each step of a turn; may call stop().
  virtual void after_step(Instance& instance, Moment& m) = 0;
  // A turn or prefill is over.
  virtual void after_job(Instance&, Batch&, Moment&) {}
  // The request leaves for good, or starts again: drop what the policy itself keeps of it.
  virtual void forget(Request&) {}
  virtual void population_changed(Moment&) {}
  // The share of its tokens that one more request of the model would get in time, once its prompt is
  // computed.
  virtual double expected_in_time(const RequestSpec&, const Moment&) const { return 1; }
  // Policies that give models fixed places say no where this one has none.
  virtual bool has_place(const Instance&, ModelId) const { return true; }
  // False: something has to leave before a load.
  virtual bool has_free_berth(const Instance& instance) const;
  // What a berth's model is worth; the lowest leaves first. By default the most recently used is worth most.
  virtual double keep_value(const Instance& instance, ModelId model, const Moment& m) const;

  // --- What it does so with ---

  // True when the model is ready in a berth. Else begins to load it, as soon as link and berths allow it;
  // `keep` is not evicted for it.
  bool load(Instance& instance, ModelId model, Moment& m, ModelId keep = kNoModel);
  // Begins a prefill of the batch's first prompts. False: there is no KV memory for even one now.
  bool start_prefill(Instance& instance, Batch& batch, Moment& m);
  // Begins a turn with the rows whose KV is there, and calls for that of the others.
  enum class TurnStart {
    begun,
    coming,  // none is there yet, but KV or room for it is on its way: wait, or instances chase KV in and out
    nothing,  // none can run now
  };
  void end_load(InstanceId id, ModelId model, bool ready, TimePoint now, Actions& out);
  void begin_job(Instance& instance, Job job, Batch& batch, const Moment& m);
  TurnStart start_turn(Instance& instance, Batch& batch, TimePoint until, Moment& m);
  void stop(Instance& instance, Moment& m);
  // Brings KV of the batch's rows from host memory, as far as there is room.
  void fetch_rows(Instance& instance, Batch& batch, Moment& m);

  Batch& add_batch(Instance& instance, ModelId model);
  void add_prompt(Instance& instance, Batch& batch, Request& request);
  void take_prompt(Request& request);

  bool can_serve(const Instance& instance, ModelId model) const;
  Nanos prompt_wait(const RequestSpec& spec) const;
  static bool has_failed(const Instance& instance, ModelId model);
  // Has a row whose KV is here, or a prompt or a row in host memory for which room can be made.
  bool runnable(const Instance& instance, const Batch& batch) const;
  static bool row_ready(const Instance& instance, const Request& request);
  // Step time of a batch with all its rows, and at least one.
  Nanos step_time(const Instance& instance, const Batch& batch) const;
  std::uint64_t kv_need(const Request& request, std::uint32_t more_tokens = 0) const;
  const ModelSpec& spec(ModelId model) const { return models_[model].spec; }
  // Looks at the instance again before the call returns.
  void mark(Instance& instance);

  const PolicyOptions options_;
  const Costs& costs_;
  std::vector<Model> models_;                         // by id
  std::vector<std::unique_ptr<Instance>> instances_;  // by id; null: down
  std::map<RequestId, Request> requests_;

 private:
  Instance* find(InstanceId id);
  Request* find_request(RequestId id);
  void settle(Moment& m);

  // Memory (scheduler_memory.cc).
  std::uint64_t free_kv(const Instance& instance) const;
  bool has_room(InstanceId place, std::uint64_t bytes) const;
  void charge(InstanceId place, std::uint64_t bytes);
  void release(InstanceId place, std::uint64_t bytes);
  void release_kv(Request& request);
  void grow(Request& request);
  void move(Request& request, InstanceId to, Moment& m);
  void make_room(Instance& instance, std::uint64_t bytes, const Batch* keep, bool force, Moment& m);
  void shrink(Instance& instance, Batch& batch, Moment& m);
  void drop_kv(Request& request, Moment& m);

  void add_tokens(Instance& instance, std::span<const Progress> progress);
  void place(Request& request, Moment& m);
  void restart(Request& request, Moment& m);
  void detach(Request& request);
  void erase(Request& request);
  void end_job(Instance& instance, Moment& m);
  void send_home(Request& request, Moment& m);
  void find_home(Request& request, Moment& m);

  Admission admission_;
  std::uint64_t host_used_ = 0;
  std::uint64_t waiting_ = 0;
  bool memory_freed_ = false;
  std::vector<InstanceId> dirty_;
  std::vector<RequestId> unmoved_;   // KV on an instance that is not its home, no room elsewhere yet
  std::vector<RequestId> stranded_;  // no instance can serve them now
};

}  // namespace switchyard::schedule
