// Drives the scheduler with real instances: tells the policy what happened, and has instances do what it
// answers.
//
// A request's prompt and tokens stay here until it ends. When an instance dies or KV is lost, the policy has
// it prefilled again from prompt and tokens; sampling depends on seed and position only, so the text goes on
// as if nothing had happened. What is left of an earlier attempt on instances is a Departure, until everybody
// has let go of it.
//
// Any thread may call. Sinks are called with the lock held: they must not block, nor call the dispatcher.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pool/catalogue.h"
#include "pool/channel.h"
#include "pool/generator.h"
#include "pool/host_kv.h"
#include "pool/measured_costs.h"
#include "pool/model_cache.h"
#include "pool/orders.h"
#include "pool/start_watch.h"
#include "pool/stats.h"
#include "pool/trace.h"
#include "schedule/policy.h"

namespace switchyard::pool {

class Dispatcher final : public Generator, public Catalogue {
 public:
  struct Options {
    schedule::PolicyKind policy = schedule::PolicyKind::slack;
    schedule::PolicyOptions policy_options;  // host_kv_bytes is taken from the host memory
    std::size_t max_queue = 4096;            // requests that are waiting or running
    std::uint64_t slab_bytes = 0;            // of instances and host memory
    std::uint64_t kv_bytes = 0;              // of an instance
    std::uint64_t berth_bytes = 0;
    std::uint32_t berths = 2;
    StartLimits start;
  };
  // Called when an instance is gone, or has to go because it does not answer; not with the lock held.
  using InstanceLost = std::function<void(const std::string& name, int process, const std::string& why)>;

  // `cache` outlives the dispatcher. Errors: of the policy's options and of host memory.
  static Result<std::unique_ptr<Dispatcher>> create(const Options& options, std::uint64_t host_kv_bytes,
                                                    ModelCache& cache, std::unique_ptr<Trace> trace,
                                                    InstanceLost instance_lost);
  ~Dispatcher() override;

  // Takes the engine's messages from now on. Call once.
  void attach(std::shared_ptr<Channel> channel);
  void on_message(const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload);
  void on_peer_lost(const PeerAddress& peer, const Error& why);

  // What the supervisor knows of an instance: "starting", "restarting", "failed". `ready` comes with its
  // Hello.
  void instance_changed(const std::string& name, schedule::Role role, const std::string& state,
                        const std::string& detail, int process, std::uint64_t restarts);
  // Errors: timed_out, saying which instances are not ready and why; io when one has died so often before it
  // was ready that waiting is vain.
  Status wait_ready(TimePoint deadline) const;
  // About each second: gives up instances that do not answer or do not start, tries again what failed.
  void tick();
  // Ends every request with `why`; later submissions are refused with it.
  void shut_down(const Error& why);

  // A model whose image is open already. Errors: as add_model, and what does not fit.
  Status add_opened_model(const ModelSettings& settings, std::shared_ptr<const model::ModelImage> image);
  // One that could not be opened at the start: it is shown as failed, and tried again.
  Status add_failed_model(const ModelSettings& settings, const Error& why);

  tl::expected<RequestId, Refusal> submit(GenerationRequest request,
                                          std::shared_ptr<GenerationSink> sink) override;
  void cancel(RequestId id) override;
  std::vector<ServedModel> models() const override;
  std::uint64_t models_version() const override;
  std::vector<InstanceStatus> instances() const override;
  std::vector<prometheus::MetricFamily> metrics() const override;

  Status add_model(const ModelSettings& settings) override;
  Status remove_model(const std::string& id) override;
  Status load_model(const std::string& id) override;
  Status pin_model(const std::string& id, bool pinned) override;
  Result<CatalogueChange> replace(const std::vector<ModelSettings>& models) override;
  Status fits(const model::ModelConfig& config, std::uint64_t weight_bytes) const override;
  std::vector<ModelSettings> settings() const override;

