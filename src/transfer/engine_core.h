// The engine behind TransferEngine: a state machine that one thread steps, and the submission side that any
// thread calls.
//
// step(now) drains the submission queue, reads the control channel, polls the rails, posts, and fires
// deadlines; it takes its clock from outside and starts no thread. Submission takes one short lock per call
// and puts a command into a bounded queue; everything else of a transfer (each work request, each completion)
// is the worker's and needs no lock and no allocation.
//
// Parts: engine_open.cc (rails, assembly), engine_submit.cc (any thread), engine_core.cc (stepping,
// callbacks, end), engine_schedule.cc (posting), engine_complete.cc (completions and arrivals),
// engine_paths.cc (opening, failing and settling of paths), engine_peers.cc (connections and their loss),
// engine_metrics.cc.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "memory/arena.h"
#include "transfer/counter_table.h"
#include "transfer/deadline_heap.h"
#include "transfer/engine_state.h"

namespace switchyard {

struct Counter::State {
  std::shared_ptr<transfer::CounterTable> table;
  transfer::CounterTable::Name name;
  std::uint64_t epoch = 0;
  std::weak_ptr<EngineCore> engine;  // to wake it
  ~State();
};

// A watched word, shared by the handle and the worker.
struct WatchEntry {
  std::mutex mutex;                     // held while the word is read
  const std::uint64_t* word = nullptr;  // null: ended
  std::uint64_t last = 0;
  WatchHandler handler;
};
struct Watcher::State {
  std::shared_ptr<WatchEntry> entry;
  ~State();
};

// What an engine is made of; TransferEngine::open takes it from this machine, the simulator from itself.
struct EngineParts {
  struct Rail {
    std::string fabric;  // its name; peers meet on rails of the same one
    std::string device;
    std::shared_ptr<fabric::Fabric> rail;
  };
  std::vector<Rail> rails;
  std::unique_ptr<transfer::ControlPlane> control;
  transfer::EngineId id{};
  std::uint64_t epoch = 0;
};

class EngineCore final : public std::enable_shared_from_this<EngineCore>,
                         private transfer::ControlPlane::Handler {
 public:
  static Result<std::shared_ptr<EngineCore>> open(const EngineOptions& options);
  static Result<std::shared_ptr<EngineCore>> assemble(const EngineOptions& options, EngineParts parts);
  ~EngineCore() override;

  // ---- any thread
  const PeerAddress& address() const { return self_; }
  Result<Region> register_region(const fabric::MemoryRange& range);
  Result<Counter> make_counter();
  Result<Transfer> write(Write write, Done done);
  Result<Transfer> write_pages(PagedWrite write, Done done);
  Result<Transfer> scatter(Scatter scatter, Done done);
  Result<Transfer> signal(const Signal& signal, Done done);
  Result<Transfer> send(const PeerAddress& peer, std::span<const std::byte> message, Done done,
                        TimePoint deadline);
  Status connect(const PeerAddress& peer, Done done);
  void cancel(std::uint64_t id, std::function<void()> drained);
  Status post(std::function<void()> task);
  Result<Watcher> watch(const std::uint64_t* word, WatchHandler handler);
  void on_message(MessageHandler handler);
  void on_peer_lost(PeerHandler handler);
  EngineMetrics metrics() const;
  void wake();
  void start_worker();
  // Ends everything and joins the worker; called on the worker itself, in a callback, it leaves it to end
  // alone. Without a worker the next steps do it.
  void stop_worker();

  // ---- worker
  // Does what there is to do; false when there was nothing.
  bool step(TimePoint now);
  bool finished() const { return finished_; }
  // When step() has to be called again if no descriptor becomes readable before.
  TimePoint next_deadline() const;
  bool has_outstanding() const { return outstanding_ != 0; }
  bool has_watches() const { return watching_.load(std::memory_order_relaxed); }
  // A rail moves bytes only while it is asked, and says nothing of those that a peer writes here: peers with
  // writes under way keep ringing, and until then it is to be asked all the time.
  bool rails_need_asking() const { return need_asking_; }
  TimePoint attentive_until() const { return attentive_until_; }
  // A rail had no room; nothing but asking again tells when it has.
  bool has_refused_posts() const { return starved_; }
  // After true, wake_fd, control_fd and (unless -1) the rails' fds say when to go on.
  bool prepare_sleep();
  void woken();
  int wake_fd() const { return wake_fd_; }
  int control_fd() const { return control_->fd(); }
  std::span<const transfer::EngineRail> rails() const { return rails_; }
  const std::string& name() const { return options_.name; }

 private:
  struct Command {
    enum class Kind : std::uint8_t { start, cancel };
    Kind kind;
    std::uint32_t slot;
    std::uint32_t generation;
  };
  // A callback that is due. Callbacks run at the end of a step, when the state is consistent.
  struct Due {
    Done done;
    Status status;
    std::function<void()> plain;
  };

  explicit EngineCore(const EngineOptions& options);

  // engine_submit.cc; those that take or return slots need the lock.
  Status check_target(const PeerAddress& peer, const RegionKey& target,
                      const std::optional<CounterId>& counter) const;
  Status check_counter(const PeerAddress& peer, const CounterId& counter) const;
  Status check_source(const Region& source, std::uint64_t bytes) const;
  Result<Transfer> submit_write(transfer::WritePlan plan, Region source, const PeerAddress& peer,
                                RegionKey target, const SubmitOptions& options, Done done);
  Result<std::uint32_t> peer_for(const PeerAddress& address, bool again);
  Result<std::uint32_t> take_slot(transfer::TransferSlot::Kind kind, std::uint32_t peer, Done done,
                                  TimePoint deadline);
  tl::unexpected<Error> fail_without_slots() const;
  Transfer enqueue(std::uint32_t slot);

  // engine_core.cc
  bool drain_commands();
  bool fire_deadlines();
  bool take_counters();
  bool look_at_watches();
  void erase_ended_watches();  // under the submission lock
  bool run_callbacks();
  void start(std::uint32_t index);
  void end(std::uint32_t index, Status status);
  void end_group(std::uint32_t index, Status status);
  void release(std::uint32_t index);
  void begin_shutdown();
  void finish_shutdown();

  // engine_schedule.cc
  bool schedule();
  bool post_some(std::uint32_t peer_index, Priority priority);
  std::uint32_t choose_path(transfer::Peer& peer, Priority priority, std::uint64_t bytes) const;
  bool has_room(const transfer::Path& path, Priority priority) const;
  // `again`: for what is sent again, which may take the last ones.
  std::uint32_t take_request(bool again = false);
  void free_request(std::uint32_t index);
  void want_posting(std::uint32_t peer_index);
  void queue(std::uint32_t slot_index);
  bool send_messages(std::uint32_t peer_index);
  void keep_awake(transfer::Peer& peer);
  void keep_all_awake();
  struct Batch;
  bool split(std::uint32_t request_index, transfer::TransferSlot& slot, std::uint64_t limit);
  void add_data(Batch& batch, transfer::TransferSlot& slot, std::uint32_t slot_index);
  bool add_arrival(Batch& batch, transfer::TransferSlot& slot, std::uint32_t slot_index);
  bool post_batch(Batch& batch, transfer::TransferSlot& slot);

  // engine_complete.cc
  bool poll_rails();
  bool poll_rail(std::uint16_t rail);
  void complete(const fabric::Completion& completion);
  void arrived(std::uint32_t immediate);
  void confirm_arrivals(transfer::Peer& peer);
  void take_off(std::uint32_t request_index);  // its path, and the counts of what is under way
  void advance(std::uint32_t slot_index);      // after something of it was delivered
  void measure(transfer::Path& path, std::uint64_t bytes);

  // engine_paths.cc
  void make_paths(std::uint32_t peer_index);
  void check_paths(std::uint32_t peer_index);
  void arm_check(std::uint32_t peer_index, TimePoint when);
  void open_path(std::uint32_t peer_index, transfer::Path& path);
  void prove_path(std::uint32_t peer_index, std::uint32_t path);
  void probed(std::uint32_t request_index, const fabric::Completion& completion);
  void drop_probe(transfer::Path& path);
  void path_is_up(std::uint32_t peer_index, transfer::Path& path);
  void remove_end(transfer::Peer& peer, transfer::Path& path);
  void fail_path(std::uint32_t peer_index, std::uint32_t path, const std::string& why);
  void settle_path(std::uint32_t peer_index, std::uint32_t path, std::span<const std::uint16_t> counted);
  void close_path(transfer::Path& path, bool in_vain);
  void say(const transfer::Peer& peer, const transfer::Path& path, transfer::PathRecord::Kind kind,
           std::vector<std::byte> token = {}, std::string reason = {});
  void check_health();

  // engine_peers.cc
  void dial(std::uint32_t peer_index);
  void opened(std::uint32_t peer_index, const transfer::Introduction& introduction);
  void lose(std::uint32_t peer_index, const Error& why);
  std::uint32_t peer_of(transfer::LinkId link) const;
  void bind(std::uint32_t peer_index, transfer::LinkId link);
  transfer::Introduction introduce(std::uint32_t peer_index) const;
  std::uint16_t peer_tag(std::uint32_t peer_index) const;  // names it in immediates
  bool shares_fabric(const PeerAddress& peer) const;
  std::string fabrics() const;
  bool opens_paths(const transfer::Peer& peer) const { return self_.engine_id < peer.address.engine_id; }
  std::variant<transfer::Introduction, transfer::Reject> on_hello(transfer::LinkId link,
                                                                  const transfer::Hello& hello) override;
  void on_open(transfer::LinkId link, const transfer::Introduction& introduction) override;
  void on_message(transfer::LinkId link, std::span<const std::byte> message) override;
  void on_ack(transfer::LinkId link, std::uint64_t id) override;
  void on_path(transfer::LinkId link, const transfer::PathRecord& record) override;
  void on_closed(transfer::LinkId link, const Error& why,
                 std::optional<transfer::Reject::Why> refused) override;
  void call_message_handler(const PeerAddress& from, std::span<const std::byte> message);

  static constexpr std::size_t kSpareRequests = 16;

  // Deadlines of transfers, counters and peers share one heap.
  std::uint32_t counter_deadline(std::uint32_t slot) const { return options_.max_transfers + slot; }
  std::uint32_t peer_deadline(std::uint32_t peer) const {
    return options_.max_transfers + options_.max_counters + peer;
  }

  EngineOptions options_;
  PeerAddress self_;
  std::vector<transfer::EngineRail> rails_;
  std::unique_ptr<transfer::ControlPlane> control_;
  std::shared_ptr<transfer::CounterTable> counters_;
  int wake_fd_ = -1;
  // Arrival records: those that peers write here, then those that wait to be written there; by peer.
  Arena log_memory_;
  Region log_region_;

  // Guarded by the submission lock.
  mutable std::mutex mutex_;
  std::optional<Error> closed_;
  std::vector<std::uint32_t> free_slots_;
  std::deque<std::uint32_t> free_peers_;                   // the longest free first
  std::map<transfer::EngineId, std::uint32_t> directory_;  // peers that are fresh, dialling or open
  std::deque<std::pair<transfer::EngineId, std::uint64_t>>
      gone_;  // id and epoch of peers that died; the latest few
  std::vector<Command> commands_;
  std::vector<std::function<void()>> tasks_;
  std::vector<std::function<void()>> late_drained_;  // cancels of transfers that had ended
  std::vector<std::shared_ptr<WatchEntry>> watches_;
  std::shared_ptr<const MessageHandler> message_handler_;
  std::shared_ptr<const PeerHandler> peer_handler_;

  std::atomic<bool> pending_{false};  // something above wants the worker
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> watching_{false};
  std::thread worker_;

  // The worker's, but for the moment of submission.
  std::vector<transfer::TransferSlot> slots_;
  std::vector<transfer::Peer> peers_;

  // The worker's.
  std::vector<transfer::WorkRequest> requests_;
  std::vector<std::uint32_t> free_requests_;
  transfer::BatchArrays batch_;  // the turn of schedule()
  transfer::DeadlineHeap deadlines_;
  std::vector<std::uint32_t> link_peers_;  // by slot of the link
  transfer::IndexList busy_peers_;
  bool starved_ = false;  // a rail took less than it was offered
  std::vector<Command> taken_commands_;
  std::vector<std::function<void()>> taken_tasks_;
  std::vector<Due> due_, running_;
  std::vector<transfer::CounterTable::Fired> fired_;
  std::vector<std::pair<std::uint32_t, TimePoint>> touched_;
  std::vector<std::shared_ptr<WatchEntry>> watched_;
  std::uint32_t outstanding_ = 0;  // of all slots
  TimePoint now_{};
  TimePoint last_control_{};
  TimePoint last_health_{};
  TimePoint last_keep_awake_{};
  TimePoint attentive_until_{};
  bool need_asking_ = false;  // a rail has no descriptor to wait on
  TimePoint shutdown_deadline_{};
  bool shutting_down_ = false;
  bool finished_ = false;

  struct OperationCount {
    transfer::Relaxed<std::uint64_t> count{0}, failed{0}, bytes{0}, nanoseconds{0};
    std::array<transfer::Relaxed<std::uint64_t>, 40> log2{};
  };
  static constexpr std::size_t kOperations = 4;  // by TransferSlot::Kind
  std::array<OperationCount, kOperations> operations_;
  struct {
    std::atomic<std::uint64_t> submitted{0};
    transfer::Relaxed<std::uint64_t> done{0}, failed{0}, messages_sent{0}, messages_received{0},
        messages_dropped{0}, peers_lost{0}, failovers{0}, sent_again{0}, stray_arrivals{0},
        repeated_arrivals{0};
    transfer::Relaxed<std::uint32_t> peers_connected{0};
  } count_;
};

}  // namespace switchyard
