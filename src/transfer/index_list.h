// A FIFO of array elements, linked through indices that lie in the elements: no allocation, removal from the
// middle.
#pragma once

#include <cstdint>

namespace switchyard::transfer {

constexpr std::uint32_t kNoIndex = 0xffff'ffff;

struct IndexLink {
  std::uint32_t previous = kNoIndex;
  std::uint32_t next = kNoIndex;
  bool listed = false;
};

// Elements are found by `array[index]` and have a member `link`.
class IndexList {
 public:
  bool empty() const { return first_ == kNoIndex; }
  std::uint32_t front() const { return first_; }

  template <class Array>
  void push_back(Array& array, std::uint32_t index) {
    IndexLink& link = array[index].link;
    link = {last_, kNoIndex, true};
    (last_ == kNoIndex ? first_ : array[last_].link.next) = index;
    last_ = index;
  }

  template <class Array>
  void remove(Array& array, std::uint32_t index) {
    IndexLink& link = array[index].link;
    if (!link.listed) return;
    (link.previous == kNoIndex ? first_ : array[link.previous].link.next) = link.next;
    (link.next == kNoIndex ? last_ : array[link.next].link.previous) = link.previous;
    link = {};
  }

 private:
  std::uint32_t first_ = kNoIndex;
  std::uint32_t last_ = kNoIndex;
};

}  // namespace switchyard::transfer