 private:
  using InstanceId = schedule::InstanceId;
  static constexpr InstanceId kNone = schedule::kNowhere;

  struct Model {
    ModelSettings settings;
    ModelId id = schedule::kNoModel;
    std::shared_ptr<const model::ModelImage> image;
    std::uint32_t context = 0;
    kv::Shape shape;
    std::uint64_t block_bytes = 0;
    std::int64_t created = 0;
    ModelState state = ModelState::preparing;
    bool gone = false;   // was removed: its number is not used again
    bool known = false;  // to the policy
    std::string detail;
    bool permanent = false;     // failed so that trying again is no use
    std::string failure;        // the last one's reason, until it has worked again
    bool damaged = false;       // its image has to be made anew before it can be loaded
    std::uint32_t repairs = 0;  // of its image, since it was loaded last
    TimePoint retry_at{};
    Nanos pause{};
    std::uint64_t waiting = 0;
    std::uint64_t running = 0;
    // Since the beginning, for /metrics.
    std::uint64_t requests = 0, shed = 0, failed = 0, tokens = 0, tokens_in_time = 0;
  };

  struct Job {
    std::uint64_t id = 0;
    bool prefill = false;
    bool sent = false;
    ModelId model = schedule::kNoModel;
    TimePoint begun{};
    RunPrefill order;                      // prefill, until it is sent
    std::set<RequestId> requests;          // prefill: not lost or cancelled
    std::size_t expecting = 0;             // prefill: destinations that are not known yet
    std::vector<schedule::Progress> made;  // prefill
    std::vector<RequestId> lost, arrived;  // prefill: to be told after prefilled
    std::set<RequestId> crowded;           // of the lost: host memory had no room after all
    bool empty = false;                    // nothing is left to do: all of it was cancelled
    std::set<RequestId> leaving;           // of which the policy has not heard yet; it would ask again
  };

  struct Load {
    std::uint64_t serial = 0;
    ModelId model = schedule::kNoModel;
    TimePoint begun{};
    std::shared_ptr<const CachedImage> image;
  };

  struct Instance {
    InstanceStatus status;
    schedule::Role role = schedule::Role::unified;
    bool ready = false;
    InstanceId id = kNone;  // of this life
    PeerAddress address;
    std::optional<Job> job;
    std::optional<Load> load;
    std::set<ModelId> resident;
    ModelId active = schedule::kNoModel;
    TimePoint idle_since{};
    TimePoint heard{};
    StartWatch start;                     // until it is ready
    ModelId loaded = schedule::kNoModel;  // last
    TimePoint load_begun{}, load_ended{};
    Stats stats;
    std::uint64_t switches = 0, hidden_switches = 0;
    double switch_wait = 0;
  };

  struct Holder {
    InstanceId instance;
    std::size_t known;  // tokens of output that it has
  };
  enum class Move : std::uint8_t { none, to_host, from_host };
  struct Request {
    RequestId id = 0;
    GenerationRequest wanted;
    std::shared_ptr<GenerationSink> sink;
    ModelId model = schedule::kNoModel;
    TimePoint arrival{};
    std::vector<std::int32_t> output;
    bool admitted = false;  // the policy has it
    std::uint32_t attempt = 0;
    std::uint32_t failures = 0;  // attempts since the last token
    std::uint32_t deaths = 0;    // of instances that worked on it
    // Of the present attempt:
    std::vector<Holder> holders;
    InstanceId prefiller = kNone;
    InstanceId source = kNone, landing = kNone;  // a hand-over between instances is under way
    bool landing_known = false;                  // the destination has come
    bool writer_stopped = false;                 // the source has given up, without having died
    bool push_wanted = false;                    // it begins when the destination is known
    Move move = Move::none;
    InstanceId mover = kNone;
    std::vector<BlockId> host_blocks;

    Ticket ticket() const { return {id, attempt}; }
  };
  using Requests = std::map<RequestId, Request>;

