#include "base/thread_team.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace switchyard {
namespace {

// About five microseconds: phases of one step differ by less when every member has a core.
constexpr int kSpins = 150;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Returns when the value is no longer `old`.
void wait_for_change(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadTeam::ThreadTeam(std::uint32_t threads) : size_(threads == 0 ? 1 : threads) {
  for (std::uint32_t member = 1; member < size_; ++member) {
    threads_.emplace_back([this, member] { worker(member); });
  }
}

ThreadTeam::~ThreadTeam() {
  stopping_ = true;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::run(Work work) {
  if (size_ == 1) {
    work.call(work.context, 0);
    return;
  }
  work_ = work;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  work.call(work.context, 0);
  barrier();
}

void ThreadTeam::worker(std::uint32_t member) {
  std::uint32_t seen = 0;
  while (true) {
    wait_for_change(round_, seen);
    ++seen;
    if (stopping_) return;
    work_.call(work_.context, member);
    barrier();
  }
}

void ThreadTeam::barrier() {
  if (size_ == 1) return;
  const std::uint32_t passage = passages_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    passages_.fetch_add(1, std::memory_order_release);
    passages_.notify_all();
    return;
  }
  wait_for_change(passages_, passage);
}

}  // namespace switchyard
