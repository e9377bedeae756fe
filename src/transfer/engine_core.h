// The engine behind TransferEngine: a state machine that one thread steps, and the submission side that any
// thread calls.
//
// step(now) drains the submission queue, reads the control channel, polls the rail, posts, and fires
// deadlines; it takes its clock from outside and starts no thread. Submission takes one short lock per call
// and puts a command into a bounded queue; everything else of a transfer (each work request, each completion)
// is the worker's and needs no lock and no allocation.
//
// Parts: engine_submit.cc (any thread), engine_core.cc (stepping, callbacks, end), engine_schedule.cc
// (posting and completions), engine_peers.cc (connections and their loss).
#pragma once

#include <array>
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

#include "fabric/fabric.h"
#include "switchyard/transfer.h"
#include "transfer/control_channel.h"
#include "transfer/counter_table.h"
#include "transfer/deadline_heap.h"
#include "transfer/write_plan.h"

namespace switchyard {

struct Region::State {
  std::weak_ptr<EngineCore> engine;
  std::unique_ptr<fabric::LocalMemory> memory;
  std::byte* base = nullptr;
  std::size_t bytes = 0;
  RegionKey key;
};

struct Counter::State {
  std::shared_ptr<transfer::CounterTable> table;
  transfer::CounterTable::Name name;
  std::uint64_t epoch = 0;
  std::weak_ptr<EngineCore> engine;  // to wake it
  ~State();
};

namespace transfer {

using EngineId = std::array<std::uint64_t, 2>;

// One submitted operation. Filled where it is submitted, then the worker's until it is free again.
struct TransferSlot {
  enum class Kind : std::uint8_t { write, message, connect };

  IndexLink link;  // in its peer's list, while it waits for a turn
  std::uint32_t generation = 1;
  Kind kind = Kind::write;
  bool used = false;           // guarded by the submission lock
  bool started = false;        // the worker has it
  bool ended = false;          // Done has been issued; kept until nothing is outstanding
  bool cancel_queued = false;  // guarded by the submission lock
  bool immediate_posted = false;
  std::uint32_t peer = kNoIndex;
  std::uint32_t peer_generation = 0;
  std::uint32_t outstanding = 0;  // posted writes or an unacknowledged message
  WritePlan plan;
  Region source;
  RegionKey::Rail target;
  std::optional<std::uint32_t> immediate;
  std::vector<std::byte> message;
  TimePoint deadline = TimePoint::max();
  Done done;
  std::vector<std::function<void()>> drained;  // guarded by the submission lock
};

struct Peer {
  enum class State : std::uint8_t { free, fresh, dialling, open };

