// Deadlines of a fixed set of things, named by small integers; each has at most one. Arming, changing and
// removing cost O(log n); nothing is allocated after construction. Used by the worker thread alone.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "switchyard/time.h"
#include "transfer/index_list.h"

namespace switchyard::transfer {

class DeadlineHeap {
 public:
  explicit DeadlineHeap(std::uint32_t capacity) : position_(capacity, kNoIndex) { heap_.reserve(capacity); }

  TimePoint next() const { return heap_.empty() ? TimePoint::max() : heap_.front().first; }

  // TimePoint::max() removes.
  void set(std::uint32_t id, TimePoint when) {
    remove(id);
    if (when == TimePoint::max()) return;
    heap_.emplace_back(when, id);
    position_[id] = static_cast<std::uint32_t>(heap_.size() - 1);
    up(heap_.size() - 1);
  }

  void remove(std::uint32_t id) {
    const std::uint32_t at = position_[id];
    if (at == kNoIndex) return;
    position_[id] = kNoIndex;
    const auto last = heap_.back();
    heap_.pop_back();
    if (at == heap_.size()) return;
    heap_[at] = last;
    position_[last.second] = at;
    up(at);
    down(position_[last.second]);
  }

  // Takes one that is due, or kNoIndex.
  std::uint32_t take_due(TimePoint now) {
    if (heap_.empty() || heap_.front().first > now) return kNoIndex;
    const std::uint32_t id = heap_.front().second;
    remove(id);
    return id;
  }

 private:
  void swap(std::size_t a, std::size_t b) {
    std::swap(heap_[a], heap_[b]);
    position_[heap_[a].second] = static_cast<std::uint32_t>(a);
    position_[heap_[b].second] = static_cast<std::uint32_t>(b);
  }
  void up(std::size_t at) {
    for (; at != 0 && heap_[at].first < heap_[(at - 1) / 2].first; at = (at - 1) / 2) swap(at, (at - 1) / 2);
  }
  void down(std::size_t at) {
    for (;;) {
      std::size_t least = at;
      for (std::size_t child = 2 * at + 1; child <= 2 * at + 2 && child < heap_.size(); ++child) {
        if (heap_[child].first < heap_[least].first) least = child;
      }
      if (least == at) return;
      swap(at, least);
      at = least;
    }
  }

  std::vector<std::pair<TimePoint, std::uint32_t>> heap_;
  std::vector<std::uint32_t> position_;  // in the heap, by id
};

}  // namespace switchyard::transfer
