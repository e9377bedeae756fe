// Copies KV blocks between an instance's memory and host memory, on a thread of its own, while the instance
// computes.
//
// Copies are carried out one after the other in the order in which they came, so that those of a request stay
// in order. Their number is bounded by the requests that the caller holds. Owned by the worker; add() from
// its loop, `done` on the mover's thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "memory/block_pool.h"

namespace switchyard::pool {

struct KvCopy {
  bool out = true;  // to host memory
  std::size_t block_bytes = 0;
  std::vector<BlockId> device;
  std::vector<BlockId> host;                      // as many
  std::shared_ptr<const std::atomic<bool>> stop;  // when it is set, what is left is not copied
  // Always called, once nothing of this copy touches either side any more.
  std::function<void()> done;
};

class KvMover {
 public:
  // Both stay while the mover lives. All blocks of a copy lie inside.
  KvMover(std::span<std::byte> device, std::span<std::byte> host);
  // Calls `done` of what is left without copying it.
  ~KvMover();

  std::span<std::byte> host() const { return host_; }
  void add(KvCopy copy);

 private:
  void run();
  void carry_out(const KvCopy& copy) const;

  const std::span<std::byte> device_;
  const std::span<std::byte> host_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<KvCopy> waiting_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace switchyard::pool
