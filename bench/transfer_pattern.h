// Where the writes of a measurement go, the same for the engine and for bare rails. Offsets are alike on both
// sides, but for the pages of a list.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "transfer_drive.h"

namespace switchyard::bench {

class WritePlaces {
 public:
  explicit WritePlaces(const WriteLoad& load)
      : stride_((load.bytes + 63) & ~std::uint64_t{63}),
        depth_(load.depth),
        places_(load.span == 0 ? load.depth : std::max<std::uint64_t>(1, load.span / stride_)) {}
  std::uint64_t offset(std::uint32_t lane, std::uint64_t turn) const {
    return (lane + turn * depth_) % places_ * stride_;
  }
  std::uint64_t bytes() const { return places_ * stride_; }

 private:
  std::uint64_t stride_, depth_, places_;
};

// Each lane has a stretch of its own with twice as many pages as a list.
class PagePlaces {
 public:
  explicit PagePlaces(const PageLoad& load) : stretch_(2 * load.pages * load.page_bytes), lanes_(load.depth) {
    source_.resize(2 * std::size_t{load.pages});
    std::iota(source_.begin(), source_.end(), 0u);
    target_ = source_;
    if (load.scattered) {
      std::mt19937 random(1);
      std::shuffle(source_.begin(), source_.end(), random);
      std::shuffle(target_.begin(), target_.end(), random);
    }
    source_.resize(load.pages);
    target_.resize(load.pages);
  }
  std::uint64_t first(std::uint32_t lane) const { return lane * stretch_; }
  const std::vector<std::uint32_t>& source() const { return source_; }
  const std::vector<std::uint32_t>& target() const { return target_; }
  std::uint64_t bytes() const { return lanes_ * stretch_; }

 private:
  std::uint64_t stretch_, lanes_;
  std::vector<std::uint32_t> source_, target_;
};

}  // namespace switchyard::bench