  // What is left of an attempt on instances.
  struct Departure {
    RequestId request = 0;
    std::set<InstanceId> holders;  // that have not let go yet
    InstanceId source = kNone;     // one of them, that writes to `landing`
    InstanceId landing = kNone;    // is released when the source has stopped
    std::size_t block_bytes = 0;
    std::vector<BlockId> host_blocks;
    bool tell_policy = false;
  };

  Dispatcher(const Options& options, ModelCache& cache, std::unique_ptr<Trace> trace,
             InstanceLost instance_lost);

  // Requests (dispatcher_requests.cc).
  tl::expected<RequestId, Refusal> enqueue(GenerationRequest request, std::shared_ptr<GenerationSink> sink);
  void admit(Request& request);
  void take_token(Request& request, const model::SampledToken& token, TimePoint now);
  // The sink hears of the end; what is left on instances departs.
  void end(Requests::iterator request, FinishReason reason, Error error = {});
  void forget(Requests::iterator request, FinishReason reason, Error error);
  // Another attempt follows, unless there were too many.
  void attempt_failed(RequestId id, const Error& why, bool death);
  void fail_requests(ModelId model, const Error& why);  // those that no instance has

  // Departures (dispatcher_departures.cc).
  void depart(Request& request, bool tell_policy, InstanceId forgotten_by = kNone);
  void let_go(const Ticket& ticket, InstanceId instance, bool dead);
  void landed(const Ticket& ticket, InstanceId instance);
  void finish_if_empty(std::map<Ticket, Departure>::iterator departure, const std::string& process = {});

  // The policy's actions (dispatcher_actions.cc).
  void settle();
  void carry_out(const schedule::Admit& action);
  void carry_out(const schedule::Shed& action);
  void carry_out(const schedule::Load& action);
  void carry_out(const schedule::RunPrefill& action);
  void carry_out(const schedule::RunDecode& action);
  void carry_out(const schedule::Join& action);
  void carry_out(const schedule::Stop& action);
  void carry_out(const schedule::MoveKv& action);
  void carry_out(const schedule::DropKv& action);
  void image_ready(const std::string& instance, std::uint64_t serial,
                   Result<std::shared_ptr<const CachedImage>> image);
  void load_over(Instance& instance, bool ready, const Error& why);
  void begin_job(Instance& instance, Job job);
  void send_prefill_if_ready(Instance& instance);
  void send_prefill_later(InstanceId id);
  void keep_where_computed(const Request& request);
  void end_if_empty(Instance& instance);
  void introduce(Instance& instance, Request& request);
  void expect(Instance& instance, const Instance& from, Request& request, std::uint32_t tokens);
  static bool holds(const Instance& instance, const Request& request);
  // The policy counts on KV that is not there: it hears so when the present actions are carried out.
  void lose(const Request& request, const Error& why);
  // `instance` holds the request.
  Row row_of(Instance& instance, Request& request);
  // A message that cannot be sent ends the instance.
  template <class M>
  void send(Instance& instance, const M& message) {
    if (!instance.ready) return;
    const auto sent =
        channel_->send(instance.address, static_cast<std::uint8_t>(M::kType), serialize(message));
    if (!sent) undeliverable(instance, sent.error());
  }
  void undeliverable(Instance& instance, const Error& why);

  // Instances and their reports (dispatcher_instances.cc).
  template <class M>
  void handle(const PeerAddress& from, std::span<const std::byte> payload);
  void said_hello(const PeerAddress& from, const InstanceHello& hello);
  void reported(Instance& instance, const Loaded& report);
  void reported(Instance& instance, const Expecting& report);
  void reported(Instance& instance, const KvHere& report);
  void reported(Instance& instance, const Tokens& report);
  void reported(Instance& instance, const JobEnded& report);
  void reported(Instance& instance, const KvMoved& report);
  void reported(Instance& instance, const KvLost& report);
  void reported(Instance& instance, const Released& report);
  void reported(Instance& instance, Stats report);
  void destination_known(Request& request, Instance& landing, const kv::Destination* destination);
  void kv_lost(Request& request, Instance& at, const Error& why);
  // In the unfinished prefill of the request, if it is in one.
  Job* prefill_of(const Request& request);
  void mark_lost(Instance& instance, const std::string& why);
  void notify_lost();  // without the lock
  Instance* find(const PeerAddress& address);
  Instance* find(InstanceId id);
  Request* find_request(const Ticket& ticket);

