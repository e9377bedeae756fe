#include "pool/kv_mover.h"

#include <cstring>

namespace switchyard::pool {

KvMover::KvMover(std::span<std::byte> device, std::span<std::byte> host)
    : device_(device), host_(host), thread_([this] { run(); }) {}

KvMover::~KvMover() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void KvMover::add(KvCopy copy) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(copy));
  }
  wake_.notify_one();
}

void KvMover::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const KvCopy copy = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    carry_out(copy);
    copy.done();
    lock.lock();
  }
}

void KvMover::carry_out(const KvCopy& copy) const {
  for (std::size_t i = 0; i < copy.device.size(); ++i) {
    if (stopping_ || copy.stop->load()) return;
    std::byte* const device = device_.data() + block_offset(copy.device[i]);
    std::byte* const host = host_.data() + block_offset(copy.host[i]);
    if (copy.out) {
      std::memcpy(host, device, copy.block_bytes);
    } else {
      std::memcpy(device, host, copy.block_bytes);
    }
  }
}

}  // namespace switchyard::pool
