// A fixed team of threads that carries out one function together, in phases.
//
// run() wakes the workers, calls the function on every member (the caller is member 0) and returns when all
// have returned. Inside, barrier() separates phases. Waiting spins for some microseconds and then sleeps, so
// that programs that share the cores are not held up. A team of one runs the function in place.
//
// Owned by one object; one thread calls run() at a time. Neither run() nor barrier() allocates. The function
// must not throw, and every member must pass the same barriers.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace switchyard {

class ThreadTeam {
 public:
  // A function of the member's number, without ownership: lives as long as run().
  struct Work {
    void (*call)(void* context, std::uint32_t member) = nullptr;
    void* context = nullptr;
  };

  // `threads`: at least 1.
  explicit ThreadTeam(std::uint32_t threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  std::uint32_t size() const { return size_; }

  template <class F>
  void run(F&& function) {
    run(Work{[](void* context, std::uint32_t member) {
               (*static_cast<std::remove_reference_t<F>*>(context))(member);
             },
             &function});
  }
  void run(Work work);

  // Returns when every member has called it. What members wrote before is seen by all after.
  void barrier();

 private:
  void worker(std::uint32_t member);

  const std::uint32_t size_;
  std::vector<std::thread> threads_;
  Work work_;
  bool stopping_ = false;
  alignas(64) std::atomic<std::uint32_t> round_{0};     // of run(): changes when there is work
  alignas(64) std::atomic<std::uint32_t> arrived_{0};   // at the barrier
  alignas(64) std::atomic<std::uint32_t> passages_{0};  // of the barrier
};

// The part of `count` items that member `member` of `members` takes: [first, last), contiguous, differing in
// length by one at most.
struct Share {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
};
constexpr Share share(std::uint32_t count, std::uint32_t member, std::uint32_t members) {
  return {static_cast<std::uint32_t>(std::uint64_t{count} * member / members),
          static_cast<std::uint32_t>(std::uint64_t{count} * (member + 1) / members)};
}

}  // namespace switchyard