  // Models (dispatcher_models.cc).
  Model* find_model(std::string_view id);
  const Model* find_model(std::string_view id) const;
  Status check_new(const ModelSettings& settings) const;
  std::uint64_t pinned_models() const;
  Status check_pins(std::uint64_t pinned) const;
  Model& enter(const ModelSettings& settings);
  void prepare(Model& model);
  // The pause of a failed one is over: either it works now, or the next one is longer.
  void try_again(Model& model);
  void opened(ModelId id, Result<std::shared_ptr<const model::ModelImage>> image);
  // Tokens, as far as memory and the model allow. Errors: out_of_range (why it cannot be served at all).
  Result<std::uint32_t> longest_context(const model::ModelConfig& config, std::uint64_t weight_bytes) const;
  void set_context(Model& model);  // of an opened one
  Status begin_serving(Model& model, std::shared_ptr<const model::ModelImage> image);
  void model_failed(Model& model, const Error& why);
  void image_damaged(Model& model, const Error& why);
  void repaired(Model& model, Result<std::shared_ptr<const model::ModelImage>> image);
  schedule::ModelSpec spec_of(const Model& model) const;
  // Of an instance, that are not promised to the policy.
  std::uint64_t spare_slabs(std::uint64_t slabs) const;
  void remove_if_idle(Model& model);
  Status set_settings(Model& model, const ModelSettings& settings);
  Status remove_locked(Model& model);

  static constexpr std::uint32_t kMaxFailures = 16;
  static constexpr std::uint32_t kMaxDeaths = 8;
  static constexpr std::uint64_t kHopeless = 3;  // deaths before the first Hello
  static constexpr std::uint32_t kMaxRepairs = 2;
  static constexpr Nanos kHandOverLimit = std::chrono::minutes(10);
  // Of an instance with a job, which says nothing within a step: one of a large model on few cores takes
  // minutes. A process that died or was stopped is missed in seconds, by its heartbeats.
  static constexpr Nanos kSilence = std::chrono::minutes(15);

  const Options options_;
  ModelCache& cache_;
  const InstanceLost instance_lost_;
  std::shared_ptr<Channel> channel_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool down_ = false;
  Error down_reason_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for callbacks of the cache

  MeasuredCosts costs_;
  std::unique_ptr<HostKv> host_;
  std::unique_ptr<schedule::Policy> policy_;
  std::unique_ptr<Trace> trace_;
  schedule::Actions actions_;
  std::deque<std::function<void()>> later_;  // what follows from actions, after those that came with them

  std::vector<std::unique_ptr<Model>> models_;  // by number
  std::uint64_t version_ = 1;
  std::map<std::string, Instance> instances_;
  std::vector<Instance*> lives_;  // by InstanceId; null: over
  Requests requests_;
  std::deque<RequestId> unsent_;  // wait for an instance of each role
  std::map<Ticket, Departure> departures_;
  RequestId submitting_ = 0;
  std::optional<Refusal> refusal_;  // of that request
  RequestId next_request_ = 1;
  std::uint64_t next_job_ = 1;
  std::uint64_t next_load_ = 1;

  struct Lost {
    std::string name;
    int process;
    std::string why;
  };
  std::vector<Lost> lost_;  // to be told to instance_lost_

  std::uint64_t submitted_ = 0, rejected_ = 0, failed_ = 0, replays_ = 0;
  std::uint64_t drops_ = 0;
};

}  // namespace switchyard::pool