  IndexLink link;  // in the list of peers that have something to post
  State state = State::free;
  bool local = false;    // this engine itself
  bool on_rail = false;  // rail_peer is valid
  std::uint32_t generation = 1;
  PeerAddress address;
  LinkId control = kNoLink;
  fabric::PeerId rail_peer = 0;
  IndexList writes;    // have something to post, or wait for the connection
  IndexList messages;  // wait to be sent
  std::uint32_t outstanding = 0;
  std::uint32_t unacknowledged = 0;
  std::uint64_t message_bytes = 0;  // what it takes
  std::uint32_t message_slots = 0;
  TimePoint connect_deadline{};
  TimePoint last_post{};
};

}  // namespace transfer

class EngineCore final : public std::enable_shared_from_this<EngineCore>,
                         private transfer::ControlChannel::Handler {
 public:
  static Result<std::shared_ptr<EngineCore>> open(const EngineOptions& options);
  ~EngineCore() override;

  // ---- any thread
  const PeerAddress& address() const { return self_; }
  Result<Region> register_region(void* base, std::size_t bytes);
  Result<Counter> make_counter();
  Result<Transfer> write(Write write, Done done);
  Result<Transfer> write_pages(PagedWrite write, Done done);
  Result<Transfer> send(const PeerAddress& peer, std::span<const std::byte> message, Done done,
                        TimePoint deadline);
  Status connect(const PeerAddress& peer, Done done);
  void cancel(std::uint64_t id, std::function<void()> drained);
  Status post(std::function<void()> task);
  void on_message(MessageHandler handler);
  void on_peer_lost(PeerHandler handler);
  EngineMetrics metrics() const;
  void wake();
  void start_worker();
  // Ends everything and joins the worker; called on the worker itself, in a callback, it leaves it to end
  // alone.
  void stop_worker();

  // ---- worker
  // Does what there is to do; false when there was nothing.
  bool step(TimePoint now);
  bool finished() const { return finished_; }
  // When step() has to be called again if no descriptor becomes readable before.
  TimePoint next_deadline() const;
  bool has_outstanding() const { return outstanding_ != 0; }
  // The rail had no room; nothing but asking again tells when it has.
  bool has_refused_posts() const { return starved_; }
  // After true, wake_fd, control_fd and (unless -1) the rail's fd say when to go on.
  bool prepare_sleep();
  void woken();
  int wake_fd() const { return wake_fd_; }
  int control_fd() const { return control_->fd(); }
  fabric::Fabric& rail() { return *rail_; }
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

  // engine_submit.cc
  Status check_target(const PeerAddress& peer, const RegionKey& target, const SubmitOptions& options) const;
  Status check_source(const Region& source, std::uint64_t bytes) const;
  Result<Transfer> submit_write(transfer::WritePlan plan, Region source, const PeerAddress& peer,
                                const RegionKey& target, const SubmitOptions& options, Done done);
  // Both need the lock.
  Result<std::uint32_t> peer_for(const PeerAddress& address, bool again);
  Result<std::uint32_t> take_slot(transfer::TransferSlot::Kind kind, std::uint32_t peer, Done done,
                                  TimePoint deadline);
  Transfer enqueue(std::uint32_t slot);

  // engine_core.cc
  bool drain_commands();
  bool fire_deadlines();
  bool take_counters();
  bool run_callbacks();
  void start(std::uint32_t index);
  void end(std::uint32_t index, Status status);
  void release(std::uint32_t index);
  void report_drained(std::uint32_t index);
  void begin_shutdown();
  void finish_shutdown();

  // engine_schedule.cc
  bool poll_rail();
  void complete(const fabric::Completion& completion);
  bool schedule();
  bool post_some(std::uint32_t peer_index);
  void want_posting(std::uint32_t peer_index);
  bool send_messages(std::uint32_t peer_index);
  void deliver_to_self(transfer::Peer& peer);

  // engine_peers.cc
  void dial(std::uint32_t peer_index);
  Status join_rail(transfer::Peer& peer);
  void opened(std::uint32_t peer_index);
  void lose(std::uint32_t peer_index, const Error& why);
  std::uint32_t peer_of(transfer::LinkId link) const;
  void bind(std::uint32_t peer_index, transfer::LinkId link);
  std::optional<transfer::Reject> on_hello(transfer::LinkId link, const transfer::Hello& hello) override;
  void on_open(transfer::LinkId link, const transfer::Welcome& welcome) override;
  void on_message(transfer::LinkId link, std::span<const std::byte> message) override;
  void on_ack(transfer::LinkId link, std::uint64_t id) override;
  void on_closed(transfer::LinkId link, const Error& why,
                 std::optional<transfer::Reject::Why> refused) override;
  void call_message_handler(const PeerAddress& from, std::span<const std::byte> message);

  // Deadlines of transfers, counters and peers share one heap.
  std::uint32_t counter_deadline(std::uint32_t slot) const { return options_.max_transfers + slot; }
  std::uint32_t peer_deadline(std::uint32_t peer) const {
    return options_.max_transfers + options_.max_counters + peer;
  }

  EngineOptions options_;
  PeerAddress self_;
  std::string rail_name_;
  std::shared_ptr<fabric::Fabric> rail_;
  std::unique_ptr<transfer::ControlChannel> control_;
  std::shared_ptr<transfer::CounterTable> counters_;
  int wake_fd_ = -1;

  // Guarded by the submission lock.
  mutable std::mutex mutex_;
  std::optional<Error> closed_;
  std::vector<std::uint32_t> free_slots_;
  std::vector<std::uint32_t> free_peers_;
  std::map<transfer::EngineId, std::uint32_t> directory_;  // peers that are fresh, dialling or open
  std::deque<std::pair<transfer::EngineId, std::uint64_t>>
      gone_;  // id and epoch of peers that died; the latest few
  std::vector<Command> commands_;
  std::vector<std::function<void()>> tasks_;
  std::vector<std::function<void()>> late_drained_;  // cancels of transfers that had ended
  std::shared_ptr<const MessageHandler> message_handler_;
  std::shared_ptr<const PeerHandler> peer_handler_;

  std::atomic<bool> pending_{false};  // something above wants the worker
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> stopping_{false};
  std::thread worker_;

  // The worker's, but for the moment of submission.
  std::vector<transfer::TransferSlot> slots_;
  std::vector<transfer::Peer> peers_;

  // The worker's.
  transfer::DeadlineHeap deadlines_;
  std::vector<std::uint32_t> link_peers_;  // by slot of the link
  transfer::IndexList busy_peers_;
  bool starved_ = false;  // the rail took less than it was offered
  std::vector<Command> taken_commands_;
  std::vector<std::function<void()>> taken_tasks_;
  std::vector<Due> due_, running_;
  std::vector<transfer::CounterTable::Fired> fired_;
  std::vector<std::pair<std::uint32_t, TimePoint>> touched_;
  std::uint32_t outstanding_ = 0;
  TimePoint now_{};
  TimePoint last_control_{};
  TimePoint shutdown_deadline_{};
  bool shutting_down_ = false;
  bool finished_ = false;

  struct {
    std::atomic<std::uint64_t> bytes_written{0}, work_requests{0}, messages_sent{0}, messages_received{0},
        retries{0};
    std::atomic<std::uint64_t> submitted{0}, done{0}, failed{0}, peers_lost{0}, messages_dropped{0},
        stray_immediates{0};
    std::atomic<std::uint32_t> peers_connected{0};
  } count_;
};

}  // namespace switchyard
