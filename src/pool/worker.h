// What an instance does all day: a loop on one thread that takes in orders, computes one step, and tells.
//
// It carries out orders in the order in which they come. One job computes at a time; loads, moves and
// hand-overs go on beside it on other threads, whose news come through the mailbox. Other threads reach it
// through the functions that say so only; everything else belongs to the loop's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>

#include "pool/berths.h"
#include "pool/channel.h"
#include "pool/instance_memory.h"
#include "pool/job.h"
#include "pool/kv_traffic.h"
#include "pool/mailbox.h"
#include "pool/outbox.h"
#include "pool/requests.h"

namespace switchyard::pool {

struct WorkerParts {
  TransferEngine& engine;
  Channel& channel;
  InstanceMemory& memory;
  BerthParts berths;       // `post` is filled in
  PeerAddress dispatcher;  // the only one whose orders are taken
  WorkerLimits limits;
};

class Worker {
 public:
  // Errors: those of Berths.
  static Result<std::unique_ptr<Worker>> create(WorkerParts parts);
  // The engine must have ended and no other thread may reach it any more.
  ~Worker() = default;

  // Runs until stop(). What is under way then is dropped: the dispatcher replays it elsewhere.
  void run();

  // From any thread.
  void stop();
  void handle(const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload);
  void peer_lost(const PeerAddress& peer, const Error& why);

  const Berths& berths() const { return *berths_; }

 private:
  using Event = std::function<void()>;
  // Orders wait here while a step runs; the dispatcher bounds requests, so this is only a last resort.
  static constexpr std::size_t kMaxEvents = 1 << 16;
  static constexpr std::size_t kMaxJobs = 16;
  static constexpr Nanos kStatsInterval = std::chrono::milliseconds(500);
  static constexpr Nanos kSendAgain = std::chrono::milliseconds(2);

  explicit Worker(WorkerParts parts);
  void take_order(OrderType type, std::span<const std::byte> payload);
  template <class M, class F>
  void with(std::span<const std::byte> payload, F&& call);
  void load(const LoadModel& order);
  void evict(const EvictModel& order);
  void join(const Join& order);
  void begin(std::unique_ptr<Job> job);
  bool in_use(ModelId model) const;
  // Does what can be done now. True: call again at once, there is more.
  bool work();
  TimePoint next_wake() const;
  void report_if_due();

  const WorkerParts parts_;
  Mailbox<Event> mailbox_{kMaxEvents};
  Outbox outbox_;
  Requests requests_;
  KvTraffic traffic_;
  std::unique_ptr<Berths> berths_;  // its thread ends before the rest goes
  JobCounts counts_;
  std::deque<std::unique_ptr<Job>> jobs_;  // the first one computes
  bool stopping_ = false;
  bool unsent_ = false;
  bool report_wanted_ = true;
  TimePoint next_report_{};
};

}  // namespace switchyard::pool
