#include "transfer/worker.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <string>

#include "transfer/engine_core.h"

namespace switchyard::transfer {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// Cores are scarce and the program computes on them: a long spin would cost more than a wake-up does.
constexpr Nanos kSpin = microseconds(10);
constexpr Nanos kYield = microseconds(60);
constexpr Nanos kAskedYield = milliseconds(1);  // with writes under way on rails that move only when asked
// Rails that cannot wake a sleeper, or have no room, are looked at in growing intervals.
constexpr Nanos kFirstNap = microseconds(50);
constexpr Nanos kLongestNap = milliseconds(1);       // with something under way
constexpr Nanos kLongestIdleNap = milliseconds(20);  // without: a peer that begins to write rings
// Those that can are looked at all the same, rarely: progress that a library makes only when it is asked.
constexpr Nanos kBusySleep = milliseconds(1);
constexpr Nanos kIdleSleep = milliseconds(20);
constexpr Nanos kWatchNap = microseconds(100);

void sleep_on(const EngineCore& core, Nanos limit) {
  std::array<pollfd, kMaxRails + 2> descriptors;
  std::size_t count = 0;
  descriptors[count++] = {core.wake_fd(), POLLIN, 0};
  descriptors[count++] = {core.control_fd(), POLLIN, 0};
  for (const EngineRail& rail : core.rails()) descriptors[count++] = {rail.rail->wait_fd(), POLLIN, 0};
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(limit);
  const timespec time{seconds.count(), (limit - seconds).count()};
  ppoll(descriptors.data(), count, &time, nullptr);
}

}  // namespace

void run_worker(std::shared_ptr<EngineCore> core) {
  // The program's signals are for its own threads.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  pthread_setname_np(pthread_self(), ("sy-" + core->name()).substr(0, 15).c_str());
  TimePoint last_busy = monotonic_now();
  Nanos nap = kFirstNap;
  while (!core->finished()) {
    TimePoint now = monotonic_now();
    if (core->step(now)) {
      last_busy = now;
      nap = kFirstNap;
      continue;
    }
    if (now - last_busy < kSpin) continue;
    const bool asked = core->rails_need_asking() && core->has_outstanding();
    if (now - last_busy < (asked ? kAskedYield : kYield) || now < core->attentive_until()) {
      sched_yield();
      continue;
    }
    if (!core->prepare_sleep()) continue;
    bool wakes = true, quiet = true;
    for (const EngineRail& rail : core->rails()) {
      if (rail.rail->wait_fd() < 0) {
        wakes = false;
      } else {
        quiet = quiet && rail.rail->prepare_sleep();
      }
    }
    if (!quiet) {
      core->woken();
      continue;
    }
    const bool naps = !wakes || core->has_refused_posts();
    Nanos limit = naps ? nap : core->has_outstanding() ? kBusySleep : kIdleSleep;
    if (naps) {
      const bool waiting = core->has_outstanding() || core->has_refused_posts();
      nap = std::min(2 * nap, waiting ? kLongestNap : kLongestIdleNap);
    }
    limit = std::clamp(core->next_deadline() - now, Nanos::zero(), limit);
    if (core->has_watches()) limit = std::min<Nanos>(limit, kWatchNap);
    sleep_on(*core, limit);
    core->woken();
  }
}

}  // namespace switchyard::transfer
