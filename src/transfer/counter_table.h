// The counters of one engine. A counter counts transfers: each arrives once, when all its bytes are at the
// target (arrival_log.h says how), whatever it was split into.
//
// A freed slot goes to the end of the queue of free ones and its
// generation moves on, so what a late writer still sends to it counts nowhere: the same generation comes back
// after 65,536 times as many counters as there are free slots.
//
// Threads: arrival() belongs to the worker and takes no lock unless an expectation is fulfilled; the others
// may be called from any thread and take the table's lock. No callback is called here: what is due is handed
// to the worker.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "switchyard/time.h"
#include "switchyard/transfer.h"

namespace switchyard::transfer {

class CounterTable {
 public:
  static constexpr std::uint32_t kMaxSlots = 1 << 16;

  struct Name {
    std::uint32_t slot = 0;
    std::uint32_t generation = 0;
  };
  using Fired = std::pair<Done, Status>;

  explicit CounterTable(std::uint32_t slots);

  // Errors: exhausted.
  Result<Name> make();
  void free(Name name);
  Status expect(Name name, std::uint64_t target, TimePoint deadline, Done done);
  void cancel(Name name);
  std::uint64_t arrived(Name name) const;
  std::uint32_t used() const;

  // Worker: counts a transfer. False when it names no living counter.
  bool arrival(Name name);
  // Worker: what the calls above, on any thread, have left for it to call.
  bool has_fired() const { return has_fired_.load(std::memory_order_acquire); }
  void take_fired(std::vector<Fired>& out);
  // Worker: slots whose deadline changed since the last call, with the deadline (max: none).
  void take_touched(std::vector<std::pair<std::uint32_t, TimePoint>>& out);
  void time_out(std::uint32_t slot, TimePoint now);
  // Everything that waits ends with `why`, and nothing can be armed any more.
  void close(const Error& why);

 private:
  struct Slot {
    // Generation in the upper 16 bits, arrivals in the lower 48: one word, so that an arrival is never
    // counted for the slot's next user.
    std::atomic<std::uint64_t> state{0};
    std::atomic<std::uint64_t> target{~std::uint64_t{0}};  // of the armed expectation, or the largest number
    bool used = false;
    bool touched = false;
    TimePoint deadline = TimePoint::max();
    Done done;
  };

  Slot* find(Name name);
  const Slot* find(Name name) const;
  void fire(Slot& slot, std::uint32_t index, Status status);
  void touch(Slot& slot, std::uint32_t index);

  mutable std::mutex mutex_;
  std::vector<Slot> slots_;
  std::deque<std::uint32_t> free_;
  std::vector<Fired> fired_;
  std::vector<std::uint32_t> touched_;
  std::atomic<bool> has_fired_{false};
  std::optional<Error> closed_;
};

}  // namespace switchyard::transfer
